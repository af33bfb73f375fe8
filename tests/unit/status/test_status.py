import pytest

from node_agent.cli import main
from node_agent.spool import Usage
from node_agent.status import summarize
from node_agent.status_words import render

NOW = 10_000.0
EMPTY = Usage(0, 0, 0, 0, 0.0)
SAMPLER = {
    "at": NOW - 3,
    "pid": 11,
    "state": "sampling",
    "version": "0.1.0",
    "mode": "core",
    "collectors": ["cpu"],
    "preset": "production",
    "rate_hz": 19,
    "interval_s": 10.0,
    "started_at": NOW - 7300,
    "samples": 1234,
    "lost": {"ring_full": 3, "stack_error": 0},
    "overhead": {
        "cpu_percent": 0.123,
        "user_percent_of_core": 0.2,
        "memory_bytes": 30 << 20,
        "map_bytes": 4 << 20,
    },
    "dropped": {"spool_full": 2},
}
SHIPPER = {
    "at": NOW - 4,
    "pid": 12,
    "state": "idle",
    "last_delivery_at": NOW - 4,
    "sent": {"batches": 730},
    "dropped": {"refused_400": 1},
    "last_error": {"at": NOW - 500, "message": "old trouble"},
    "failing_since": None,
    "alerts": [],
}


def status(sampler=SAMPLER, shipper=SHIPPER, usage=EMPTY, alive=(11, 12)):
    return summarize(sampler, shipper, usage, 256 << 20, NOW, lambda pid: pid in alive)


def test_a_running_agent():
    answer = status()
    assert answer["running"]
    assert (answer["mode"], answer["rate_hz"], answer["uptime_s"]) == ("core", 19, 7300)
    assert answer["overhead"]["cpu_percent"] == 0.123
    assert answer["lost"] == {"ring_full": 3}
    assert answer["shipper"]["running"]
    assert answer["shipper"]["last_delivery_s_ago"] == 4
    assert answer["spool"]["limit_bytes"] == 256 << 20
    assert render(answer).splitlines() == [
        "agent     running for 2 h, version 0.1.0, pid 11",
        "mode      CO-RE, preset production, collectors: cpu",
        "rate      19 Hz, a batch every 10 s",
        "overhead  0.12 % of the host's CPU (0.20 % of one core in user space), 30.0 MiB",
        "samples   1234, lost: 3 ring_full",
        "shed      nothing",
        "spool     0 batches, 0 B of 256.0 MiB",
        "shipper   idle, pid 12",
        "delivery  4 s ago; sent: 730 batches",
        "dropped   1 refused_400, 2 spool_full",
    ]


def test_how_stacks_of_the_last_interval_ended():
    assert status()["stack_ends"] is None
    assert "stacks  " not in render(status())

    ends = {"complete": 9_920, "no_rows": 60, "truncated": 15, "read_fault": 5, "no_room": 0}
    answer = status({**SAMPLER, "interval": {"stack_ends": ends}})
    assert answer["stack_ends"]["complete_share"] == 0.992
    assert answer["stack_ends"]["samples"] == {k: v for k, v in ends.items() if v}
    line = "99.20 % whole in the last interval, no rows 0.60 %, truncated 0.15 %, read fault 0.05 %"
    assert f"stacks    {line}" in render(answer).splitlines()

    for nonsense in (5, {"complete": -1}, {"complete": 1 << 80}, {"complete": "x"}, {3: True}):
        text = render(status({**SAMPLER, "interval": {"stack_ends": nonsense}}))
        assert "running for" in text


@pytest.mark.parametrize(
    ("change", "alive", "running"),
    [
        ({}, (11,), True),
        ({}, (), False),
        ({"state": "stopped"}, (11,), False),
        ({"at": NOW - 31}, (11,), False),
        ({"at": NOW - 31, "interval_s": 60.0}, (11,), True),
        ({"at": "now"}, (11,), False),
        ({"pid": None}, (11,), False),
        ({"pid": "11"}, (11,), False),
    ],
)
def test_running_means_a_fresh_report_of_a_live_process(change, alive, running):
    assert status(SAMPLER | change, alive=alive)["running"] is running


def test_nothing_there():
    answer = status(None, None)
    assert not answer["running"]
    assert render(answer).splitlines() == [
        "agent     not running",
        "spool     0 batches, 0 B of 256.0 MiB",
        "shipper   not running",
        "delivery  nothing yet",
        "dropped   none",
    ]


