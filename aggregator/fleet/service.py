"""The fleet as tables: its nodes with what their agents cost, and the labels that there are."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator.profiles.selector import HOST

LATE_S = 60  # a node sends every 10 s
OFFLINE_S = 600
MAX_VALUES = 1_000  # of one label
_OVERHEAD_ROWS = 6  # one minute
_LATEST = ("event_latency_us", "interrupt_ns", "interrupt_spread_ns", "shipper_memory_bytes")

_NODES = text(
    """
SELECT n.name, n.created_at, n.last_seen_at, n.agent_version, n.facts, n.rate_millihertz,
    n.online_cpus, n.clock_offset_ms, n.lost_batches, n.lost_samples,
    o.cpu_percent, o.user_percent_of_core, o.memory_bytes, o.map_bytes, o.at,
    o.sampler, o.shipper, o.kernel, o.interrupt, o.latest, o.duration_s
FROM nodes n LEFT JOIN LATERAL (
    SELECT sum(r.cpu_percent * r.duration_s) / sum(r.duration_s) AS cpu_percent,
        sum(r.user_percent_of_core * r.duration_s) / sum(r.duration_s) AS user_percent_of_core,
        max(r.memory_bytes) AS memory_bytes, max(r.map_bytes) AS map_bytes, max(r.at) AS at,
        sum((r.detail->>'sampler_cpu_ns')::numeric) AS sampler,
        sum((r.detail->>'shipper_cpu_ns')::numeric) AS shipper,
        sum((r.detail->>'kernel_cpu_ns')::numeric) AS kernel,
        sum((r.detail->>'interrupt_cpu_ns')::numeric) AS interrupt,
        (array_agg(r.detail ORDER BY r.at DESC))[1] AS latest,
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

    `memory_bytes` and `map_bytes` are that minute's largest; `*_percent_of_core` are the four parts
    of the cost. The delay of a sample and the calibration are those of the newest report; None
    where an older agent does not tell them.
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
            "rate_hz": None if row.rate_millihertz is None else row.rate_millihertz / 1000,
            "online_cpus": row.online_cpus,
            "clock_offset_ms": row.clock_offset_ms,
            "lost_batches": row.lost_batches,
            "lost_samples": row.lost_samples,
            "overhead": None if row.at is None else _overhead(row),
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


def _overhead(row: Any) -> dict[str, Any]:
    def percent(cpu_ns: Any) -> float:
        return round(float(cpu_ns or 0) / 1e7 / float(row.duration_s), 4)

    return {
        "at": row.at,
        "cpu_percent": round(row.cpu_percent, 4),
        "user_percent_of_core": round(row.user_percent_of_core, 4),
        "memory_bytes": row.memory_bytes,
        "map_bytes": row.map_bytes,
        "sampler_percent_of_core": percent(row.sampler),
        "shipper_percent_of_core": percent(row.shipper),
        "kernel_percent_of_core": percent(row.kernel),
        "interrupt_percent_of_core": percent(row.interrupt),
        **{name: row.latest.get(name) for name in _LATEST},
    }
