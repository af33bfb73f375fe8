"""What the centre has of each module's symbols, and from whom."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from aggregator.db import database_errors
from aggregator.fleet.models import Node
from aggregator.symbols.models import Frame, Module, SymbolFile
from wire.schema import ModuleKind


@dataclass(frozen=True)
class ModuleSymbols:
    """One module: its symbols' state and source, and how its frames fare."""

    build_id: str
    module: str
    kind: str
    state: str  # missing, requested, ready or refused
    source: str  # "upload by NAME", "node NAME" or empty
    file: str | None
    has_lines: bool
    bytes: int
    since: datetime | None
    refused_reason: str | None
    first_seen_on: str | None  # the node that told the module's name
    frames: int
    unnamed_frames: int  # known to have no symbol: they read module+0xoffset


def list_symbols(session: Session) -> list[ModuleSymbols]:
    """Every module that has symbols of its own or could have, by name."""
    source, definer = aliased(Node), aliased(Node)
    frames = (
        select(
            Frame.module_id,
            func.count().label("all"),
            func.count().filter(Frame.resolved, Frame.function.is_(None)).label("unnamed"),
        )
        .group_by(Frame.module_id)
        .subquery()
    )
    statement = (
        select(
            Module.build_id,
            Module.name,
            Module.kind,
            Module.symbol_state,
            Module.refused_reason,
            SymbolFile.uploaded_by,
            SymbolFile.file_name,
            SymbolFile.has_lines,
            func.length(SymbolFile.data).label("size"),
            SymbolFile.created_at,
            source.name.label("source"),
            definer.name.label("definer"),
            frames.c.all,
            frames.c.unnamed,
        )
        .outerjoin(SymbolFile, SymbolFile.module_id == Module.id)
        .outerjoin(source, source.id == SymbolFile.source_node_id)
        .outerjoin(definer, definer.id == Module.defined_by)
        .outerjoin(frames, frames.c.module_id == Module.id)
        .where(Module.kind != ModuleKind.NAMED)
        .order_by(Module.name, Module.build_id)
    )
    with database_errors():
        rows = session.execute(statement).all()
    return [
        ModuleSymbols(
            build_id=row.build_id.hex(),
            module=row.name,
            kind=ModuleKind(row.kind).name.lower(),
            state=row.symbol_state,
            source=_source(row.uploaded_by, row.source),
            file=row.file_name,
            has_lines=bool(row.has_lines),
            bytes=row.size or 0,
            since=row.created_at,
            refused_reason=row.refused_reason,
            first_seen_on=row.definer,
            frames=row.all or 0,
            unnamed_frames=row.unnamed or 0,
        )
        for row in rows
    ]


def _source(uploaded_by: str | None, node: str | None) -> str:
    if uploaded_by is not None:
        return f"upload by {uploaded_by}"
    return f"node {node}" if node is not None else ""
