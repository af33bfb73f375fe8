"""What the agent on this host is doing, from what its two processes wrote down. Pure.

Both reports are files of other users, so nothing in them is taken for granted.
"""

from collections.abc import Callable, Mapping
from typing import Any

from node_agent.spool import Usage

SILENT_AFTER_S = 30.0  # at least; three intervals where these are longer
_ABSURD = 1 << 62
_UNIT_LIMITS = (
    ("throttled", "CPUQuota"),
    ("memory_high", "MemoryHigh"),
    ("memory_max", "MemoryMax"),
    ("oom_kills", "killed for want of memory"),
)
_MODES = {"core": "CO-RE", "bcc": "bcc"}

Report = Mapping[str, Any]


def summarize(
    sampler: Report | None,
    shipper: Report | None,
    usage: Usage,
    limit_bytes: int,
    now_s: float,
    is_alive: Callable[[int], bool],
    disk_trouble: str = "",
) -> dict[str, Any]:
    """The answer of `flamefleet-agent status --json`.

    `sampler` and `shipper` are their reports (None: none), `now_s` is Unix time, `is_alive` says
    whether a process id is there. `running` is the sampler's. `disk_trouble` is what keeps both
    from writing their reports: then these are old, whoever runs.
    """
    sampler, shipper = sampler or {}, shipper or {}
    silent_s = max(SILENT_AFTER_S, 3 * _number(sampler, "interval_s"))
    running = _is_running(sampler, now_s, silent_s, is_alive)
    delivered_at = _number(shipper, "last_delivery_at") or None
    return {
        "at": now_s,
        "running": running,
        "sampler_pid": sampler.get("pid") if running else None,
        "version": sampler.get("version"),
        "uptime_s": max(0.0, now_s - _number(sampler, "started_at")) if running else None,
        "mode": sampler.get("mode"),
        "mode_reason": sampler.get("mode_reason") or None,
        "preset": sampler.get("preset"),
        "collectors": _list(sampler, "collectors"),
        "rate_hz": sampler.get("rate_hz"),
        "asked_rate_hz": sampler.get("asked_rate_hz"),
        "effective_rate_hz": sampler.get("effective_rate_hz"),
        "rate_words": sampler.get("rate_words") or None,
        "interval_s": sampler.get("interval_s"),
        "samples": sampler.get("samples"),
        "lost": _counts(sampler, "lost"),
        "stack_ends": _stack_ends(sampler),
        "overhead": _table(sampler, "overhead"),
        "breaker": _table(sampler, "breaker"),
        "shed": _list(sampler, "shed"),
        "shed_since": _number(sampler, "shed_since") or None,
        "governor": [step for step in _list(sampler, "governor") if isinstance(step, Mapping)],
        "units": _table(sampler, "units") or {},
        "events": _counts(sampler, "events"),
        "on_demand": _table(sampler, "on_demand"),
        "dropped": _counts(sampler, "dropped"),
        "labels_folded": int(_number(sampler, "labels_folded")),
        "degraded": [str(words) for words in _list(sampler, "degraded")],
        "error": sampler.get("error") or None,
        "spool": {**usage._asdict(), "limit_bytes": limit_bytes, "trouble": disk_trouble or None},
        "shipper": {
            "running": _is_running(shipper, now_s, silent_s, is_alive),
            "pid": shipper.get("pid"),
            "state": shipper.get("state"),
            "last_delivery_at": delivered_at,
            "last_delivery_s_ago": (max(0.0, now_s - delivered_at) if delivered_at else None),
            "sent": _counts(shipper, "sent"),
            "dropped": _counts(shipper, "dropped"),
            "last_error": _table(shipper, "last_error"),
            "failing_since": shipper.get("failing_since"),
            "alerts": [one for one in _list(shipper, "alerts") if isinstance(one, Mapping)],
        },
    }


def render(status: Report) -> str:
    """The same for people: one aligned line a subject."""
    shipper, spool = status["shipper"], status["spool"]
    lines = [("agent", _agent(status))]
    if status["running"]:
        mode = _MODES.get(str(status["mode"]), status["mode"])
        collectors = ", ".join(map(str, status["collectors"]))
        lines += [
            ("mode", f"{mode}, preset {status['preset']}, collectors: {collectors}"),
            *_mode_reason(status),
            ("rate", f"{status['rate_hz']} Hz, a batch every {_number(status, 'interval_s'):g} s"),
            *([("rate", str(status["rate_words"]))] if status["rate_words"] else []),
            ("overhead", _overhead(status["overhead"])),
            ("samples", f"{status['samples']}, lost: {_listed(status['lost'])}"),
            *_whole(status["stack_ends"]),
            ("shed", _shed(status)),
            *_limits(status["units"]),
            *_profile(status),
        ]
    batches = "1 batch" if spool["batches"] == 1 else f"{spool['batches']} batches"
    waiting = f"{batches}, {_bytes(spool['bytes'])} of"
    oldest = f", the oldest {_duration(spool['oldest_s'])} old" if spool["batches"] else ""
    lines += [
        ("spool", f"{waiting} {_bytes(spool['limit_bytes'])}{oldest}"),
        ("shipper", _shipper(shipper)),
        ("delivery", _delivery(shipper)),
        ("dropped", _listed({**status["dropped"], **shipper["dropped"]})),
    ]
    if status["labels_folded"]:
        lines.append(("labels", f"{status['labels_folded']} values were too many: other"))
    lines += [("degraded", words) for words in status["degraded"] if status["running"]]
    if spool["trouble"]:
        kept = "one interval is kept in memory, and these reports may be old"
        lines.append(("error", f"{spool['trouble']}: {kept}"))
    if status["error"] and not status["breaker"]:
        lines.append(("error", str(status["error"])))
    if shipper["failing_since"] and shipper["last_error"]:
        lines.append(("error", str(shipper["last_error"].get("message"))))
    lines += [("ALERT", str(alert.get("message"))) for alert in shipper["alerts"]]
    return "\n".join(f"{name:<9} {_printable(text)}" for name, text in lines)


