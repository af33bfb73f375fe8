"""The table of profiles that were asked for."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Text,
    Uuid,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from aggregator.db import Model

_STATES = "'waiting', 'running', 'done', 'refused', 'expired', 'shortened'"


class ProfileRequest(Model):
    """One profile (`aggregator.on_demand.progress.Progress`). Ids are never reused: nodes know
    profiles by them. Times but `created_at`, `expires_at` and `sent_at` are by the node's clock."""

    __tablename__ = "profile_requests"
    __table_args__ = (
        CheckConstraint(f"state IN ({_STATES})", name="state"),
        Index("profile_requests_node_idx", "node_id", "id"),
        Index("profile_requests_operator_idx", "operator", "created_at"),
        Index(
            "profile_requests_active_idx",
            "node_id",
            postgresql_where=text("state IN ('waiting', 'running')"),
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id", ondelete="CASCADE"))
    operator: Mapped[str] = mapped_column(Text)
    collector: Mapped[str] = mapped_column(Text)
    rate_hz: Mapped[int] = mapped_column(Integer)
    seconds: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(Text, server_default="waiting")
    reason: Mapped[str] = mapped_column(Text, server_default="")
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    sent_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    cancelled_by: Mapped[str | None] = mapped_column(Text)
    run: Mapped[UUID | None] = mapped_column(Uuid)  # the sampler's that began it
    begun_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    covered_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    samples: Mapped[int] = mapped_column(BigInteger, server_default="0")
    lost: Mapped[int] = mapped_column(BigInteger, server_default="0")
    weight_ns: Mapped[int] = mapped_column(BigInteger, server_default="0")
