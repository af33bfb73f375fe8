"""The body of a webhook: Alertmanager's version 4, so that its receivers understand it.

Format: Prometheus Alertmanager, configuration, `<webhook_config>`. Pure, and the same bytes each
time for one alert and event, because a message that is sent again must be the same message.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import sha256
from typing import Any

from aggregator.alerts.rules import (
    CLOCK_RULE,
    CLONE_RULE,
    LIMITED_RULE,
    OVERHEAD_RULE,
    PAUSED_RULE,
)

RECEIVER = "flamefleet"
_NOT_ENDED = "0001-01-01T00:00:00Z"
_ALERT_NAMES = {
    OVERHEAD_RULE: "FlamefleetAgentOverhead",
    CLONE_RULE: "FlamefleetClonedNode",
    CLOCK_RULE: "FlamefleetClockOffset",
    PAUSED_RULE: "FlamefleetAgentPaused",
    LIMITED_RULE: "FlamefleetAgentLimited",
}
_UNITS = {"cpu_percent": ("CPU", "% of the host", 1.0), "memory_bytes": ("memory", " MiB", 2.0**20)}


@dataclass(frozen=True)
class AlertFacts:
    """What a message says about an alert."""

    rule: str
    host: str
    event: str  # "firing" or "resolved"
    started_at: datetime
    ended_at: datetime | None
    quantity: str
    value: float  # when it started
    threshold: float
    is_silent: bool = False  # ended because the node was not heard of any more
    words: str = ""  # the agent's own, where it has any
    is_removed: bool = False  # ended because the node is no part of the fleet any more


def alert_message(facts: AlertFacts) -> bytes:
    """JSON of one alert as an Alertmanager sends it to a webhook."""
    name = _ALERT_NAMES.get(facts.rule, facts.rule)
    labels = {"alertname": name, "host": facts.host, "severity": "warning"}
    annotations = {"summary": _summary(facts)}
    ended = facts.event == "resolved" and facts.ended_at is not None
    alert = {
        "status": facts.event,
        "labels": labels,
        "annotations": annotations,
        "startsAt": _rfc3339(facts.started_at),
        "endsAt": _rfc3339(facts.ended_at) if ended and facts.ended_at else _NOT_ENDED,
        "generatorURL": "",
        "fingerprint": _fingerprint(labels),
    }
    body: dict[str, Any] = {
        "version": "4",
        "groupKey": f'{{}}:{{alertname="{name}", host={json.dumps(facts.host)}}}',
        "truncatedAlerts": 0,
        "status": facts.event,
        "receiver": RECEIVER,
        "groupLabels": {"alertname": name, "host": facts.host},
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "alerts": [alert],
    }
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _summary(facts: AlertFacts) -> str:
    is_end = facts.event == "resolved"
    if is_end and facts.is_removed:
        return f"{facts.host} was removed from the fleet"
    if facts.rule == CLONE_RULE:
        if is_end:
            return f"no clone of {facts.host} sends any more"
        return (
            f"{facts.value + 1:.0f} hosts send as {facts.host}: give each its own name and token, "
            "and restart their samplers; until then the figures of both are one host's"
        )
    if facts.rule == PAUSED_RULE:
        if is_end:
            return f"flamefleet-agent on {facts.host} has not paused any more"
        return (
            f"flamefleet-agent on {facts.host} pauses sampling to stay inside its budget: the "
            "lowest rate was too dear; its flamegraphs lack that time"
        )
    if facts.rule == LIMITED_RULE:
        if is_end:
            return f"flamefleet-agent on {facts.host} has met no limit of its unit any more"
        words = facts.words or facts.quantity
        return f"flamefleet-agent on {facts.host} met a limit of its unit: {words}"
    if facts.rule == CLOCK_RULE:
        if is_end and facts.is_silent:
            return f"{facts.host} has not reported for so long that its clock is unknown"
        if is_end:
            return f"the clock of {facts.host} is right again"
        side = "behind" if facts.value > 0 else "ahead of"
        return (
            f"the clock of {facts.host} is {abs(facts.value):.4g} s {side} the aggregator's "
            f"(limit {facts.threshold:.4g} s); check it with `timedatectl`"
        )
    what, unit, scale = _UNITS.get(facts.quantity, (facts.quantity, "", 1.0))
    reading = f"{facts.value / scale:.4g}{unit} of {what}"
    limit = f"{facts.threshold / scale:.4g}{unit}"
    if is_end:
        return f"flamefleet-agent on {facts.host} is within its budget again (limit {limit})"
    return f"flamefleet-agent on {facts.host} takes {reading}, over the limit of {limit}"


def _fingerprint(labels: dict[str, str]) -> str:
    return sha256(json.dumps(labels, sort_keys=True).encode()).hexdigest()[:16]


def _rfc3339(at: datetime) -> str:
    return at.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
