from dataclasses import replace

import pytest

from node_agent.breaker import (
    CRASHES,
    KERNEL_LOG,
    KNOWN_BAD,
    Opened,
    Running,
    Situation,
    State,
    closes,
    from_json,
    judge,
    reset,
    to_json,
)

NOW = 1_700_000_000.0
QUIET = Situation(NOW, "boot", "6.1.0", False, "", "")
RUN = Running(7, 1234, "boot", 5.5)


def opened(reason: str, ago_s: float, boot_id: str = "boot") -> Opened:
    return Opened(reason, "words", NOW - ago_s, boot_id)


@pytest.mark.parametrize(
    ("state", "found", "reason", "crashes"),
    [
        # nothing has happened
        (State(), QUIET, None, 0),
        # a run that was not struck out is a crash, but not while it lives
        (State(running=RUN), QUIET, None, 1),
        (State(running=RUN), replace(QUIET, is_other_alive=True), None, 0),
        # the third within ten minutes opens
        (State((NOW - 30,), RUN), QUIET, None, 2),
        (State((NOW - 30, NOW - 10), RUN), QUIET, CRASHES, 3),
        (State((NOW - 599, NOW - 10), RUN), QUIET, CRASHES, 3),
        (State((NOW - 601, NOW - 10), RUN), QUIET, None, 2),
        # three that were struck out are none
        (State((NOW - 30, NOW - 10)), QUIET, None, 2),
        # the machine crashed with it: another boot counts just the same
        (State((NOW - 30, NOW - 10), RUN), replace(QUIET, boot_id="next"), CRASHES, 3),
        # a clock that was set back an hour: as if just now
        (State((NOW + 3600, NOW + 3600), RUN), QUIET, CRASHES, 3),
        # stays open for ten minutes, then three new crashes are needed
        (State((NOW - 500,), opened=opened(CRASHES, 599)), QUIET, CRASHES, 1),
        (State((NOW - 500, NOW - 400), opened=opened(CRASHES, 600)), QUIET, None, 0),
        (State(opened=opened(CRASHES, 599, "last")), QUIET, CRASHES, 0),
        (State(opened=opened(CRASHES, -7200)), QUIET, CRASHES, 0),
        # what the kernel said
        (State(), replace(QUIET, complaint="WARNING: x"), KERNEL_LOG, 0),
        (State(opened=opened(KERNEL_LOG, 90_000)), QUIET, KERNEL_LOG, 0),
        (State(opened=opened(KERNEL_LOG, 10, "last")), QUIET, None, 0),
        # the list is read anew each time
        (State(), replace(QUIET, bad_kernel="freezes"), KNOWN_BAD, 0),
        (State(opened=opened(KNOWN_BAD, 10)), QUIET, None, 0),
        (State(opened=opened(KNOWN_BAD, 10)), replace(QUIET, bad_kernel="x"), KNOWN_BAD, 0),
        (State(accepted_kernel="6.1.0"), replace(QUIET, bad_kernel="x"), None, 0),
        (State(accepted_kernel="6.0.0"), replace(QUIET, bad_kernel="x"), KNOWN_BAD, 0),
    ],
)
def test_what_opens_the_breaker_and_what_closes_it(state, found, reason, crashes):
    after = judge(state, found)

    assert (after.opened and after.opened.reason) == reason
    assert len(after.crashes) == crashes
    assert after.running == (state.running if found.is_other_alive else None)


def test_an_opened_breaker_keeps_its_time_and_words():
    first = judge(State(), replace(QUIET, complaint="BUG: y"))
    later = judge(first, replace(QUIET, now=NOW + 99))
    assert later.opened == Opened(KERNEL_LOG, "BUG: y", NOW, "boot")


def test_a_reset_forgets_and_accepts_the_kernel():
    state = State((NOW,) * 5, RUN, opened(CRASHES, 1))
    after = judge(reset(state, "6.1.0"), replace(QUIET, is_other_alive=True, bad_kernel="bad"))
    assert after == State(running=RUN, accepted_kernel="6.1.0")


@pytest.mark.parametrize("reason", [CRASHES, KERNEL_LOG, KNOWN_BAD])
def test_it_says_what_closes_it(reason):
    assert "--reset-breaker" in closes(opened(reason, 0))


@pytest.mark.parametrize(
    "state", [State(), State((1.5, 2.0), RUN, opened(KERNEL_LOG, 3), "6.1.0-1")]
)
def test_the_file_keeps_everything(state):
    assert from_json(to_json(state)) == state


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        {"version": 2},
        {**to_json(State()), "crashes": 7},
        {**to_json(State()), "running": {"pid": 1}},
        {**to_json(State()), "opened": {**vars(opened(CRASHES, 0)), "reason": "mood"}},
    ],
)
def test_a_file_that_is_none_is_refused(content):
    with pytest.raises(ValueError):
        from_json(content)