def _shed(status: Report) -> str:
    since_s = status["shed_since"]
    what = ", ".join(map(str, status["shed"]))
    ago = f", for {_duration(max(0.0, status['at'] - since_s))}" if since_s else ""
    return what + ago if what else "nothing"


def _limits(units: Report) -> list[tuple[str, str]]:
    """Limits of the units that were met since these were started."""
    lines = []
    for whose in units:
        counts = _table(units, whose) or {}
        met = [
            f"{words} {count:.0f} times"
            for name, words in _UNIT_LIMITS
            if (count := _number(counts, name)) > 0
        ]
        if met:
            lines.append(("limits", f"the {whose}'s unit: {', '.join(met)}"))
    return lines


def _mode_reason(status: Report) -> list[tuple[str, str]]:
    reason = status["mode_reason"]
    return [("", f"because {reason}")] if reason else []


def _profile(status: Report) -> list[tuple[str, str]]:
    """The profile on demand that is under way, if there is one."""
    profile = (status["on_demand"] or {}).get("profile")
    if not isinstance(profile, Mapping):
        return []
    what = "running" if profile.get("running") else "about to begin"
    seconds = _number(profile, "end") - _number(profile, "begin")
    words = f"{profile.get('id')}, {profile.get('rate_hz')} Hz for {seconds:g} s, {what}"
    return [("profile", words)]


def _agent(status: Report) -> str:
    breaker = status["breaker"]
    if breaker:
        return f"detached by its breaker: {breaker.get('words')}. {breaker.get('closes')}"
    if not status["running"]:
        return "not running"
    uptime = _duration(status["uptime_s"])
    return f"running for {uptime}, version {status['version']}, pid {status['sampler_pid']}"


def _overhead(overhead: Report | None) -> str:
    if not overhead:
        return "not measured yet (the first interval is not over)"
    host, core = _number(overhead, "cpu_percent"), _number(overhead, "user_percent_of_core")
    memory = _bytes(_number(overhead, "memory_bytes"))
    return f"{host:.2f} % of the host's CPU ({core:.2f} % of one core in user space), {memory}"


def _stack_ends(sampler: Report) -> dict[str, Any] | None:
    """How user stacks of the last interval ended, with the share of the complete ones."""
    counts = _counts(_table(sampler, "interval") or {}, "stack_ends")
    samples = {reason: count for reason, count in counts.items() if 0 < count < _ABSURD}
    total = sum(samples.values())
    if not total:
        return None
    return {"samples": samples, "complete_share": round(samples.get("complete", 0) / total, 6)}


def _whole(ends: Report | None) -> list[tuple[str, str]]:
    if not ends:
        return []
    total = sum(ends["samples"].values())
    broken = sorted(
        ((count, reason) for reason, count in ends["samples"].items() if reason != "complete"),
        reverse=True,
    )
    parts = [f"{reason.replace('_', ' ')} {100 * count / total:.2f} %" for count, reason in broken]
    words = f"{100 * ends['complete_share']:.2f} % whole in the last interval"
    return [("stacks", ", ".join([words, *parts]))]


def _shipper(shipper: Report) -> str:
    if not shipper["running"]:
        return "not running"
    return f"{shipper['state']}, pid {shipper['pid']}"


def _delivery(shipper: Report) -> str:
    ago = shipper["last_delivery_s_ago"]
    if ago is None:
        return "nothing yet"
    return f"{_duration(ago)} ago; sent: {_listed(shipper['sent'])}"


def _is_running(
    report: Report, now_s: float, silent_s: float, is_alive: Callable[[int], bool]
) -> bool:
    pid = report.get("pid")
    return (
        isinstance(pid, int)
        and report.get("state") != "stopped"
        and now_s - _number(report, "at") <= silent_s
        and is_alive(pid)
    )


def _number(report: Report, name: str) -> float:
    value = report.get(name)
    # Beyond that is nothing that was measured, and nothing that every computation survives.
    known = isinstance(value, int | float) and -_ABSURD < value < _ABSURD
    return float(value) if known else 0.0  # type: ignore[arg-type]  # `known` narrows it


def _list(report: Report, name: str) -> list[Any]:
    value = report.get(name)
    return value if isinstance(value, list) else []


def _table(report: Report, name: str) -> Report | None:
    value = report.get(name)
    return value if isinstance(value, Mapping) and value else None


def _counts(report: Report, name: str) -> dict[str, int]:
    value = report.get(name)
    if not isinstance(value, Mapping):
        return {}
    return {str(key): count for key, count in value.items() if isinstance(count, int) and count}


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _duration(seconds: float) -> str:
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
