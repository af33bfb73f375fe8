"""Alerts about agents that pause, or that meet a limit of their unit."""

import json
import time

from aggregator.alerts.deliveries import Sent
from wire.schema import Event

SECOND_NS = 10**9


async def test_pauses_are_one_alert_until_they_end(
    node, stack_of, judge_all, deliver, receiver, rows
):
    async def send(lost):
        await node.send(node.batch({stack_of(1): 1}, lost=lost))

    await send({"ring_full": 5})
    assert judge_all() == 0
    await send({"paused": 440})
    assert judge_all() == 1
    await send({"ring_full": 1})  # back at the lowest rate for a while
    assert judge_all() == 0
    assert await deliver() == Sent(delivered=1)

    rows("UPDATE node_overhead SET at = at - interval '10 minutes'")
    assert judge_all() == 1
    assert await deliver() == Sent(delivered=1)
    assert judge_all() == 0
    assert rows("SELECT rule, state, value, detail->>'quantity' FROM alerts") == [
        ("agent_paused", "resolved", 440.0, "paused_samples")
    ]
    assert receiver.events() == ["firing", "resolved"]
    start = json.loads(receiver.requests[0][1])["commonAnnotations"]["summary"]
    assert start.startswith("flamefleet-agent on web-1 pauses sampling to stay inside its budget")


async def test_a_limit_of_the_unit_is_told_in_the_agents_words(
    node, stack_of, judge_all, deliver, receiver, rows
):
    async def meet(kind, seconds_ago=0):
        at_ns = time.time_ns() - seconds_ago * SECOND_NS
        event = Event(at_ns, kind, "cpu_quota", "CPUQuota held it back for 2.5 s", 2.5, 1.0)
        await node.send(node.batch({stack_of(1): 1}, events=[event]))

    await meet("governor")
    await meet("unit_limit", seconds_ago=700)  # it comes late, from the spool
    assert judge_all() == 0
    await meet("unit_limit")
    assert judge_all() == 1
    await meet("unit_limit")
    assert judge_all() == 0
    assert await deliver() == Sent(delivered=1)

    rows("UPDATE agent_events SET at = at - interval '10 minutes'")
    assert judge_all() == 1
    assert await deliver() == Sent(delivered=1)
    assert rows("SELECT rule, state, value, threshold FROM alerts") == [
        ("agent_limited", "resolved", 2.5, 1.0)
    ]
    assert receiver.events() == ["firing", "resolved"]
    receiver.check_signatures()
    start = json.loads(receiver.requests[0][1])["commonAnnotations"]["summary"]
    assert start.endswith("met a limit of its unit: CPUQuota held it back for 2.5 s")


async def test_a_wrong_clock_neither_hides_nor_makes_it_last(node, stack_of, judge_all, rows):
    hour_ago_ns = time.time_ns() - 3_600 * SECOND_NS
    event = Event(hour_ago_ns, "unit_limit", "oom", "killed")
    paused = {"start_ns": hour_ago_ns - 10 * SECOND_NS, "lost": {"paused": 9}}
    await node.send(node.batch({stack_of(1): 1}, events=[event], **paused))
    rows("UPDATE nodes SET clock_offset_ms = NULL")
    assert judge_all() == 0
    # An alert about the clock comes on top: ours are the other two.
    rows("UPDATE nodes SET clock_offset_ms = 3600000, clock_read_at = now()")
    judge_all()
    assert rows("SELECT rule FROM alerts WHERE rule <> 'clock_offset' ORDER BY 1") == [
        ("agent_limited",),
        ("agent_paused",),
    ]
