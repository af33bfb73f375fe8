"""A profile as the API tells it. Pure."""

from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote, urlencode

from aggregator.on_demand.progress import Progress
from aggregator.on_demand.service import KnownNode


def describe(node: KnownNode, known: Progress, now: datetime) -> dict[str, Any]:
    """JSON of a profile. `flamegraph` is None until it has begun; its span is by the node's clock,
    and while the profile runs it reaches to the planned end."""
    return {
        "id": known.id,
        "node": node.name,
        "url": profile_url(node.name, known.id),
        "state": known.state,
        "reason": known.reason or _present(node, known),
        "operator": known.operator,
        "cancelled_by": known.cancelled_by,
        "collector": known.collector,
        "seconds": known.seconds,
        "asked_rate_hz": known.rate_hz,
        "effective_rate_hz": _rounded(known.effective_rate_hz),
        "created_at": _time(known.created_at),
        "expires_at": _time(known.expires_at),
        "begun_at": _time(known.begun_at),
        "ended_at": _time(known.ended_at),
        "seconds_left": _seconds_left(known, now),
        "samples": known.samples,
        "lost_samples": known.lost,
        "flamegraph": _flamegraph(node.name, known),
    }


def profile_url(node: str, number: int) -> str:
    return f"/api/v1/nodes/{quote(node, safe='')}/profiles/{number}"


def _present(node: KnownNode, known: Progress) -> str:
    """What is waited for, in words."""
    if known.state == "waiting" and known.sent_at is None:
        if node.last_seen_at is None:
            return "the node has never sent a batch; it is told with the answer to its first"
        return (
            "the node is told with the answer to its next batch; "
            f"it was last heard of at {_time(node.last_seen_at)}"
        )
    if known.state == "waiting" and known.cancelled_by is None:
        return "the node was told; it begins at its next whole ten seconds"
    if known.cancelled_by is not None:
        return f"cancelled by {known.cancelled_by}; the node ends it at its next whole ten seconds"
    return ""


def _seconds_left(known: Progress, now: datetime) -> float | None:
    if known.state != "running" or known.begun_at is None:
        return None
    end = known.begun_at + timedelta(seconds=known.seconds)
    return max(0.0, round((end - now).total_seconds(), 1))


def _flamegraph(node: str, known: Progress) -> dict[str, str] | None:
    if known.begun_at is None:
        return None
    end = known.ended_at or known.begun_at + timedelta(seconds=known.seconds)
    # A profile that was cut short at once still has a span.
    end = max(end, known.begun_at + timedelta(seconds=1))
    escaped = node.replace("\\", "\\\\").replace('"', '\\"')
    span = {"from": _rfc3339(known.begun_at), "until": _rfc3339(end)}
    span["query"] = f'{{host="{escaped}"}}'
    question = urlencode(span)
    return {**span, "url": f"/api/v1/flamegraph?{question}", "page": f"/?{question}"}


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else _rfc3339(moment)


def _rfc3339(moment: datetime) -> str:
    moment = moment.astimezone(timezone.utc)
    precision = "milliseconds" if moment.microsecond else "seconds"
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")


def _rounded(rate_hz: float | None) -> float | None:
    return None if rate_hz is None else round(rate_hz, 1)
