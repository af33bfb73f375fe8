"""What the agent on this host is doing, from what its two processes wrote down. Pure.

Both reports are files of other users, so nothing in them is taken for granted.
"""

from collections.abc import Callable, Mapping
from typing import Any

from node_agent.report_fields import ABSURD, Report, counts_of, entries, number, table
from node_agent.spool import Usage

SILENT_AFTER_S = 30.0  # at least; three intervals where these are longer


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
    silent_s = max(SILENT_AFTER_S, 3 * number(sampler, "interval_s"))
    running = _is_running(sampler, now_s, silent_s, is_alive)
    delivered_at = number(shipper, "last_delivery_at") or None
    return {
        "at": now_s,
        "running": running,
        "sampler_pid": sampler.get("pid") if running else None,
        "version": sampler.get("version"),
        "uptime_s": max(0.0, now_s - number(sampler, "started_at")) if running else None,
        "mode": sampler.get("mode"),
        "mode_reason": sampler.get("mode_reason") or None,
        "preset": sampler.get("preset"),
        "collectors": entries(sampler, "collectors"),
        "rate_hz": sampler.get("rate_hz"),
        "asked_rate_hz": sampler.get("asked_rate_hz"),
        "effective_rate_hz": sampler.get("effective_rate_hz"),
        "rate_words": sampler.get("rate_words") or None,
        "interval_s": sampler.get("interval_s"),
        "samples": sampler.get("samples"),
        "lost": counts_of(sampler, "lost"),
        "stack_ends": _stack_ends(sampler),
        "overhead": table(sampler, "overhead"),
        "breaker": table(sampler, "breaker"),
        "shed": entries(sampler, "shed"),
        "shed_since": number(sampler, "shed_since") or None,
        "governor": [step for step in entries(sampler, "governor") if isinstance(step, Mapping)],
        "units": table(sampler, "units") or {},
        "events": counts_of(sampler, "events"),
        "on_demand": table(sampler, "on_demand"),
        "dropped": counts_of(sampler, "dropped"),
        "unplaced": counts_of(sampler, "unplaced"),
        "faults": counts_of(sampler, "faults"),
        "labels_folded": int(number(sampler, "labels_folded")),
        "degraded": [str(words) for words in entries(sampler, "degraded")],
        "error": sampler.get("error") or None,
        "spool": {**usage._asdict(), "limit_bytes": limit_bytes, "trouble": disk_trouble or None},
        "shipper": {
            "running": _is_running(shipper, now_s, silent_s, is_alive),
            "pid": shipper.get("pid"),
            "state": shipper.get("state"),
            "last_delivery_at": delivered_at,
            "last_delivery_s_ago": (max(0.0, now_s - delivered_at) if delivered_at else None),
            "sent": counts_of(shipper, "sent"),
            "dropped": counts_of(shipper, "dropped"),
            "last_error": table(shipper, "last_error"),
            "failing_since": shipper.get("failing_since"),
            "alerts": [one for one in entries(shipper, "alerts") if isinstance(one, Mapping)],
        },
    }


def _stack_ends(sampler: Report) -> dict[str, Any] | None:
    """How user stacks of the last interval ended, with the share of the complete ones."""
    counts = counts_of(table(sampler, "interval") or {}, "stack_ends")
    samples = {reason: count for reason, count in counts.items() if 0 < count < ABSURD}
    total = sum(samples.values())
    if not total:
        return None
    return {"samples": samples, "complete_share": round(samples.get("complete", 0) / total, 6)}


def _is_running(
    report: Report, now_s: float, silent_s: float, is_alive: Callable[[int], bool]
) -> bool:
    pid = report.get("pid")
    return (
        isinstance(pid, int)
        and report.get("state") != "stopped"
        and now_s - number(report, "at") <= silent_s
        and is_alive(pid)
    )
