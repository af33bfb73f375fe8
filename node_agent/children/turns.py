"""Whose turn it is among kinds of work that wait for a child. Pure.

The lowest rank comes first. Those of one rank share the CPU time: next is the one that has used the
least. One that waits again begins where the others are, so nobody saves up turns (start-time fair
queueing: Goyal, Vin and Cheng, SIGCOMM 1996).
"""

from collections.abc import Collection


class Turns:
    """Kinds of work by name."""

    def __init__(self) -> None:
        self._used_s: dict[str, float] = {}
        self._waited: set[str] = set()
        self._reached_s = 0.0  # by whom had the last turn

    def next(self, waiting: Collection[tuple[int, str]]) -> str:
        """The name that is next among those (rank, name) that have something to do now."""
        for _, name in waiting:
            if name not in self._waited:
                self._used_s[name] = max(self._used_s.get(name, 0.0), self._reached_s)
        self._waited = {name for _, name in waiting}
        _, used_s, chosen = min((rank, self._used_s[name], name) for rank, name in waiting)
        self._reached_s = max(self._reached_s, used_s)
        return chosen

    def pay(self, name: str, cpu_s: float) -> None:
        """A turn of `name` took so much."""
        self._used_s[name] = self._used_s.get(name, 0.0) + cpu_s
