"""Tables of access: tokens of nodes and of operators, kept as hashes only."""

from datetime import datetime

from sqlalchemy import DateTime, ForeignKey, Identity, Integer, LargeBinary, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from aggregator.db import Model


class NodeToken(Model):
    """A token by which a node is known. Several may be valid at once, to change one in peace."""

    __tablename__ = "node_tokens"

    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id", ondelete="CASCADE"), index=True)
    token_sha256: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=text("now()")
    )
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class OperatorToken(Model):
    """A token of a person or a build system (`aggregator.access.operators`). It is no node's."""

    __tablename__ = "operator_tokens"

    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    token_sha256: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=text("now()")
    )
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