def test_trouble_is_shown():
    shipper = SHIPPER | {
        "state": "denied",
        "failing_since": NOW - 90,
        "last_error": {"message": "credentials denied"},
        "alerts": [{"at": NOW, "message": "cloned node"}],
    }
    sampler = SAMPLER | {"error": "the disk is full", "overhead": {}, "shed": ["user stacks"]}
    text = render(status(sampler, shipper, Usage(1, 0, 0, 5000, 86_400 * 3)))
    assert "error     the disk is full" in text
    assert "error     credentials denied" in text
    assert "ALERT     cloned node" in text
    assert "overhead  not measured yet" in text
    assert "shed      user stacks" in text
    assert "1 batch, 4.9 KiB of 256.0 MiB, the oldest 3 days old" in text


@pytest.mark.parametrize(("running", "words"), [(True, "running"), (False, "about to begin")])
def test_a_profile_on_demand_is_shown(running, words):
    profile = {"id": 7, "rate_hz": 199, "running": running, "begin": NOW, "end": NOW + 60}
    text = render(status(SAMPLER | {"on_demand": {"profile": profile}}, SHIPPER))
    assert f"profile   7, 199 Hz for 60 s, {words}" in text


def test_reports_of_the_wrong_shape_are_survived():
    odd = {
        "at": NOW,
        "pid": 12,
        "sent": [1],
        "alerts": ["x", 5],
        "last_error": "text",
        "failing_since": 1,
        "last_delivery_at": "yesterday",
        "state": "\x1b[2Jcleared",
    }
    answer = status({**odd, "pid": 11, "collectors": 5, "overhead": [], "lost": 4}, odd)
    text = render(answer)
    assert "\x1b" not in text
    assert "delivery  nothing yet" in text


def test_a_rate_that_the_kernel_does_not_keep_up_is_said():
    words = "61 of 99 samples a second and CPU: the kernel throttles"
    answer = status(sampler=SAMPLER | {"effective_rate_hz": 61.2, "rate_words": words})

    assert answer["effective_rate_hz"] == 61.2
    assert f"rate      {words}" in render(answer)
    assert status()["rate_words"] is None


HOSTILE = (None, [], {}, "x", "\x1b[2J\n", 10**400, -(10**400), 1e308, float("inf"), float("nan"))
HOSTILE += (-1, True, [[]], [{"message": []}], {"\x1b": 1}, {"a": {"b": 10**400}}, [None, 10**400])


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:20])
def test_reports_are_files_of_other_users(value):
    for name in {*SAMPLER, *SHIPPER, "labels_folded", "shed", "error", "degraded", "breaker"}:
        for answer in (
            status(sampler={**SAMPLER, name: value}),
            status(shipper={**SHIPPER, name: value}),
            status({**SAMPLER, "overhead": {name: value}}, {**SHIPPER, "failing_since": value}),
        ):
            text = render(answer)
            assert all(line.isprintable() for line in text.splitlines()), name


def test_what_is_given_up_since_when_and_which_limits_were_met():
    steps = [{"at": NOW - 300, "reason": "cpu", "words": "19 Hz -> 11 Hz: ..."}]
    units = {"sampler": {"throttled": 3, "memory_max": 0}, "shipper": {"oom_kills": 1}, "x": 5}
    sampler = {
        **SAMPLER,
        "asked_rate_hz": 49,
        "shed": ["rate (11 of 19 Hz)", "Python frames"],
        "shed_since": NOW - 300,
        "governor": steps,
        "units": units,
        "events": {"waiting": 2, "dropped": 0},
    }

    answer = status(sampler)

    assert answer["asked_rate_hz"] == 49
    assert answer["shed_since"] == NOW - 300
    assert answer["governor"] == steps
    assert answer["units"] == units
    assert answer["events"] == {"waiting": 2}
    lines = render(answer).splitlines()
    assert "shed      rate (11 of 19 Hz), Python frames, for 5 min" in lines
    assert "limits    the sampler's unit: CPUQuota 3 times" in lines
    assert "limits    the shipper's unit: killed for want of memory 1 times" in lines


@pytest.mark.parametrize(("no_room", "told"), [(0, False), (50, True)])
def test_stacks_without_room_name_the_setting(no_room, told):
    ends = {"complete": 1000, "no_room": no_room}
    words = render(status({**SAMPLER, "interval": {"stack_ends": ends}}))
    assert ("unwind_limit_bytes" in words) is told


def test_a_spool_that_nobody_has_used_names_the_flag(tmp_path, capsys):
    assert main(["status", "--spool-dir", str(tmp_path / "none")]) == 1
    told = capsys.readouterr()
    assert told.out.startswith("agent     not running")
    assert f"No agent has used {tmp_path / 'none'}" in told.out
    assert "--config" in told.out
    assert told.err == ""
    assert not (tmp_path / "none").exists()
