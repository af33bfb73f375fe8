"""How near the agent's memory is to its limit, with what it will soon have grown to. Pure.

A step down gives memory back late: what was taken up has to be sent and forgotten first. So it has
to be taken before the limit is met, while the memory still grows.
"""

ALARM = 0.75  # of the limit: below it growth calls for nothing
AHEAD_S = 10.0  # an interval of the default length
_LEAST_S = 5.0  # readings nearer to each other are no measure of growth
STILL_GROWS = 1.02  # to what it was when the last step was taken
MEMORY_WAIT_S = 30.0  # memory is given back slowly


class MemoryPressure:
    """From one reading to the next; times are monotonic."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._last: tuple[int, float] | None = None
        self._at_step: tuple[int, float] | None = None

    def expect(self, memory_bytes: int, now_s: float) -> int:
        """What the agent will have in AHEAD_S, in bytes, if it grows as it did since the last
        call; what it has now where that is below ALARM or has not grown."""
        last, self._last = self._last, (memory_bytes, now_s)
        if last is None or memory_bytes < ALARM * self._limit_bytes:
            return memory_bytes
        grown = max(memory_bytes - last[0], 0) / max(now_s - last[1], _LEAST_S)
        return memory_bytes + round(grown * AHEAD_S)

    def may_step(self, memory_bytes: int, now_s: float) -> bool:
        """Whether the last step has had its time to give memory back, or did not help."""
        if self._at_step is None:
            return True
        before_bytes, at_s = self._at_step
        return now_s - at_s >= MEMORY_WAIT_S or memory_bytes > STILL_GROWS * before_bytes

    def note_step(self, memory_bytes: int, now_s: float) -> None:
        """A step down was taken for want of memory."""
        self._at_step = (memory_bytes, now_s)
