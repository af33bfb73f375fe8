"""What is known of a profile, and what the batches of its node change about it. Pure.

waiting → running → done | shortened; waiting → refused | expired | shortened. A profile is known to
begin and end by the node's word only, an event of kind "profile" in a batch. What time alone
decides (expired) a late word of the node overrules.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Protocol
from uuid import UUID

from aggregator.on_demand.asking import RATE_FACT, silent_sampler
from wire.schema import Directive, Event, ProfileDirective, ProfileEndDirective

BEGIN_WITHIN = timedelta(minutes=5)  # after that a node that never came is not waited for
HEARD_WITHIN = timedelta(minutes=2)  # that a node which was told did not begin, or that it ended
ACTIVE = ("waiting", "running")
EVENT_KIND = "profile"
_WORDS = re.compile(r"profile (\d{1,18}): (.*)", re.ASCII | re.DOTALL)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MAX_BIGINT = 2**62


@dataclass(frozen=True)
class Progress:
    """A row of `profile_requests`; times but the first three are by the node's clock.

    `run` is the sampler's that began it. `samples`, `lost` and `weight_ns` are of the batches that
    began between `begun_at` and `ended_at`; the last of them ended at `covered_until`.
    """

    id: int
    node_id: int
    operator: str
    collector: str
    rate_hz: int
    seconds: int
    state: str
    reason: str
    created_at: datetime
    expires_at: datetime
    sent_at: datetime | None
    cancelled_by: str | None
    run: UUID | None
    begun_at: datetime | None
    ended_at: datetime | None
    covered_until: datetime | None
    samples: int
    lost: int
    weight_ns: int

    @property
    def effective_rate_hz(self) -> float | None:
        """Samples taken for each second of CPU time, less what was lost; None before there are
        any."""
        if not self.weight_ns or not self.samples:
            return None
        kept = self.samples / (self.samples + self.lost)
        return self.samples * 1e9 / self.weight_ns * kept


class Reported(Protocol):
    """What of a stored batch matters here (see `aggregator.ingest.batches.PreparedBatch`)."""

    @property
    def run(self) -> UUID: ...
    @property
    def start_ns(self) -> int: ...
    @property
    def duration_ns(self) -> int: ...
    @property
    def samples(self) -> int: ...
    @property
    def lost(self) -> int: ...
    @property
    def weight_ns(self) -> int: ...
    @property
    def agent_version(self) -> str: ...
    @property
    def facts(self) -> Mapping[str, str]: ...
    @property
    def events(self) -> Sequence[Event]: ...


def told_profiles(events: Sequence[Event]) -> dict[int, list[tuple[Event, str]]]:
    """Events about profiles, with their words, by the profile's number."""
    told: dict[int, list[tuple[Event, str]]] = {}
    for event in events:
        match = _WORDS.fullmatch(event.words) if event.kind == EVENT_KIND else None
        if match is not None:
            told.setdefault(int(match[1]), []).append((event, match[2]))
    return told


def advance(known: Progress, batch: Reported) -> Progress:
    """What is known after a batch of the profile's node was stored."""
    if known.state == "waiting" and RATE_FACT not in batch.facts:
        reason = silent_sampler("this node", batch.agent_version, batch.facts)
        return replace(known, state="refused", reason=reason)
    for event, words in told_profiles(batch.events).get(known.id, ()):
        known = _hear(known, event, words, batch.run)
    start = _moment(batch.start_ns)
    if known.begun_at is None or known.run is None or start < known.begun_at:
        return known
    if batch.run != known.run:
        if known.state != "running":
            return known
        ended_at = known.covered_until or known.begun_at
        reason = "the sampler was started again"
        return replace(known, state="shortened", reason=reason, ended_at=ended_at)
    if known.ended_at is not None and start >= known.ended_at:
        return known
    return replace(
        known,
        covered_until=_moment(batch.start_ns + batch.duration_ns),
        samples=min(known.samples + batch.samples, _MAX_BIGINT),
        lost=min(known.lost + batch.lost, _MAX_BIGINT),
        weight_ns=min(known.weight_ns + batch.weight_ns, _MAX_BIGINT),
    )


def outlive(known: Progress, now: datetime) -> Progress:
    """What is known when nothing was heard of the node until `now`."""
    if known.state == "waiting":
        if known.sent_at is None and now >= known.expires_at:
            reason = "the node sent no batch in time, so it was never told"
        elif now >= known.expires_at + HEARD_WITHIN:
            reason = "the node was told, but did not say that it began"
        else:
            return known
        return replace(known, state="expired", reason=reason)
    if known.state != "running" or known.begun_at is None:
        return known
    # The end is by the node's clock, so this comes early or late where that is off.
    if now < known.begun_at + timedelta(seconds=known.seconds) + BEGIN_WITHIN:
        return known
    reason = "the node fell silent while it ran; what its agent kept may still come"
    return replace(known, state="expired", reason=reason)


def cancel(known: Progress, operator: str) -> Progress:
    """After an operator has cancelled it: over at once where the node was not told yet."""
    if known.state not in ACTIVE or known.cancelled_by is not None:
        return known
    known = replace(known, cancelled_by=operator)
    if known.state == "waiting" and known.sent_at is None:
        return replace(known, state="shortened", reason="cancelled before the node was told")
    return known


def directive_for(known: Progress, now: datetime) -> Directive | None:
    """What to tell the node with the answer to its batch; again and again until it answers."""
    if known.state in ACTIVE and known.cancelled_by is not None:
        return ProfileEndDirective(known.id)
    left_s = int((known.expires_at - now).total_seconds())
    if known.state == "waiting" and left_s > 0:
        return ProfileDirective(known.id, known.collector, known.rate_hz, known.seconds, left_s)
    return None


def _hear(known: Progress, event: Event, words: str, run: UUID) -> Progress:
    if known.state in ("done", "refused", "shortened"):
        return known
    at, reason = _moment(event.at_ns), words.replace("\0", " ")
    if event.reason == "begun":
        return replace(known, state="running", reason="", begun_at=known.begun_at or at, run=run)
    if event.reason == "refused":
        return replace(known, state="refused", reason=reason.removeprefix("refused: "))
    if event.reason in ("ended", "shortened"):
        state = "done" if event.reason == "ended" else "shortened"
        begun_at = known.begun_at
        if begun_at is None and 0 < event.value <= known.seconds:  # its begin was not heard
            begun_at = at - timedelta(seconds=event.value)
        ended_at = at if begun_at is not None else None
        return replace(known, state=state, reason=reason, begun_at=begun_at, ended_at=ended_at)
    return known


def _moment(unix_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=unix_ns // 1000)
