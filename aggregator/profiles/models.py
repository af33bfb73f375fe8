"""Tables of profiles: the dictionary of stacks, blobs by node and time, late or new minutes."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Uuid,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from aggregator.db import Model


class Stack(Model):
    """A stack of frames. `frames` are u32 little-endian frame ids, root first; null until defined.

    Ids are dense and never reused. `defined_by` is the node whose definition was taken; while there
    is none, `refused_by` are nodes whose definition was refused.
    """

    __tablename__ = "stacks"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    hash: Mapped[UUID] = mapped_column(Uuid, unique=True)
    frames: Mapped[bytes | None] = mapped_column(LargeBinary)
    defined_by: Mapped[int | None] = mapped_column(Integer)
    refused_by: Mapped[list[int] | None] = mapped_column(ARRAY(Integer))
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=text("now()")
    )


class NodeProfile(Model):
    """One blob of samples (`aggregator.profiles.codec`) of one node and bucket of one tier.

    `part` is `runs.id << 32 | sequence` for a batch, 0 for the rollup of a whole minute.
    `stack_ends` says how its stacks ended (`aggregator.profiles.stack_ends`).
    """

    __tablename__ = "node_prof"
    __table_args__ = (
        PrimaryKeyConstraint("tier_s", "bucket", "node_id", "part"),
        Index("node_prof_node_idx", "node_id", "bucket"),
        {"postgresql_partition_by": "LIST (tier_s)"},
    )

    tier_s: Mapped[int] = mapped_column(Integer)
    bucket: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    node_id: Mapped[int] = mapped_column(Integer)
    part: Mapped[int] = mapped_column(BigInteger)
    samples: Mapped[int] = mapped_column(BigInteger)
    lost: Mapped[int] = mapped_column(BigInteger)
    covered_ms: Mapped[int] = mapped_column(BigInteger)
    weight_ns: Mapped[int] = mapped_column(BigInteger)
    data: Mapped[bytes] = mapped_column(LargeBinary)
    stack_ends: Mapped[bytes] = mapped_column(LargeBinary, server_default=text("''"))


class DirtyBucket(Model):
    """A bucket of a wider tier that has to be computed (again) from the narrower one."""

    __tablename__ = "dirty_bucket"

    tier_s: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    bucket: Mapped[datetime] = mapped_column(DateTime(timezone=True), primary_key=True)
    node_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
