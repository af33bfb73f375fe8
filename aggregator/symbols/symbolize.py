"""Name the frames of modules whose symbols are there. Runs in the worker, synchronously.

What is to be done is read from Postgres every time: extracts that nobody has read yet, and frames
that came after their module's symbols. Frames that no symbol covers are marked resolved without a
function, so that they are looked up once only; they read `module+0xoffset`. An upload makes the
frames of its module unresolved again, whoever named them before.
"""

import json
from dataclasses import dataclass

from sqlalchemy import Engine, delete, func, or_, select, text, update
from sqlalchemy.orm import Session

from aggregator.db import session_scope
from aggregator.symbols.errors import RefusedExtractError
from aggregator.symbols.models import Frame, Module, SymbolFile
from aggregator.symbols.sandbox import Place, Request, Response, parse
from wire.schema import ModuleKind

FRAMES_AT_ONCE = 50_000
_LOCK_CLASS = 0x73796D  # advisory locks: (this, module id)

_NAME_FRAMES = text(
    "UPDATE frames SET function = named.function, file = named.file, line = named.line,"
    " callers = CAST(named.callers AS jsonb), resolved = true"
    " FROM unnest(CAST(:ids AS integer[]), CAST(:functions AS text[]), CAST(:files AS text[]),"
    " CAST(:lines AS bigint[]), CAST(:callers AS text[]))"
    " AS named (id, function, file, line, callers)"
    " WHERE frames.id = named.id"
)


@dataclass(frozen=True)
class Outcome:
    """What one pass over a module did."""

    named: int = 0  # frames that have a function now
    unnamed: int = 0  # frames that no symbol covers
    refused: str = ""  # why the extract was refused
    more: bool = False  # frames are left


def pending_modules(session: Session) -> list[int]:
    """Ids of the modules with something to do, unread extracts first."""
    unresolved = (
        select(Frame.id).where(Frame.module_id == SymbolFile.module_id, ~Frame.resolved).exists()
    )
    unread = SymbolFile.format == "extract"
    statement = select(SymbolFile.module_id).where(or_(unread, unresolved))
    return list(session.scalars(statement.order_by(~unread, SymbolFile.module_id)))


def symbolize_module(engine: Engine, module_id: int) -> Outcome | None:
    """Read the module's extract if that is due, and name up to FRAMES_AT_ONCE of its frames.

    None when there is nothing to do, or another worker is at it.
    """
    with session_scope(engine) as session:
        lock = select(func.pg_try_advisory_xact_lock(_LOCK_CLASS, module_id))
        if not session.scalar(lock):
            return None
        found = session.execute(
            select(
                Module.kind,
                Module.build_id,
                SymbolFile.format,
                SymbolFile.data,
                SymbolFile.created_at,
                SymbolFile.uploaded_by,
            )
            .join(SymbolFile, SymbolFile.module_id == Module.id)
            .where(Module.id == module_id)
        ).one_or_none()
        frames = _unresolved(session, module_id) if found else {}
        if found is None or (found.format != "extract" and not frames):
            return None
        request = Request(
            module_kind=found.kind,
            build_id=found.build_id,
            data=found.data,
            ready=found.format != "extract",
            offsets=list(frames.values()),
        )
        refused = ""
        response = Response()
        try:
            response = parse(request)
        except RefusedExtractError as error:
            refused = error.message
        # While the child read, an upload may have come: its names count, not these.
        still = select(SymbolFile.created_at).where(SymbolFile.module_id == module_id)
        if session.scalar(still.with_for_update()) != found.created_at:
            return Outcome(more=True)
        if refused:
            _refuse(session, module_id, refused)
            return Outcome(refused=refused)
        if not request.ready:
            _keep(session, module_id, found.kind, response)
        if found.uploaded_by is not None and frames:
            _tell(session, module_id)
        return _name(session, list(frames), response.places)


def _unresolved(session: Session, module_id: int) -> dict[int, int]:
    """Frame id to offset, unsigned."""
    rows = session.execute(
        select(Frame.id, Frame.offset)
        .where(Frame.module_id == module_id, ~Frame.resolved)
        .order_by(Frame.id)
        .limit(FRAMES_AT_ONCE)
    )
    return {row.id: row.offset % (1 << 64) for row in rows}


def _keep(session: Session, module_id: int, kind: int, response: Response) -> None:
    form = "symcache" if kind == ModuleKind.NATIVE else "table"
    session.execute(
        update(SymbolFile)
        .where(SymbolFile.module_id == module_id)
        .values(format=form, data=response.data)
    )
    session.execute(
        update(Module)
        .where(Module.id == module_id)
        .values(symbol_state="ready", refused_reason=None)
    )


def _refuse(session: Session, module_id: int, reason: str) -> None:
    session.execute(delete(SymbolFile).where(SymbolFile.module_id == module_id))
    session.execute(
        update(Module)
        .where(Module.id == module_id)
        .values(symbol_state="refused", refused_reason=reason, requested_at=func.now())
    )


def _tell(session: Session, module_id: int) -> None:
    """Whoever keeps names of the module should read them again."""
    session.execute(
        update(SymbolFile)
        .where(SymbolFile.module_id == module_id)
        .values(named_at=func.clock_timestamp())
    )


def _name(session: Session, ids: list[int], places: list[Place]) -> Outcome:
    if not ids:
        return Outcome()
    values = {
        "ids": ids,
        "functions": [place[0].function if place else None for place in places],
        "files": [(place[0].file or None) if place else None for place in places],
        "lines": [(place[0].line or None) if place else None for place in places],
        "callers": [json.dumps(place[:0:-1]) if len(place) > 1 else None for place in places],
    }
    session.execute(_NAME_FRAMES, values)
    named = sum(bool(place) for place in places)
    return Outcome(named, len(ids) - named, more=len(ids) == FRAMES_AT_ONCE)
