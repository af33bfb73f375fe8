"""The fleet as tables: its nodes with what their agents cost, and the labels that there are."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator.profiles.errors import QueryError
from aggregator.profiles.selector import HOST
from aggregator.profiles.times import format_time, parse_time

LATE_S = 60  # a node sends every 10 s
OFFLINE_S = 600
MAX_VALUES = 1_000  # of one label
_MAX_NUMBER = 1e9  # of a fact
_OVERHEAD_ROWS = 6  # one minute
_LATEST = ("event_latency_us", "interrupt_ns", "interrupt_spread_ns")

_NODES = text(
    """
SELECT n.name, n.created_at, n.last_seen_at, n.agent_version, n.facts, n.rate_millihertz,
    n.online_cpus, n.clock_offset_ms, n.lost_batches, n.lost_samples,
    o.cpu_percent, o.user_percent_of_core, o.memory_bytes, o.map_bytes, o.shipper_memory_bytes,
    o.at, o.losses, o.sampler, o.shipper, o.kernel, o.interrupt, o.python, o.latest, o.duration_s,
    (SELECT jsonb_object_agg(reason, jsonb_build_object('count', count, 'last_at', last_at))
        FROM node_refusals WHERE node_id = n.id) AS refused,
    (SELECT jsonb_agg(jsonb_build_object('rule', a.rule, 'value', a.value, 'threshold', a.threshold,
            'started_at', a.started_at) ORDER BY a.started_at)
        FROM alerts a WHERE a.node_id = n.id AND a.state = 'firing') AS alerts
FROM nodes n LEFT JOIN LATERAL (
    SELECT sum(r.cpu_percent * r.duration_s) / sum(r.duration_s) AS cpu_percent,
        sum(r.user_percent_of_core * r.duration_s) / sum(r.duration_s) AS user_percent_of_core,
        max(r.memory_bytes) AS memory_bytes, max(r.at) AS at,
        (array_agg(r.map_bytes ORDER BY r.memory_bytes DESC, r.at DESC))[1] AS map_bytes,
        (array_agg(r.detail->'shipper_memory_bytes' ORDER BY r.memory_bytes DESC, r.at DESC))[1]
            AS shipper_memory_bytes,
        sum((r.detail->>'sampler_cpu_ns')::numeric) AS sampler,
        sum((r.detail->>'shipper_cpu_ns')::numeric) AS shipper,
        sum((r.detail->>'kernel_cpu_ns')::numeric) AS kernel,
        sum((r.detail->>'interrupt_cpu_ns')::numeric) AS interrupt,
        sum((r.detail->>'python_sampler_cpu_ns')::numeric
            + (r.detail->>'python_kernel_cpu_ns')::numeric) AS python,
        (array_agg(r.detail ORDER BY r.at DESC))[1] AS latest,
        array_agg(r.detail->'lost') AS losses,
        sum(r.duration_s) AS duration_s
    FROM (SELECT * FROM node_overhead WHERE node_id = n.id AND at > :since AND duration_s > 0
          ORDER BY at DESC LIMIT :rows) AS r
) AS o ON true
ORDER BY n.name
"""
)
_LABELS = text(
    """
