"""Tables of ingest: one row a sampler run (exactly-once), one a set of labels."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from aggregator.db import Model


class Run(Model):
    """One start of a sampler. Batches up to `high_water` are stored; `digest` is the last one's.

    `digests` are short ones of the last batches (`aggregator.ingest.digests`).
    """

    __tablename__ = "runs"
    __table_args__ = (UniqueConstraint("node_id", "run"),)

    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id", ondelete="CASCADE"))
    run: Mapped[UUID] = mapped_column(Uuid)
    high_water: Mapped[int] = mapped_column(BigInteger, server_default="0")
    digest: Mapped[bytes] = mapped_column(LargeBinary, server_default=text("''"))
    digests: Mapped[bytes] = mapped_column(LargeBinary, server_default=text("''"))
    lost_batches: Mapped[int] = mapped_column(BigInteger, server_default="0")
    started_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=text("now()")
    )
    last_batch_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Series(Model):
    """A set of labels. `key_hash` is BLAKE2b-128 of its canonical JSON."""

    __tablename__ = "series"
    __table_args__ = (Index("series_service_idx", "service", "version"),)

    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    service: Mapped[str] = mapped_column(Text)
    version: Mapped[str] = mapped_column(Text)
    labels: Mapped[dict[str, str]] = mapped_column(JSONB)
    key_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
