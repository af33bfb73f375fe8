"""What a service's unit did to keep the process inside MemoryMax= and CPUQuota=.

Files of a version 2 control group (Linux, Documentation/admin-guide/cgroup-v2.rst): `cpu.stat`,
`memory.events` and the limits themselves. Counters grow for as long as the group lives.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

TELL_EVERY_S = 300.0  # of one reason
_MIB = 1 << 20
_MAX = 1 << 62


class UnitState(NamedTuple):
    """Counters, and the limits that they belong to (0: none)."""

    throttled: int = 0  # periods at whose end the quota was used up
    throttled_us: int = 0
    memory_high: int = 0
    memory_max: int = 0
    oom_kills: int = 0  # processes of the unit, by whatever limit
    quota_percent: int = 0  # of one core
    memory_high_bytes: int = 0
    memory_max_bytes: int = 0


class Met(NamedTuple):
    """A limit was met: `reason` as in wire.schema.Event, `times` since it was last told, `limit`
    in percent of one core or in bytes."""

    reason: str
    times: int
    limit: float
    words: str


def read_unit(group: Path) -> UnitState:
    """Of the control group at `group`; what its kernel or its controllers don't tell is 0."""
    cpu, memory = _table(group / "cpu.stat"), _table(group / "memory.events")
    return UnitState(
        cpu.get("nr_throttled", 0),
        cpu.get("throttled_usec", 0),
        memory.get("high", 0),
        memory.get("max", 0),
        memory.get("oom_kill", 0),
        _quota_percent(group / "cpu.max"),
        _bytes(group / "memory.high"),
        _bytes(group / "memory.max"),
    )


def parse_unit(table: object) -> UnitState | None:
    """From another process's report, of which nothing is believed."""
    if not isinstance(table, Mapping):
        return None
    numbers = [table.get(name, 0) for name in UnitState._fields]
    if all(isinstance(number, int) and 0 <= number < _MAX for number in numbers):
        return UnitState(*numbers)
    return None


class LimitTeller:
    """Compares one unit's states; `whose` begins its words ("the sampler")."""

    def __init__(self, whose: str) -> None:
        self._whose = whose
        self._told: UnitState | None = None
        self._told_s: dict[str, float] = {}

    def note(self, state: UnitState, now_s: float) -> list[Met]:
        """What has to be told of the `state` at `now_s` (monotonic): of each reason at once, and
        from then on at most every TELL_EVERY_S. Of what was counted before the first state only
        the kills are: the process before this one could not tell of its own."""
        told = self._told
        if told is None:
            told = state._replace(oom_kills=0)
        elif any(now < before for now, before in zip(state[:5], told[:5], strict=True)):
            told = UnitState()  # the unit was started again, and its group is another one
        met = [
            one
            for one in self._met(told, state)
            if now_s - self._told_s.get(one.reason, float("-inf")) >= TELL_EVERY_S
        ]
        for one in met:
            self._told_s[one.reason] = now_s
            fields = _COUNTERS[one.reason]
            told = told._replace(**{field: getattr(state, field) for field in fields})
        self._told = told
        return met

    def _met(self, told: UnitState, state: UnitState) -> list[Met]:
        grown = UnitState(*(now - before for now, before in zip(state, told, strict=True)))
        whose, met = self._whose, []
        if grown.throttled:
            quota, held_s = state.quota_percent, grown.throttled_us / 1e6
            words = f"{whose} was held back by CPUQuota={quota}% {_times(grown.throttled)}"
            words += f", {held_s:.1f} s in all"
            met.append(Met("cpu_quota", grown.throttled, quota, words))
        if grown.memory_high:
            limit = state.memory_high_bytes
            words = f"{whose} met MemoryHigh={_mib(limit)} {_times(grown.memory_high)}"
            met.append(Met("memory_high", grown.memory_high, limit, words))
        if grown.memory_max:
            limit = state.memory_max_bytes
            words = f"{whose} met MemoryMax={_mib(limit)} {_times(grown.memory_max)}"
            met.append(Met("memory_max", grown.memory_max, limit, words))
        if grown.oom_kills:
            limit, kills = state.memory_max_bytes, grown.oom_kills
            killed = "a process" if kills == 1 else f"{kills} processes"
            words = f"{killed} of {whose}'s unit was killed for want of memory"
            met.append(Met("oom", kills, limit, f"{words} (MemoryMax={_mib(limit)})"))
        return met


_COUNTERS = {
    "cpu_quota": ("throttled", "throttled_us"),
    "memory_high": ("memory_high",),
    "memory_max": ("memory_max",),
    "oom": ("oom_kills",),
}


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _mib(limit_bytes: int) -> str:
    return f"{limit_bytes / _MIB:.0f}M" if limit_bytes else "infinity"


def _table(path: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    with suppress(OSError):
        for line in path.read_text().split("\n"):
            name, _, value = line.partition(" ")
            if value.isdigit():
                found[name] = int(value)
    return found


def _quota_percent(path: Path) -> int:
    with suppress(OSError, ValueError):
        quota, period = path.read_text().split()
        if quota != "max":
            return round(100 * int(quota) / max(int(period), 1))
    return 0


def _bytes(path: Path) -> int:
    with suppress(OSError, ValueError):
        return int(path.read_text())  # "max" where there is no limit
    return 0
