"""What the sampler warns of in its log after every interval: its own cost, its units' limits."""

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from node_agent.log import Lasting, Log
from node_agent.overhead.unit_limits import LimitTeller, UnitState, parse_unit, read_unit
from node_agent.sampler.events import Events
from wire.schema import Overhead

# Beyond these an operator should look, whatever the budget is.
WARN_CPU_PERCENT = 1.0
WARN_MEMORY_BYTES = 50 << 20
WINDOW_S = 60.0  # of CPU: the seconds of a start are not the agent's cost


class OverheadWarnings:
    """Lines while the agent took over 1 % of the host's CPU within a minute, or takes over 50 MiB.

    In the first minute what there is of it is held against the whole minute, as the centre's rule
    does (aggregator/alerts/rules.py).
    """

    def __init__(self, log: Log) -> None:
        self._cpu = Lasting(log, "overhead")
        self._memory = Lasting(log, "memory")
        self._minute: deque[tuple[float, float]] = deque()  # (seconds, percent), the newest last

    def note(self, overhead: Overhead, now_s: float, interval_s: float) -> None:
        """What an interval of `interval_s` cost that ended at `now_s` (monotonic)."""
        percent, in_use = self._of_minute(overhead.cpu_percent, interval_s), overhead.memory_bytes
        costs = {"cpu_percent": percent, "limit": WARN_CPU_PERCENT}
        if percent > WARN_CPU_PERCENT:
            words = "the agent takes more of the host's CPU than it should"
            user = overhead.user_percent_of_core
            self._cpu.note(words, now_s, **costs, user_percent_of_core=user)
        else:
            self._cpu.clear("the agent's CPU time is as it should be", now_s, **costs)
        if in_use > WARN_MEMORY_BYTES:
            words = "the agent takes more memory than it should"
            maps = overhead.map_bytes
            self._memory.note(
                words, now_s, memory_bytes=in_use, limit=WARN_MEMORY_BYTES, map_bytes=maps
            )
        else:
            words = "the agent's memory is as it should be"
            self._memory.clear(words, now_s, memory_bytes=in_use, limit=WARN_MEMORY_BYTES)

    def _of_minute(self, percent: float, interval_s: float) -> float:
        """The mean of the last minute, or of the last interval where that is longer."""
        minute = self._minute
        minute.append((interval_s, percent))
        while sum(seconds for seconds, _ in minute) - minute[0][0] >= WINDOW_S:
            minute.popleft()
        covered_s = sum(seconds for seconds, _ in minute)
        return sum(seconds * cost for seconds, cost in minute) / max(covered_s, WINDOW_S)


class UnitWarnings:
    """The limits of the units of both processes (node_agent.overhead.unit_limits): told in the log
    and as events of kind "unit_limit"."""

    def __init__(
        self,
        log: Log,
        events: Events,
        group: Path | None,
        was_killed: Callable[[int], bool] = lambda pid: False,
    ) -> None:
        """`group` is the control group of this process's unit (None: it has none). `was_killed`
        says whether the process of that id was killed for want of memory, for those whose group,
        with its counters, went with them."""
        self._was_killed = was_killed
        self._shipper_pid: int | None = None
        self._log = log
        self._events = events
        self._group = group
        self._tellers = {whose: LimitTeller(f"the {whose}") for whose in ("sampler", "shipper")}
        self._states: dict[str, UnitState] = {}

    def look(self, shipper: dict[str, Any] | None) -> None:
        """Read the own unit's counters, and those in the shipper's report (None: it has none)."""
        if self._group is not None:
            self._note("sampler", read_unit(self._group))
        told = parse_unit(shipper.get("unit")) if shipper else None
        if told is not None:
            self._note("shipper", told)
        pid = shipper.get("pid") if shipper else None
        if not isinstance(pid, int):
            return
        before, self._shipper_pid = self._shipper_pid, pid
        if before is not None and before != pid and self._was_killed(before):
            self.note_kill("shipper")

    def note_kill(self, whose: str) -> None:
        """The process before the present one was killed; told unless its group's counters do."""
        state = self._states.get(whose, UnitState())
        if state.oom_kills:
            return
        words = f"the {whose} was killed for want of memory; this is the one after"
        limit = state.memory_max_bytes
        self._events.add("unit_limit", "oom", words, 1, limit)
        self._log.warning("unit_limit", words, reason="oom", times=1, limit=limit)

    def status(self) -> dict[str, dict[str, int]]:
        """For the status file: counters since each unit's start, and its limits."""
        return {whose: state._asdict() for whose, state in self._states.items()}

    def _note(self, whose: str, state: UnitState) -> None:
        self._states[whose] = state
        for met in self._tellers[whose].note(state, time.monotonic()):
            self._events.add("unit_limit", met.reason, met.words, met.times, met.limit)
            self._log.warning(
                "unit_limit", met.words, reason=met.reason, times=met.times, limit=met.limit
            )
