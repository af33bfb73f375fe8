"""Events that wait for a batch."""

from node_agent.sampler.events import MAX_WAITING, Events
from wire.limits import MAX_EVENT_TEXT_BYTES, MAX_EVENTS


def add(events: Events, number: int) -> None:
    events.add("governor", "cpu", f"step {number}")


def test_a_batch_takes_the_oldest_and_no_more_than_it_may_carry() -> None:
    events = Events()
    for number in range(MAX_EVENTS + 2):
        add(events, number)

    taken = events.take()

    assert [event.words for event in taken] == [f"step {n}" for n in range(MAX_EVENTS)]
    assert len(events) == 2
    assert [event.words for event in events.take()] == ["step 64", "step 65"]
    assert events.take() == []


def test_those_of_a_batch_that_could_not_be_written_come_first_again() -> None:
    events = Events()
    add(events, 1)
    add(events, 2)
    taken = events.take()
    add(events, 3)

    events.put_back(taken)

    assert [event.words for event in events.take()] == ["step 1", "step 2", "step 3"]


def test_when_nobody_takes_them_the_oldest_are_dropped_and_counted() -> None:
    events = Events()
    for number in range(MAX_WAITING + 5):
        add(events, number)

    assert (len(events), events.dropped) == (MAX_WAITING, 5)
    assert events.take()[0].words == "step 5"


def test_texts_are_cut_to_what_the_centre_takes() -> None:
    events = Events()
    events.add("governor", "cpu", "\0ä" * 2000, before="x" * 2000)

    (event,) = events.take()

    assert len(event.words.encode()) <= MAX_EVENT_TEXT_BYTES
    assert "\0" not in event.words
    assert event.before == "x" * MAX_EVENT_TEXT_BYTES
