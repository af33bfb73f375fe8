"""Takes due deliveries, sends them, and writes down how it went.

Each receiver (a URL) has a lane of its own, in which one message is sent after the other: one that
hangs delays nobody else. After a message without an answer the lane rests, ever longer.

A delivery is claimed before anything is sent, and no transaction is open while a receiver takes its
time. A worker that dies in between loses nothing: the claim runs out and the message goes again
with the same id, by which receivers drop it.
"""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from sqlalchemy import Engine, case, func, select, update
from sqlalchemy.orm import Session

from aggregator.alerts.claims import Claim, claim_due, due_urls
from aggregator.alerts.errors import AlertsError, UnreachableError
from aggregator.alerts.message import alert_message
from aggregator.alerts.models import Alert, Delivery
from aggregator.alerts.retry import GIVE_UP_AFTER_S, delay_s, next_delay_s
from aggregator.alerts.webhooks import send_webhook
from aggregator.config import Webhook
from aggregator.db import session_scope

LANE_S = 30.0  # after so long a lane begins no further message: the rest is due again at once
_MOST_ERROR_CHARS = 500

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """Why a delivery failed. `unreachable`: whatever waits for the same receiver would, too."""

    words: str
    unreachable: bool


@dataclass(frozen=True)
class Sent:
    """What one run over the due deliveries did."""

    delivered: int = 0
    failed: int = 0
    given_up: int = 0


def deliver_due(engine: Engine, webhooks: Sequence[Webhook]) -> Sent:
    """Send what is due, to all receivers at the same time."""
    by_url = {webhook.url: webhook for webhook in webhooks}
    with session_scope(engine) as session:
        urls = due_urls(session)
    if not urls:
        return Sent()
    with ThreadPoolExecutor(len(urls), "webhook") as lanes:
        outcomes = sum(lanes.map(partial(_lane, engine, by_url), urls), Counter[str]())
    return Sent(*(outcomes[kind] for kind in ("delivered", "failed", "given up")))


def _lane(engine: Engine, by_url: Mapping[str, Webhook], url: str) -> Counter[str]:
    """Send what is due to `url`, one after the other; how it went, by kind."""
    outcomes: Counter[str] = Counter()
    ends_s = time.monotonic() + LANE_S
    while time.monotonic() < ends_s:
        with session_scope(engine) as session:
            claim = claim_due(session, url)
        if claim is None:
            break
        failure = _send(claim, by_url)
        with session_scope(engine) as session:
            outcomes[_record(session, claim, failure, url in by_url)] += 1
    return outcomes


def _send(claim: Claim, by_url: Mapping[str, Webhook]) -> Failure | None:
    """None when it was delivered."""
    webhook = by_url.get(claim.url)
    if webhook is None:
        return Failure("this webhook is not configured any more", unreachable=False)
    try:
        send_webhook(webhook, claim.webhook_id, alert_message(claim.facts), claim.attempts)
    except AlertsError as error:
        return Failure(error.message, isinstance(error, UnreachableError))
    return None


def _record(session: Session, claim: Claim, failure: Failure | None, configured: bool) -> str:
    mine = (
        update(Delivery)
        .where(Delivery.id == claim.id, Delivery.delivered_at.is_(None))
        .values(claimed_until=None)
    )
    if failure is None:
        session.execute(mine.values(delivered_at=func.now(), next_attempt_at=None, last_error=None))
        return "delivered"
    wait_s = next_delay_s(claim.attempts, claim.age_s) if configured else None
    if failure.unreachable:
        rest_s = _rest_s(session, claim.url)
        mine = mine.values(unreachable_until=func.now() + timedelta(seconds=rest_s))
        wait_s = None if wait_s is None else rest_s
        _give_up_old(session, claim.url, failure)
    if wait_s is None:
        words = f"given up after {claim.attempts} attempts: {failure.words}"
        _log.error("webhook %s %s", claim.webhook_id, words)
        session.execute(mine.values(next_attempt_at=None, last_error=words[:_MOST_ERROR_CHARS]))
        return "given up"
    _log.warning("webhook %s failed, again in %d s: %s", claim.webhook_id, wait_s, failure.words)
    session.execute(
        mine.values(
            next_attempt_at=func.now() + timedelta(seconds=wait_s),
            last_error=failure.words[:_MOST_ERROR_CHARS],
        )
    )
    return "failed"


def _rest_s(session: Session, url: str) -> int:
    """How long the receiver is left alone: by all attempts that failed for what still waits."""
    attempts = select(func.sum(Delivery.attempts)).where(
        Delivery.url == url,
        Delivery.delivered_at.is_(None),
        Delivery.next_attempt_at.is_not(None),
    )
    return delay_s(int(session.scalar(attempts) or 1))


def _give_up_old(session: Session, url: str, failure: Failure) -> None:
    """Give up what waited a day for a receiver that gives no answer; it may have had no turn."""
    event_at = case((Delivery.event == "firing", Alert.started_at), else_=Alert.ended_at)
    old = (
        update(Delivery)
        .where(
            Alert.id == Delivery.alert_id,
            Delivery.url == url,
            Delivery.delivered_at.is_(None),
            Delivery.next_attempt_at.is_not(None),
            Delivery.claimed_until.is_(None),
            event_at < func.now() - timedelta(seconds=GIVE_UP_AFTER_S),
        )
        .values(next_attempt_at=None, last_error=f"given up: {failure.words}"[:_MOST_ERROR_CHARS])
    )
    given_up = session.execute(old.returning(Delivery.webhook_id)).scalars().all()
    if given_up:
        _log.error("%d webhooks given up after a day: %s", len(given_up), failure.words)
