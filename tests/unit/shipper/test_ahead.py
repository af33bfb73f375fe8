"""When definitions go ahead of their batch."""

import pytest

from node_agent.shipper.ahead import HELD_BATCHES, Ahead


def measured(shares, definition_bytes=None):
    """After batches with these (unknown, wanted) stacks, and definitions of that size."""
    ahead = Ahead()
    for unknown, wanted in shares:
        ahead.asked(unknown, wanted)
        if definition_bytes and wanted:
            ahead.defined(wanted, wanted * definition_bytes)
    return ahead


PAYS = {
    "nothing measured": ([], None, False),
    "all are wanted": ([(100, 100)], None, True),
    "none is wanted": ([(100, 0)], None, False),
    "half of them, at 90 bytes": ([(100, 50)], None, False),
    "one wanted stack says nothing": ([(1, 1)], None, False),
    "few wanted stacks say little": ([(3, 3)], 90, False),
    "few, again and again": ([(3, 3)] * 12, 90, True),
    # p > 1 - 16 / d: 0.822 at 90 bytes, 0.60 at 40, 0.984 at 1,000; never less than half.
    "just too few at 90 bytes": ([(10_000, 8_200)], 90, False),
    "just enough at 90 bytes": ([(10_000, 8_250)], 90, True),
    "just too few at 40 bytes": ([(10_000, 5_990)], 40, False),
    "just enough at 40 bytes": ([(10_000, 6_050)], 40, True),
    "half of them, at 20 bytes": ([(1_000, 500)], 20, False),
    "more than half of them, at 20 bytes": ([(1_000, 510)], 20, True),
    "half of few, at 20 bytes and the head": ([(10, 7)], 20, False),
    "large definitions": ([(10_000, 9_800)], 1_000, False),
    "definitions smaller than a hash": ([(1_000, 510)], 10, True),
    "smaller than a hash, and few wanted": ([(1_000, 490)], 10, False),
    # It changes with the host.
    "a fleet that knows them now": ([(100, 100)] * 20 + [(100, 0)], 90, False),
    "a new program": ([(100, 0)] * 20 + [(100, 100)] * 6, 90, False),
    "a new program, for longer": ([(100, 0)] * 20 + [(100, 100)] * 8, 90, True),
    "nothing new for long": ([(100, 100)] + [(0, 0)] * 50, 90, True),
}


@pytest.mark.parametrize("case", PAYS)
def test_it_pays_where_most_of_what_is_new_is_wanted(case: str) -> None:
    shares, definition_bytes, pays = PAYS[case]
    assert measured(shares, definition_bytes).pays is pays


def test_after_a_failure_it_is_left_for_a_while() -> None:
    ahead = measured([(100, 100)] * 4)
    ahead.failed()
    for _ in range(HELD_BATCHES):
        assert not ahead.pays
        ahead.asked(100, 100)
        ahead.batch_delivered()
    assert ahead.pays


def test_a_centre_that_is_away_for_a_moment_holds_one_batch_only() -> None:
    ahead = measured([(100, 100)] * 4)
    ahead.failed(held_batches=1)
    assert ahead.is_held
    assert not ahead.pays
    ahead.batch_delivered()
    assert ahead.pays
    ahead.failed()
    ahead.failed(held_batches=1)
    ahead.batch_delivered()
    assert not ahead.pays


def test_forgetting_forgets_what_is_wanted_but_no_failure() -> None:
    ahead = measured([(100, 100)] * 4)
    ahead.forget()
    assert not ahead.pays
    ahead.failed()
    ahead.forget()
    ahead.asked(100, 100)
    assert not ahead.pays
