"""The answer of `flamefleet-agent status` for people. Pure."""

from collections.abc import Mapping

from node_agent.report_fields import Report, number, table

_UNIT_LIMITS = (
    ("throttled", "CPUQuota"),
    ("memory_high", "MemoryHigh"),
    ("memory_max", "MemoryMax"),
    ("oom_kills", "killed for want of memory"),
)
_MODES = {"core": "CO-RE", "bcc": "bcc"}


def render(status: Report) -> str:
    """What `node_agent.status.summarize` answered: one aligned line a subject."""
    shipper, spool = status["shipper"], status["spool"]
    lines = [("agent", _agent(status))]
    if status["running"]:
        mode = _MODES.get(str(status["mode"]), status["mode"])
        collectors = ", ".join(map(str, status["collectors"]))
        lines += [
            ("mode", f"{mode}, preset {status['preset']}, collectors: {collectors}"),
            *_mode_reason(status),
            ("rate", f"{status['rate_hz']} Hz, a batch every {number(status, 'interval_s'):g} s"),
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
    if status["faults"]:
        lines.append(("left out", f"for errors that nobody foresaw: {_listed(status['faults'])}"))
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
        counts = table(units, whose) or {}
        met = [
            f"{words} {count:.0f} times"
            for name, words in _UNIT_LIMITS
            if (count := number(counts, name)) > 0
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
    seconds = number(profile, "end") - number(profile, "begin")
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
    host, core = number(overhead, "cpu_percent"), number(overhead, "user_percent_of_core")
    memory = _bytes(number(overhead, "memory_bytes"))
    return f"{host:.2f} % of the host's CPU ({core:.2f} % of one core in user space), {memory}"


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
    lines = [("stacks", ", ".join([words, *parts]))]
    if ends["samples"].get("no_room", 0) > total / 100:
        lines.append(("", "no room: raise unwind_limit_bytes in [agent] of the configuration"))
    return lines


def _shipper(shipper: Report) -> str:
    if not shipper["running"]:
        return "not running"
    return f"{shipper['state']}, pid {shipper['pid']}"


def _delivery(shipper: Report) -> str:
    ago = shipper["last_delivery_s_ago"]
    if ago is None:
        return "nothing yet"
    return f"{_duration(ago)} ago; sent: {_listed(shipper['sent'])}"


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
