"""What the workers dropped: added up in Postgres, and read from there."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from aggregator.jobs.models import DroppedMessages


def add_dropped(session: Session, dropped: Mapping[str, int]) -> None:
    """Add to the sums of dropped messages by reason."""
    rows = [{"reason": reason, "messages": count} for reason, count in sorted(dropped.items())]
    new = insert(DroppedMessages)
    more = {
        "messages": DroppedMessages.messages + new.excluded.messages,
        "last_at": func.now(),
    }
    session.execute(new.on_conflict_do_update(index_elements=["reason"], set_=more), rows)


async def list_dropped(session: AsyncSession) -> list[dict[str, Any]]:
    """The sums by reason, most first."""
    query = select(DroppedMessages).order_by(
        DroppedMessages.messages.desc(), DroppedMessages.reason
    )
    return [
        {"reason": row.reason, "messages": row.messages, "last_at": row.last_at}
        for row in await session.scalars(query)
    ]
