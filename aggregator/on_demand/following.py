"""What ingest does for profiles: it hears what nodes say of them, and tells nodes what is asked."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator.ingest.batches import PreparedBatch
from aggregator.on_demand.asking import RATE_FACT
from aggregator.on_demand.models import ProfileRequest
from aggregator.on_demand.progress import ACTIVE, Progress, advance, directive_for, told_profiles
from aggregator.on_demand.service import TABLE, save, told
from wire.schema import Directive


class Taken(NamedTuple):
    """A batch that was not refused; `is_new` unless it is a duplicate."""

    batch: PreparedBatch
    is_new: bool


async def follow_profiles(
    connection: AsyncConnection, taken: Sequence[Taken], now: datetime
) -> dict[int, list[Directive]]:
    """Advance the profiles of the batches' nodes, in the transaction that stores the batches; what
    to tell each node with its answer. One query for a group when nobody asks for profiles."""
    nodes = {batch.node_id for batch, _ in taken}
    spoken = {number for batch, _ in taken for number in told_profiles(batch.events)}
    query = (
        select(*TABLE.c)
        .where(
            ProfileRequest.node_id.in_(sorted(nodes)),
            or_(
                ProfileRequest.state.in_(ACTIVE),
                and_(ProfileRequest.id.in_(sorted(spoken)), ProfileRequest.state == "expired"),
            ),
        )
        .order_by(ProfileRequest.id)
        .with_for_update()
    )
    directives: dict[int, list[Directive]] = {}
    for row in (await connection.execute(query)).all():
        before = Progress(**row._mapping)
        own = [one for one in taken if one.batch.node_id == before.node_id]
        after = before
        for batch, is_new in sorted(own, key=lambda one: one.batch.start_ns):
            after = advance(after, batch) if is_new else after
        directive = directive_for(after, now)
        if directive is not None and all(RATE_FACT in batch.facts for batch, _ in own):
            directives.setdefault(before.node_id, []).append(directive)
            after = told(after, now)
        await save(connection, before, after)
    return directives
