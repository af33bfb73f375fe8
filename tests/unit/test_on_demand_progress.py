"""Profiles on demand at the centre: what is asked for, what nodes offer, what batches change."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest

from aggregator.on_demand.asking import Asked, check_offer, near_names, parse_asked
from aggregator.on_demand.errors import AgentTooOldError, BadProfileError, NotOfferedError
from aggregator.on_demand.progress import Progress, advance, cancel, directive_for, outlive
from wire.schema import Event, ProfileDirective, ProfileEndDirective

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=timezone.utc)
NOW_NS = int(NOW.timestamp()) * 10**9
SECOND_NS = 10**9
RUN = uuid4()
FACTS = {"on_demand_max_rate_hz": "199", "on_demand_collectors": "cpu"}


@dataclass
class Stored:
    """A stored batch of ten seconds that began `at_s` after NOW: 100 samples at 100 Hz, 10 lost."""

    at_s: float = 0.0
    events: list[Event] = field(default_factory=list)
    run: UUID = RUN
    samples: int = 100
    lost: int = 10
    facts: dict[str, str] = field(default_factory=lambda: FACTS)
    agent_version: str = "0.1.0"
    duration_ns: int = 10 * SECOND_NS

    @property
    def start_ns(self) -> int:
        return NOW_NS + round(self.at_s * SECOND_NS)

    @property
    def weight_ns(self) -> int:
        return self.samples * 10**7


def waiting(**changes: Any) -> Progress:
    return Progress(
        **{
            "id": 7,
            "node_id": 1,
            "operator": "ann",
            "collector": "cpu",
            "rate_hz": 100,
            "seconds": 20,
            "state": "waiting",
            "reason": "",
            "created_at": NOW,
            "expires_at": NOW + timedelta(minutes=5),
            "sent_at": None,
            "cancelled_by": None,
            "run": None,
            "begun_at": None,
            "ended_at": None,
            "covered_until": None,
            "samples": 0,
            "lost": 0,
            "weight_ns": 0,
            **changes,
        }
    )


def says(reason: str, words: str, at_s: float, value: float = 0.0, number: int = 7) -> Event:
    at_ns = NOW_NS + round(at_s * SECOND_NS)
    return Event(at_ns, "profile", reason, f"profile {number}: {words}", value)


def after(known: Progress, *batches: Stored) -> Progress:
    for batch in batches:
        known = advance(known, batch)
    return known


BEGUN = says("begun", "began, 100 Hz for 20 s", 10, 100.0)
ENDED = says("ended", "ended after 20 s", 30, 20.0)
RUNNING = after(waiting(), Stored(0.5, [BEGUN]))


def test_it_runs_and_is_done_by_the_nodes_word_and_counts_its_own_batches() -> None:
    assert (RUNNING.state, RUNNING.begun_at) == ("running", NOW + timedelta(seconds=10))
    assert (RUNNING.samples, RUNNING.effective_rate_hz) == (0, None)

    done = after(RUNNING, Stored(10.01), Stored(20.01, [ENDED]), Stored(30.01))

    assert (done.state, done.reason) == ("done", "ended after 20 s")
    assert done.ended_at == NOW + timedelta(seconds=30)
    assert (done.samples, done.lost) == (200, 20)
    assert done.effective_rate_hz == pytest.approx(100 * 200 / 220)
    assert after(done, Stored(40, [BEGUN, ENDED])) == done


def test_events_of_other_profiles_and_kinds_change_nothing() -> None:
    other = says("begun", "began", 10, number=8)
    foreign = Event(NOW_NS, "governor", "begun", "profile 7: began")
    odd = Event(NOW_NS, "profile", "begun", "profile seven: began")
    later = says("word_of_2030", "?", 10)
    assert after(waiting(), Stored(0.5, [other, foreign, odd, later])) == waiting()


def test_a_refusal_in_the_nodes_words() -> None:
    refused = after(waiting(), Stored(0, [says("refused", "refused: profile 6 is under way", 0)]))
    assert (refused.state, refused.reason) == ("refused", "profile 6 is under way")
    assert directive_for(refused, NOW) is None


def test_an_agent_that_is_too_old_is_told_apart() -> None:
    refused = after(waiting(), Stored(0, facts={}, agent_version="0.0.9"))
    assert refused.state == "refused"
    assert "the agent on this node (0.0.9) knows no profiles on demand" in refused.reason
    detached = after(waiting(), Stored(0, facts={"breaker": "crashes: three in ten minutes"}))
    assert "its breaker is open: crashes" in detached.reason


def test_another_run_ends_it_where_the_last_batch_ended() -> None:
    shortened = after(RUNNING, Stored(10.5), Stored(22, run=uuid4()), Stored(32, run=uuid4()))
    assert (shortened.state, shortened.reason) == ("shortened", "the sampler was started again")
    assert shortened.ended_at == NOW + timedelta(seconds=20.5)
    assert shortened.samples == 100


def test_late_batches_of_the_run_before_change_nothing() -> None:
    assert after(RUNNING, Stored(-50, run=uuid4())) == RUNNING


def test_an_end_whose_beginning_was_not_heard() -> None:
    done = after(waiting(), Stored(20, [ENDED]))
    assert (done.state, done.begun_at) == ("done", NOW + timedelta(seconds=10))


@pytest.mark.parametrize(
    ("known", "passed_s", "state", "words"),
    [
        (waiting(), 299, "waiting", ""),
        (waiting(), 300, "expired", "never told"),
        (waiting(sent_at=NOW), 301, "waiting", ""),
        (waiting(sent_at=NOW), 421, "expired", "did not say that it began"),
        (RUNNING, 329, "running", ""),
        (RUNNING, 331, "expired", "fell silent"),
    ],
)
def test_silence(known: Progress, passed_s: float, state: str, words: str) -> None:
    found = outlive(known, NOW + timedelta(seconds=passed_s))
    assert found.state == state
    assert words in found.reason


def test_a_late_word_overrules_the_silence() -> None:
    expired = outlive(RUNNING, NOW + timedelta(hours=1))
    assert after(expired, Stored(20.01, [ENDED])).state == "done"


def test_a_node_is_told_until_it_answers() -> None:
    asked = ProfileDirective(7, "cpu", 100, 20, 240)
    assert directive_for(waiting(), NOW + timedelta(minutes=1)) == asked
    assert directive_for(waiting(sent_at=NOW), NOW + timedelta(minutes=1)) == asked
    assert directive_for(waiting(), NOW + timedelta(minutes=6)) is None
    assert directive_for(RUNNING, NOW) is None
    assert directive_for(cancel(RUNNING, "bob"), NOW) == ProfileEndDirective(7)


def test_cancelling() -> None:
    at_once = cancel(waiting(), "bob")
    assert (at_once.state, at_once.cancelled_by) == ("shortened", "bob")
    later = cancel(waiting(sent_at=NOW), "bob")
    assert (later.state, later.cancelled_by) == ("waiting", "bob")
    told = says("shortened", "cancelled before it began", 12)
    assert after(later, Stored(2, [told])).state == "shortened"
    over = replace(RUNNING, state="done")
    assert cancel(over, "bob") == over


def test_a_body() -> None:
    assert parse_asked(b"") == Asked(60, 199, "cpu")
    assert parse_asked(b'{"seconds": 11, "rate_hz": 99}') == Asked(20, 99, "cpu")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not JSON"),
        (b"[]", "a JSON object"),
        (b"[" * 4_000, "not JSON"),
        (b'{"rate": 99}', "'rate' is unknown; did you mean rate_hz?"),
        (b'{"seconds": 601}', "seconds is 601; it must be a whole number, 10 to 600"),
        (b'{"seconds": 9}', "10 to 600"),
        (b'{"seconds": true}', "10 to 600"),
        (b'{"seconds": 60.0}', "10 to 600"),
        (b'{"rate_hz": "99"}', "rate_hz is 99; it must be a whole number, 1 to 1000"),
        (b'{"rate_hz": 1001}', "1 to 1000"),
        (b'{"collector": 5}', "collector"),
    ],
)
def test_a_body_that_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(BadProfileError) as refused:
        parse_asked(body)
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("asked", "facts", "error", "words"),
    [
        (Asked(), {}, AgentTooOldError, "the agent on web-1 (0.0.9) knows no profiles"),
        (Asked(rate_hz=200), FACTS, NotOfferedError, "200 Hz is above the 199 Hz"),
        (Asked(collector="offcpu"), FACTS, NotOfferedError, "no collector 'offcpu'; it offers cpu"),
        (Asked(), FACTS | {"on_demand_max_rate_hz": "0"}, NotOfferedError, "takes no profiles"),
        (Asked(), FACTS | {"on_demand_max_rate_hz": "?"}, NotOfferedError, "takes no profiles"),
        (Asked(), FACTS | {"on_demand_collectors": ""}, NotOfferedError, "takes no profiles"),
        (
            Asked(),
            {"breaker": "crashes: three"},
            NotOfferedError,
            "breaker is open: crashes: three",
        ),
    ],
)
def test_what_a_node_would_refuse(
    asked: Asked, facts: dict[str, str], error: type[Exception], words: str
) -> None:
    check_offer(asked, "web-1", facts, "0.0.9", was_seen=False)
    with pytest.raises(error, match=words.replace("(", r"\(").replace(")", r"\)")):
        check_offer(asked, "web-1", facts, "0.0.9", was_seen=True)


def test_near_names() -> None:
    assert near_names("web-11", ["web-1", "web-12", "db"]) == "; did you mean web-1 or web-12?"
    assert near_names("x", ["web-1"]) == ""
