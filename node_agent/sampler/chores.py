"""What the sampler does now and then, when it is awake anyway."""

from collections.abc import Callable


class Chores:
    """Done by `step` in the order of `add`, each every so many seconds at the soonest. Times are of
    one clock that never goes back."""

    def __init__(self, now_s: float) -> None:
        self._now_s = now_s
        self._all: list[tuple[float, Callable[[], None]]] = []
        self._due_s: list[float] = []

    def add(self, every_s: float, chore: Callable[[], None]) -> None:
        """Have it done for the first time after `every_s`."""
        self._all.append((every_s, chore))
        self._due_s.append(self._now_s + every_s)

    def step(self, now_s: float) -> None:
        """Do what is due."""
        for number, (every_s, chore) in enumerate(self._all):
            if now_s >= self._due_s[number]:
                self._due_s[number] = now_s + every_s
                chore()
