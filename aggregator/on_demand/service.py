"""Asking for profiles and following them. Everything here runs in the caller's transaction.

The node's row is locked before those of its profiles, as ingest does.
"""

from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator.access.errors import UnknownNodeError
from aggregator.fleet.models import Node
from aggregator.fleet.removal import IS_PRESENT
from aggregator.on_demand.asking import Asked, check_offer, near_names
from aggregator.on_demand.errors import (
    BusyNodeError,
    TooManyProfilesError,
    UnknownProfileError,
)
from aggregator.on_demand.models import ProfileRequest
from aggregator.on_demand.progress import ACTIVE, BEGIN_WITHIN, Progress, cancel, outlive

MOST_AN_HOUR = 60  # profiles of one operator
KEPT = timedelta(days=7)
MOST_LISTED = 50
TABLE = ProfileRequest.__table__


class KnownNode(NamedTuple):
    """What the centre knows of a node from its newest batch."""

    id: int
    name: str
    last_seen_at: datetime | None
    agent_version: str
    facts: dict[str, str]


async def find_node(connection: AsyncConnection, name: str, *, lock: bool = False) -> KnownNode:
    """The node called `name`. Raises UnknownNodeError, which names the nearest ones."""
    columns = (Node.id, Node.name, Node.last_seen_at, Node.agent_version, Node.facts)
    query = select(*columns).where(Node.name == name, text(IS_PRESENT))
    if lock:
        query = query.with_for_update()
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        names = (await connection.scalars(select(Node.name).where(text(IS_PRESENT)))).all()
        raise UnknownNodeError(
            f"no node is called {name[:253]!r}{near_names(name, names)}",
            remedy="GET /api/v1/nodes lists the nodes",
        )
    return KnownNode._make(row)


async def ask(
    connection: AsyncConnection, name: str, operator: str, asked: Asked, now: datetime
) -> tuple[KnownNode, Progress]:
    """Note the profile that is asked for; the node is told with the answer to its next batch.

    Raises UnknownNodeError, BusyNodeError, TooManyProfilesError, or NotOfferedError and
    AgentTooOldError where the node's newest batch says that it would refuse.
    """
    node = await find_node(connection, name, lock=True)
    known = await _read(connection, node, now)
    check_offer(asked, node.name, node.facts, node.agent_version, node.last_seen_at is not None)
    active = next((profile for profile in known if profile.state in ACTIVE), None)
    if active is not None:
        raise BusyNodeError(
            f"{node.name} has profile {active.id} of {active.operator} already: {active.state}, "
            f"{active.rate_hz} Hz for {active.seconds} s",
            remedy=f"wait for its end, or end it: DELETE /api/v1/nodes/{name}/profiles/{active.id}",
        )
    recent = select(func.count()).where(
        ProfileRequest.operator == operator, ProfileRequest.created_at > now - timedelta(hours=1)
    )
    if (await connection.scalar(recent) or 0) >= MOST_AN_HOUR:
        raise TooManyProfilesError(
            f"{operator} has asked for {MOST_AN_HOUR} profiles within an hour",
            remedy="try again later",
        )
    await connection.execute(
        delete(ProfileRequest).where(
            ProfileRequest.node_id == node.id, ProfileRequest.created_at < now - KEPT
        )
    )
    values = {
        "node_id": node.id,
        "operator": operator,
        "created_at": now,
        "expires_at": now + BEGIN_WITHIN,
        **asdict(asked),
    }
    row = await connection.execute(insert(ProfileRequest).values(values).returning(*TABLE.c))
    return node, Progress(**row.one()._mapping)


async def list_profiles(
    connection: AsyncConnection, name: str, now: datetime
) -> tuple[KnownNode, list[Progress]]:
    """The profiles of a node that are kept, at most MOST_LISTED, the newest first."""
    node = await find_node(connection, name)
    return node, await _read(connection, node, now)


async def find_profile(
    connection: AsyncConnection, name: str, number: int, now: datetime
) -> tuple[KnownNode, Progress]:
    """One profile of a node. Raises UnknownNodeError or UnknownProfileError."""
    node = await find_node(connection, name)
    for profile in await _read(connection, node, now, number):
        return node, profile
    raise UnknownProfileError(f"{node.name} has no profile {number}")


async def cancel_profile(
    connection: AsyncConnection, name: str, number: int, operator: str, now: datetime
) -> tuple[KnownNode, Progress]:
    """End a profile early: one that runs ends at the node's next whole ten seconds. One that is
    over stays as it is."""
    locked = select(ProfileRequest.id).where(ProfileRequest.id == number).with_for_update()
    await connection.execute(locked)
    node, known = await find_profile(connection, name, number, now)
    cancelled = cancel(known, operator)
    await save(connection, known, cancelled)
    return node, cancelled


async def save(connection: AsyncConnection, before: Progress, after: Progress) -> None:
    """Write what has changed of a row, unless its state is no more what it was."""
    old = asdict(before)
    changed = {name: value for name, value in asdict(after).items() if value != old[name]}
    if changed:
        own = ProfileRequest.id == after.id, ProfileRequest.state == before.state
        await connection.execute(update(ProfileRequest).where(*own).values(changed))


async def _read(
    connection: AsyncConnection, node: KnownNode, now: datetime, number: int | None = None
) -> list[Progress]:
    """The node's profiles (or one of them), with what the time has decided since."""
    query = select(*TABLE.c).where(ProfileRequest.node_id == node.id)
    if number is not None:
        query = query.where(ProfileRequest.id == number)
    query = query.order_by(ProfileRequest.id.desc()).limit(MOST_LISTED)
    profiles = []
    for row in (await connection.execute(query)).all():
        before = Progress(**row._mapping)
        after = outlive(before, now)
        await save(connection, before, after)
        profiles.append(after)
    return profiles


def told(known: Progress, now: datetime) -> Progress:
    """After the node was told with an answer."""
    return replace(known, sent_at=known.sent_at or now)
