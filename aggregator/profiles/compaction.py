"""Rolling ended minutes up: part 0 of the 1-minute tier, computed from the minute's 10-second rows.

Each minute is computed anew from committed rows, in one transaction with taking its mark out of
`dirty_bucket`, so being killed, run twice or run by several workers at once changes nothing. Ingest
locks the mark while it adds rows (`aggregator.ingest.store`): whoever comes first makes the other
wait or skip, so no late row goes unseen.
"""

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import Engine, Row, text
from sqlalchemy.orm import Session

from aggregator.db import session_scope
from aggregator.profiles.codec import Section, decode_sections, encode_sections, merge_sections
from aggregator.profiles.errors import BlobError
from aggregator.profiles.stack_ends import decode_ends, encode_ends

LOG = logging.getLogger(__name__)
SETTLE_S = 30  # batches of a minute still come in for about so long after it
MINUTE_S = 60
MINUTES_AT_ONCE = 50  # in one transaction
MINUTES_A_CALL = 2_000

_TAKE = text(
    "SELECT bucket, node_id FROM dirty_bucket WHERE tier_s = 60 AND bucket <= :ended "
    "ORDER BY bucket, node_id LIMIT :most FOR UPDATE SKIP LOCKED"
)
_READ = text(
    "SELECT taken.bucket AS minute, p.node_id, p.bucket, p.part, p.samples, p.lost, p.covered_ms, "
    "p.weight_ns, p.data, p.stack_ends "
    "FROM unnest(CAST(:buckets AS timestamptz[]), CAST(:node_ids AS integer[])) "
    "AS taken (bucket, node_id) JOIN node_prof p ON p.node_id = taken.node_id "
    "AND p.bucket >= taken.bucket AND p.bucket < taken.bucket + interval '1 minute' "
    "WHERE p.tier_s = 10 AND p.bucket >= :first AND p.bucket < :last "
    "ORDER BY taken.bucket, p.node_id, p.bucket, p.part"
)
_WRITE = text(
    "INSERT INTO node_prof (tier_s, bucket, node_id, part, samples, lost, covered_ms, weight_ns, "
    "data, stack_ends) VALUES (60, :bucket, :node_id, 0, :samples, :lost, :covered_ms, :weight_ns, "
    ":data, :stack_ends) "
    "ON CONFLICT (tier_s, bucket, node_id, part) DO UPDATE SET samples = excluded.samples, "
    "lost = excluded.lost, covered_ms = excluded.covered_ms, weight_ns = excluded.weight_ns, "
    "data = excluded.data, stack_ends = excluded.stack_ends"
)
_DONE = text(
    "DELETE FROM dirty_bucket d "
    "USING unnest(CAST(:buckets AS timestamptz[]), CAST(:node_ids AS integer[])) "
    "AS taken (bucket, node_id) "
    "WHERE d.tier_s = 60 AND d.bucket = taken.bucket AND d.node_id = taken.node_id"
)


class Minute(NamedTuple):
    """One minute of one node, as a row of the 1-minute tier."""

    bucket: datetime
    node_id: int
    samples: int
    lost: int
    covered_ms: int
    weight_ns: int
    data: bytes
    stack_ends: bytes


def compact(engine: Engine, now: datetime | None = None, most: int = MINUTES_A_CALL) -> int:
    """Roll up to `most` minutes up that ended SETTLE_S before `now`; returns how many there were.

    Minutes that another worker is at are left to it. Raises DatabaseError.
    """
    now = now or datetime.now(timezone.utc)
    ended = now - timedelta(seconds=MINUTE_S + SETTLE_S)
    done = 0
    while done < most:
        with session_scope(engine) as session:
            taken = _compact_some(session, ended, min(MINUTES_AT_ONCE, most - done))
        done += taken
        if not taken:
            break
    return done


def _compact_some(session: Session, ended: datetime, most: int) -> int:
    # Rows are read by a later statement than the marks are locked by, hence in a newer snapshot:
    # it shows everything that was committed before the lock was got.
    marks = session.execute(_TAKE, {"ended": ended, "most": most}).all()
    if not marks:
        return 0
    keys = {
        "buckets": [mark.bucket for mark in marks],
        "node_ids": [mark.node_id for mark in marks],
    }
    window = {"first": marks[0].bucket, "last": marks[-1].bucket + timedelta(seconds=MINUTE_S)}
    rows = session.execute(_READ, {**keys, **window}).all()
    minutes = [minute._asdict() for minute in _roll_up(rows)]
    if minutes:
        session.execute(_WRITE, minutes)
    session.execute(_DONE, keys)
    return len(marks)


def _roll_up(rows: Sequence[Row[Any]]) -> Iterator[Minute]:
    """The minutes of rows that are ordered by (minute, node).

    A marked minute without rows is in none: what was rolled up before stays as it is.
    """
    for (bucket, node_id), group in groupby(rows, lambda row: (row.minute, row.node_id)):
        members = list(group)
        sections: list[Section] = []
        ends: list[Section] = []
        samples = lost = weight_ns = 0
        for row, row_ends in zip(members, decode_ends(r.stack_ends for r in members), strict=True):
            lost += row.lost
            place = f"node {row.node_id}, bucket {row.bucket}, part {row.part}"
            try:
                sections += decode_sections(row.data)
            except BlobError as error:
                LOG.error("%s: %s; its samples are counted as lost", place, error)
                lost += row.samples
                continue
            samples += row.samples
            weight_ns += row.weight_ns
            if row_ends is None:
                LOG.error("%s: how its stacks ended is damaged; they count as unknown", place)
            ends += row_ends or ()
        covered_ms = sum(row.covered_ms for row in members)
        data = encode_sections(merge_sections(sections))
        stack_ends = encode_ends(merge_sections(ends))
        yield Minute(bucket, node_id, samples, lost, covered_ms, weight_ns, data, stack_ends)