SELECT name, value, series FROM (
    SELECT name, value, count(*) AS series,
        row_number() OVER (PARTITION BY name ORDER BY count(*) DESC, value) AS place
    FROM series, jsonb_each_text(
        labels || jsonb_build_object('service', service, 'version', version)) AS l (name, value)
    WHERE value <> '' GROUP BY name, value
) AS counted WHERE place <= :most ORDER BY name, value
"""
)
_HOSTS = text("SELECT name FROM nodes WHERE last_seen_at IS NOT NULL ORDER BY name LIMIT :most")


def node_state(last_seen_at: datetime | None, now: datetime) -> str:
    """new (never seen), reporting, late (over LATE_S: it spools) or offline (over OFFLINE_S)."""
    if last_seen_at is None:
        return "new"
    silent_s = (now - last_seen_at).total_seconds()
    if silent_s > OFFLINE_S:
        return "offline"
    return "late" if silent_s > LATE_S else "reporting"


async def list_nodes(connection: AsyncConnection, now: datetime) -> list[dict[str, Any]]:
    """Every node; `overhead` is the mean over its last minute of reports within a day, or None.

    Of `cpu_percent` (of the host) `user_percent`, `kernel_percent` and `interrupt_percent` are the
    parts; `*_percent_of_core` are those of one core. `memory_bytes` is that minute's largest, with
    the parts of that report. The delay of a sample and the calibration are those of the newest
    report. `lost` are the minute's samples by reason, `lost_samples` all ever. `refused` is what of
    the node was not taken: by reason how often, and when last. `alerts` are those that fire.
    `breaker` says why an agent stays detached: it measures nothing, so its overhead is not known.
    What an older agent does not tell is None.
    """
    parameters = {"since": now - timedelta(days=1), "rows": _OVERHEAD_ROWS}
    rows = await connection.execute(_NODES, parameters)
    return [
        {
            "name": row.name,
            "state": node_state(row.last_seen_at, now),
            "created_at": row.created_at,
            "last_seen": row.last_seen_at,
            "agent_version": row.agent_version,
            "facts": row.facts,
            "rate_hz": _rate_hz(row),
            **told_facts(row.facts, _rate_hz(row)),
            "online_cpus": row.online_cpus,
            "clock_offset_ms": row.clock_offset_ms,
            "lost_batches": row.lost_batches,
            "lost_samples": row.lost_samples,
            "lost": _sum_lost(row.losses or ()),
            "refused": row.refused or {},
            "alerts": row.alerts or [],
            "breaker": row.facts.get("breaker"),
            "overhead": None if row.at is None or "breaker" in row.facts else _overhead(row),
        }
        for row in rows
    ]


async def list_labels(connection: AsyncConnection) -> list[dict[str, Any]]:
    """Every label with its values (at most MAX_VALUES, those of most series), by name.

    `host` comes first: the nodes that were ever seen.
    """
    hosts = await connection.scalars(_HOSTS, {"most": MAX_VALUES})
    labels: dict[str, list[dict[str, Any]]] = {HOST: [{"value": name} for name in hosts]}
    for name, value, series in await connection.execute(_LABELS, {"most": MAX_VALUES}):
        if name != HOST:
            labels.setdefault(name, []).append({"value": value, "series": series})
    return [{"name": name, "values": values} for name, values in labels.items()]


def _rate_hz(row: Any) -> float | None:
    return None if row.rate_millihertz is None else row.rate_millihertz / 1000


def told_facts(facts: Mapping[str, str], rate_hz: float | None) -> dict[str, Any]:
    """What a node's facts (`wire.schema.Batch.facts`) say of its rates, its budget and what it
    gave up to stay inside. They are a node's words: what cannot be read is None.

    `rate_hz` is what it samples at. Beyond the configured rate that is a profile on demand, which
    asked for no less.
    """
    asked_hz = _number(facts, "asked_hz")
    if asked_hz is not None and rate_hz is not None:
        asked_hz = max(asked_hz, rate_hz)
    shed = [part for part in facts.get("shed", "").split(", ") if part]
    return {
        "asked_rate_hz": asked_hz,
        "effective_rate_hz": _number(facts, "effective_hz"),
        "budget": {
            "cpu_percent": _number(facts, "budget_percent"),
            "user_percent_of_core": _number(facts, "budget_user_percent"),
        },
        "shed": shed,
        "shed_since": _time(facts, "shed_since") if shed else None,
    }


def _number(facts: Mapping[str, str], name: str) -> float | None:
    try:
        value = float(facts[name])
    except (KeyError, ValueError):
        return None
    return value if 0 <= value < _MAX_NUMBER else None


def _time(facts: Mapping[str, str], name: str) -> str | None:
    try:
        return format_time(parse_time(name, facts[name], 0))
    except (KeyError, QueryError):
        return None


def _sum_lost(losses: Iterable[Mapping[str, int] | None]) -> dict[str, int]:
    """Samples by reason, most first."""
    sums: Counter[str] = Counter()
    for lost in losses:
        sums.update(lost or {})
    return dict(sums.most_common())


def _overhead(row: Any) -> dict[str, Any]:
    def of_core(cpu_ns: Any) -> float | None:
        return of_host(cpu_ns, 1)

    def of_host(cpu_ns: Any, cpus: int | None = row.online_cpus) -> float | None:
        if cpu_ns is None or not cpus:
            return None
        return round(float(cpu_ns) / 1e7 / float(row.duration_s) / cpus, 4)

    user = None if row.sampler is None else row.sampler + (row.shipper or 0)
    rest = row.memory_bytes - row.map_bytes - (row.shipper_memory_bytes or 0)
    return {
        "at": row.at,
        "cpu_percent": round(row.cpu_percent, 4),
        "user_percent": of_host(user),
        "kernel_percent": of_host(row.kernel),
        "interrupt_percent": of_host(row.interrupt),
        "python_percent": of_host(row.python),
        "user_percent_of_core": round(row.user_percent_of_core, 4),
        "sampler_percent_of_core": of_core(row.sampler),
        "shipper_percent_of_core": of_core(row.shipper),
        "kernel_percent_of_core": of_core(row.kernel),
        "interrupt_percent_of_core": of_core(row.interrupt),
        "memory_bytes": row.memory_bytes,
        "map_bytes": row.map_bytes,
        "shipper_memory_bytes": row.shipper_memory_bytes,
        "sampler_memory_bytes": None if row.shipper_memory_bytes is None else max(rest, 0),
        **{name: row.latest.get(name) for name in _LATEST},
    }
