"""Tables of the fleet: one row a node, what its agent cost over time, and what it did about it."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    REAL,
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from aggregator.db import Model


class Node(Model):
    """One host that may send batches. Its name is the `host` label of everything it sends."""

    __tablename__ = "nodes"

    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=text("now()")
    )
    last_seen_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    agent_version: Mapped[str] = mapped_column(Text, server_default="")
    facts: Mapped[dict[str, str]] = mapped_column(JSONB, server_default=text("'{}'"))
    rate_millihertz: Mapped[int | None] = mapped_column(Integer)
    online_cpus: Mapped[int | None] = mapped_column(Integer)
    clock_offset_ms: Mapped[int | None] = mapped_column(BigInteger)  # centre's clock minus node's
    clock_read_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    clone_refused_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))  # last 409
    lost_batches: Mapped[int] = mapped_column(BigInteger, server_default="0")
    lost_samples: Mapped[int] = mapped_column(BigInteger, server_default="0")
    removed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    removed_by: Mapped[str | None] = mapped_column(Text)  # an operator, or SILENCE


class NodeRefusal(Model):
    """How often something of a node was refused for one reason (`aggregator.ingest.refusals`)."""

    __tablename__ = "node_refusals"

    node_id: Mapped[int] = mapped_column(
        ForeignKey("nodes.id", ondelete="CASCADE"), primary_key=True
    )
    reason: Mapped[str] = mapped_column(Text, primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=text("now()"))


class NodeOverhead(Model):
    """What the agent cost over one batch (definitions: `wire.schema.Overhead`)."""

    __tablename__ = "node_overhead"
    __table_args__ = (
        PrimaryKeyConstraint("node_id", "at"),
        Index("node_overhead_at_idx", "at"),
        {"postgresql_partition_by": "RANGE (at)"},
    )

    node_id: Mapped[int] = mapped_column(Integer)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))  # start of the batch
    cpu_percent: Mapped[float] = mapped_column(REAL)  # share of the host
    user_percent_of_core: Mapped[float] = mapped_column(REAL)
    memory_bytes: Mapped[int] = mapped_column(BigInteger)
    map_bytes: Mapped[int] = mapped_column(BigInteger)
    duration_s: Mapped[float] = mapped_column(Double)
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB)  # nanoseconds by part, `lost`


class AgentEvent(Model):
    """Something that an agent did or met (`wire.schema.Event`), at the node's time."""

    __tablename__ = "agent_events"
    __table_args__ = (
        Index("agent_events_node_idx", "node_id", "at", "id"),
        Index("agent_events_at_idx", "at"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id", ondelete="CASCADE"))
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    kind: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    words: Mapped[str] = mapped_column(Text)
    value: Mapped[float] = mapped_column(Double)
    limit: Mapped[float] = mapped_column(Double)
    before: Mapped[str] = mapped_column(Text)
    after: Mapped[str] = mapped_column(Text)
