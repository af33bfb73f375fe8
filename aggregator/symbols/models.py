"""Tables of symbols: modules, who can give their symbols, the symbols, and the frames."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from aggregator.db import Model

SYMBOL_STATES = ("missing", "requested", "ready", "refused")


class Module(Model):
    """A file, kernel image or group of names (`wire.schema.Module`); symbols come once a fleet."""

    __tablename__ = "modules"
    __table_args__ = (
        UniqueConstraint("kind", "build_id"),
        CheckConstraint(
            "symbol_state IN ('missing', 'requested', 'ready', 'refused')", name="symbol_state"
        ),
        Index(
            "modules_pending_idx",
            "id",
            postgresql_where=text("symbol_state IN ('missing', 'requested')"),
        ),
    )

    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    kind: Mapped[int] = mapped_column(SmallInteger)  # wire.schema.ModuleKind
    build_id: Mapped[bytes] = mapped_column(LargeBinary)
    name: Mapped[str] = mapped_column(Text)
    hash64: Mapped[int] = mapped_column(BigInteger)  # wire.hashes.module_hash, as signed
    symbol_state: Mapped[str] = mapped_column(Text, server_default="missing")
    requested_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    requested_node_id: Mapped[int | None] = mapped_column(
        ForeignKey("nodes.id", ondelete="SET NULL")
    )
    asked_of: Mapped[list[int] | None] = mapped_column(ARRAY(Integer))  # nodes, the last first
    refused_reason: Mapped[str | None] = mapped_column(Text)
    # The node that gave the module its name; None for uploads.
    defined_by: Mapped[int | None] = mapped_column(ForeignKey("nodes.id", ondelete="SET NULL"))


class ModuleNode(Model):
    """A node that has reported a module, and so can give its symbol extract."""

    __tablename__ = "module_nodes"

    module_id: Mapped[int] = mapped_column(
        ForeignKey("modules.id", ondelete="CASCADE"), primary_key=True
    )
    node_id: Mapped[int] = mapped_column(
        ForeignKey("nodes.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    seen_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=text("now()"))


class SymbolFile(Model):
    """The symbols of one module: as a node sent them, or ready for look-up.

    From a node (`source_node_id`) or from an upload (`uploaded_by`), which no node replaces.
    """

    __tablename__ = "symbol_files"
    __table_args__ = (CheckConstraint("format IN ('extract', 'symcache', 'table')", name="format"),)

    module_id: Mapped[int] = mapped_column(
        ForeignKey("modules.id", ondelete="CASCADE"), primary_key=True
    )
    format: Mapped[str] = mapped_column(Text)
    data: Mapped[bytes] = mapped_column(LargeBinary)
    source_node_id: Mapped[int | None] = mapped_column(ForeignKey("nodes.id", ondelete="SET NULL"))
    uploaded_by: Mapped[str | None] = mapped_column(Text)  # the operator's name
    file_name: Mapped[str | None] = mapped_column(Text)
    has_lines: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=text("now()")
    )
    # When names of an upload last took the place of others: who keeps names reads them again.
    named_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Frame(Model):
    """A place in a module. `offset` is the unsigned offset as signed; for names their hash.

    `callers` are the functions that `function` was inlined into there, the outermost first, each
    [function, file, line]; NULL for none.
    """

    __tablename__ = "frames"
    __table_args__ = (
        UniqueConstraint("module_id", "offset"),
        Index("frames_unresolved_idx", "module_id", postgresql_where=text("NOT resolved")),
    )

    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    module_id: Mapped[int] = mapped_column(ForeignKey("modules.id"))
    offset: Mapped[int] = mapped_column(BigInteger)
    function: Mapped[str | None] = mapped_column(Text)
    file: Mapped[str | None] = mapped_column(Text)
    line: Mapped[int | None] = mapped_column(BigInteger)
    callers: Mapped[list[list[Any]] | None] = mapped_column(JSONB)
    resolved: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
