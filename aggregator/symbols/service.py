"""Which symbols are wanted of a node, and taking in the extract that it sends.

A module's symbols come once a fleet: one node is asked, another only when the first kept silent or
could not. Everything here runs in the caller's transaction.
"""

from typing import Any

from sqlalchemy import and_, exists, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import INTERVAL, insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.sql import ColumnElement

from aggregator.symbols.errors import UnexpectedExtractError
from aggregator.symbols.models import Module, ModuleNode, SymbolFile
from aggregator.symbols.names import clean
from wire.schema import ExtractView, ModuleKind, SymbolDirective

ASK_AGAIN = "5 minutes"  # a node that was asked and kept silent
ASK_ANOTHER = "1 hour"  # after a node could not, or what it sent was unusable
# In one answer. A node makes about two extracts a second, and batches come every 10 s; with a tenth
# of it a first host of a hundred modules would be without names for minutes.
MOST_DIRECTIVES = 16
_EXTRACTED_KINDS = (ModuleKind.NATIVE, ModuleKind.KERNEL, ModuleKind.KERNEL_MODULE)


async def wanted_directives(
    session: AsyncConnection | AsyncSession,
    node_id: int,
    started_at: ColumnElement[Any],
    limit: int = MOST_DIRECTIVES,
) -> list[SymbolDirective]:
    """Symbols to ask of this node now, at most `limit`; they count as asked for from here on.

    `started_at` is when its sampler did, as the database knows it: what that was asked for before
    it has forgotten. Only modules that this node has reported, kernels first. Never waits for
    another transaction.
    """
    wanted = or_(
        Module.symbol_state == "missing",
        and_(
            Module.symbol_state == "requested",
            or_(
                Module.requested_at < _ago(ASK_AGAIN),
                and_(Module.requested_node_id == node_id, Module.requested_at < started_at),
            ),
        ),
        and_(
            Module.symbol_state == "refused",
            Module.requested_at < _ago(ASK_ANOTHER),
            Module.requested_node_id.is_distinct_from(node_id),
        ),
    )
    chosen = (
        select(Module.id)
        .join(ModuleNode, ModuleNode.module_id == Module.id)
        .where(
            ModuleNode.node_id == node_id,
            Module.kind.in_(_EXTRACTED_KINDS),
            wanted,
            ~exists().where(SymbolFile.module_id == Module.id),
        )
        .order_by(Module.kind != ModuleKind.KERNEL, Module.id)
        .limit(limit)
        .with_for_update(of=Module, skip_locked=True)
        .cte("chosen")  # evaluated once; a subquery may be run again and again, LIMIT and all
    )
    asked = (
        update(Module)
        .where(Module.id == chosen.c.id)
        .values(symbol_state="requested", requested_at=func.now(), requested_node_id=node_id)
        .returning(Module.kind, Module.build_id)
    )
    rows = (await session.execute(asked)).all()
    rows = sorted(rows, key=lambda row: (row.kind != ModuleKind.KERNEL, row.build_id))
    return [SymbolDirective(module_kind=row.kind, build_id=row.build_id) for row in rows]


async def store_extract(
    session: AsyncConnection | AsyncSession, node_id: int, extract: ExtractView, encoded: bytes
) -> bool:
    """Keep an extract (`encoded` is the message it came in) until the worker reads it.

    False when it is not needed any more, because symbols of that module are already there: a node
    never replaces them. Raises UnexpectedExtractError for a module that this node hasn't reported.
    """
    module = await _reported_module(session, node_id, extract)
    if module.symbol_state == "ready" or module.has_file:
        return False
    if extract.refused or not extract.data:
        reason = clean(extract.refused or "the node sent an empty extract")
        await session.execute(_refuse(module.id, node_id, reason))
        return True
    await session.execute(
        insert(SymbolFile).values(
            module_id=module.id, format="extract", data=encoded, source_node_id=node_id
        )
    )
    await session.execute(
        update(Module)
        .where(Module.id == module.id)
        .values(
            symbol_state="requested",
            requested_at=func.now(),
            requested_node_id=node_id,
            refused_reason=None,
        )
    )
    return True


async def _reported_module(
    session: AsyncConnection | AsyncSession, node_id: int, extract: ExtractView
) -> Any:
    """The module, locked, with `has_file`; only if this node has reported it."""
    unexpected = UnexpectedExtractError(
        f"this node has reported no module of kind {extract.module_kind} and build id "
        f"{extract.build_id[:64].hex()}, so its symbols were not asked for"
    )
    if extract.module_kind not in _EXTRACTED_KINDS:
        raise unexpected
    found = await session.execute(
        select(
            Module.id,
            Module.symbol_state,
            exists().where(SymbolFile.module_id == Module.id).label("has_file"),
        )
        .join(ModuleNode, ModuleNode.module_id == Module.id)
        .where(
            ModuleNode.node_id == node_id,
            Module.kind == extract.module_kind,
            Module.build_id == extract.build_id,
        )
        .with_for_update(of=Module)
    )
    module = found.one_or_none()
    if module is None:
        raise unexpected
    return module


def _refuse(module_id: int, node_id: int, reason: str) -> Any:
    return (
        update(Module)
        .where(Module.id == module_id)
        .values(
            symbol_state="refused",
            refused_reason=reason,
            requested_at=func.now(),
            requested_node_id=node_id,
        )
    )


def _ago(interval: str) -> ColumnElement[Any]:
    return func.now() - literal(interval).cast(INTERVAL)
