"""Tables of alerts: what fires or fired, and the webhooks that are to say so."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from aggregator.db import Model


class Alert(Model):
    """One period in which a rule held for a node. Of a rule and node at most one fires."""

    __tablename__ = "alerts"
    __table_args__ = (
        CheckConstraint("state IN ('firing', 'resolved')", name="state"),
        Index(
            "alerts_firing_key",
            "rule",
            "node_id",
            unique=True,
            postgresql_where=text("state = 'firing'"),
        ),
        Index("alerts_node_idx", "node_id", "started_at"),
    )

    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    rule: Mapped[str] = mapped_column(Text)
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id", ondelete="CASCADE"))
    state: Mapped[str] = mapped_column(Text, server_default="firing")
    started_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=text("now()")
    )
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    value: Mapped[float] = mapped_column(Double)
    threshold: Mapped[float] = mapped_column(Double)
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))


class Delivery(Model):
    """One webhook message; `webhook_id` stays the same when it is sent again."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("alert_id", "event", "url"),
        CheckConstraint("event IN ('firing', 'resolved')", name="event"),
        Index(
            "deliveries_pending_idx",
            "next_attempt_at",
            postgresql_where=text("delivered_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    alert_id: Mapped[int] = mapped_column(ForeignKey("alerts.id", ondelete="CASCADE"))
    event: Mapped[str] = mapped_column(Text)
    webhook_id: Mapped[str] = mapped_column(Text, unique=True)
    url: Mapped[str] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(Integer, server_default="0")
    next_attempt_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), server_default=text("now()")
    )
    # A worker sends it now, or has died: until then no other sends to this URL.
    claimed_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    # No answer came: nothing is sent to this URL before.
    unreachable_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    delivered_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    last_error: Mapped[str | None] = mapped_column(Text)
