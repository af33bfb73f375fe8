"""Batches of any time, from nodes and to centres of any clock."""

import pytest

from aggregator.ingest.errors import ClocksApartError, OutlivedError, OutOfTimeError
from aggregator.ingest.times import AHEAD_NS, OLDEST_NS, check_time

TRUE_NS = 1_795_368_600 * 10**9  # the time as it is
S = 10**9
MIN, HOUR, DAY, YEAR = 60 * S, 3_600 * S, 86_400 * S, 365 * 86_400 * S
WEEK_KEPT = 7 * DAY
TAKEN, APART, OUT, OUTLIVED = None, ClocksApartError, OutOfTimeError, OutlivedError


def judge(*, node_ns=0, centre_ns=0, age_ns=10 * S, stamped_ns=None, kept_ns=WEEK_KEPT, dated=True):
    """What becomes of a batch of that true age. Clocks are so far off when it is sent; its start
    was stamped by a clock that was `stamped_ns` off, else by today's."""
    start_ns = TRUE_NS - age_ns + (node_ns if stamped_ns is None else stamped_ns)
    sent_ns = TRUE_NS + node_ns if dated else None
    try:
        check_time(start_ns, TRUE_NS + centre_ns, sent_ns, 17, kept_ns)
    except OutOfTimeError as error:
        assert error.clock_offset_ms == 17
        return type(error)
    return None


CASES = {
    "right clocks": ({}, TAKEN),
    "no Date": ({"dated": False}, TAKEN),
    "late": ({"age_ns": 47 * HOUR}, TAKEN),
    "late to the limit": ({"age_ns": OLDEST_NS}, TAKEN),
    "too late": ({"age_ns": OLDEST_NS + 1}, OUT),
    "too late without Date": ({"age_ns": OLDEST_NS + 1, "dated": False}, OUT),
    "from before what is kept": ({"age_ns": 2 * HOUR, "kept_ns": HOUR}, OUTLIVED),
    "as old as what is kept": ({"age_ns": HOUR, "kept_ns": HOUR}, TAKEN),
    "from before all": ({"age_ns": 49 * HOUR, "kept_ns": HOUR}, OUT),
    # One clock is a little off: the age is that by the node's own.
    "node 9 min ahead": ({"node_ns": 9 * MIN}, TAKEN),
    "node 9 min behind": ({"node_ns": -9 * MIN}, TAKEN),
    "centre 9 min ahead, old": ({"centre_ns": 9 * MIN, "age_ns": OLDEST_NS - MIN}, TAKEN),
    "centre 9 min behind, too old": ({"centre_ns": -9 * MIN, "age_ns": OLDEST_NS + MIN}, OUT),
    "centre 9 min ahead, kept": (
        {"centre_ns": 9 * MIN, "age_ns": 59 * MIN, "kept_ns": HOUR},
        TAKEN,
    ),
    # Far off: what the centre cannot place is kept by its node, whoever is wrong.
    "centre 700 s behind": ({"centre_ns": -700 * S}, APART),
    "centre 700 s ahead": ({"centre_ns": 700 * S}, TAKEN),
    "node 700 s ahead": ({"node_ns": 700 * S}, APART),
    "node 700 s behind": ({"node_ns": -700 * S}, TAKEN),
    "node an hour ahead, late": ({"node_ns": HOUR, "age_ns": HOUR}, TAKEN),
    "centre three days ahead": ({"centre_ns": 3 * DAY}, APART),
    "centre three days behind": ({"centre_ns": -3 * DAY}, APART),
    "node three days behind": ({"node_ns": -3 * DAY}, APART),
    "node in 1970": ({"node_ns": -56 * YEAR}, APART),
    "node in 2100": ({"node_ns": 74 * YEAR}, APART),
    "centre two hours ahead, an hour is kept": ({"centre_ns": 2 * HOUR, "kept_ns": HOUR}, APART),
    "ahead without Date": ({"node_ns": HOUR, "dated": False}, APART),
    # The clock was mended: what the wrong one stamped never becomes right.
    "stamped in 1970": ({"stamped_ns": -56 * YEAR}, OUT),
    "stamped in 2100": ({"stamped_ns": 74 * YEAR}, OUT),
    "stamped 700 s ahead": ({"stamped_ns": 700 * S}, OUT),
    "stamped 5 min ahead": ({"stamped_ns": 5 * MIN}, TAKEN),
    "stamped right, then the clock went off": ({"stamped_ns": 0, "node_ns": 74 * YEAR}, TAKEN),
    "stamped right, then node and centre went off": (
        {"stamped_ns": 0, "node_ns": 74 * YEAR, "centre_ns": -YEAR},
        APART,
    ),
}


@pytest.mark.parametrize(("case", "becomes"), CASES.values(), ids=CASES)
def test_what_becomes_of_a_batch(case, becomes):
    assert judge(**case) is becomes


@pytest.mark.parametrize("off_ns", [0, 9 * MIN, -9 * MIN, 700 * S, -700 * S, DAY, -DAY, 9 * YEAR])
@pytest.mark.parametrize("age_ns", [0, 40 * MIN, 47 * HOUR, 49 * HOUR, 30 * DAY])
@pytest.mark.parametrize("kept_ns", [HOUR, DAY, WEEK_KEPT])
def test_a_wrong_clock_costs_nothing_for_good(off_ns, age_ns, kept_ns):
    """Whatever is refused for good while one of the clocks is wrong, is so when all are right."""
    right = judge(age_ns=age_ns, kept_ns=kept_ns)
    for clock in ("node_ns", "centre_ns"):
        found = judge(age_ns=age_ns, kept_ns=kept_ns, stamped_ns=0, **{clock: off_ns})
        if found in (OUT, OUTLIVED):
            assert right is not None
        if right is None:
            assert found in (TAKEN, APART)


def test_limits():
    assert (OLDEST_NS, AHEAD_NS) == (48 * HOUR, 10 * MIN)
