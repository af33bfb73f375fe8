"""When what the agents report of their own cost is an alert."""

from concurrent.futures import ThreadPoolExecutor

from aggregator.alerts.changes import Evaluation

MIB = 1 << 20


async def test_memory_alone_is_enough(report, judge, rows):
    await report(0.1, memory_mib=51)
    assert judge() == Evaluation(1, 0)
    assert rows("SELECT value, threshold, detail ->> 'quantity' FROM alerts") == [
        (51 * MIB, 50 * MIB, "memory_bytes")
    ]


async def test_only_the_last_minute_counts_and_one_report_is_too_few(report, judge):
    await report(9, batches=1)
    assert judge() == Evaluation()
    await report(9, batches=6, late_s=70)
    assert judge() == Evaluation()


async def test_the_seconds_of_a_start_are_judged_by_their_whole_minute(report, judge, rows):
    await report(2.5, batches=2)
    assert judge() == Evaluation()
    await report(1.5, batches=6)
    assert judge() == Evaluation(1, 0)
    assert round(rows("SELECT value FROM alerts")[0][0], 2) >= 1.25


async def test_a_start_that_uses_up_its_minute_is_an_alert(report, judge):
    await report(9, batches=2)
    assert judge() == Evaluation(1, 0)


async def test_long_batches_widen_the_window(report, judge):
    await report(9, batches=2, length_s=120)
    assert judge() == Evaluation(1, 0)


async def test_a_node_with_a_wrong_clock_is_judged_too(report, judge, rows):
    await report(9, late_s=90)
    rows("UPDATE nodes SET clock_offset_ms = 90000")
    assert judge() == Evaluation(1, 0)


async def test_each_node_has_its_own_alert(report, judge, new_node, rows):
    for name, cpu_percent in (("a", 5), ("b", 0.1), ("c", 6)):
        await report(cpu_percent, by=new_node(name))
    assert judge() == Evaluation(2, 0)
    firing = rows("SELECT n.name FROM alerts a JOIN nodes n ON n.id = a.node_id ORDER BY 1")
    assert firing == [("a",), ("c",)]


async def test_a_node_that_falls_silent_keeps_its_alert_and_is_called_stale(
    report, judge, forget, rows
):
    await report(5)
    judge()
    forget()
    assert judge() == Evaluation()
    assert rows("SELECT state, detail -> 'stale' FROM alerts") == [("firing", True)]
    await report(5)
    assert judge() == Evaluation()
    assert rows("SELECT state, detail -> 'stale' FROM alerts") == [("firing", False)]


async def test_many_workers_at_once_start_and_end_once(report, judge, forget, rows):
    await report(5)
    with ThreadPoolExecutor(6) as pool:
        assert sum(done.started for done in pool.map(lambda _: judge(), range(6))) == 1
    forget()
    await report(0.1)
    with ThreadPoolExecutor(6) as pool:
        assert sum(done.ended for done in pool.map(lambda _: judge(), range(6))) == 1
    assert rows("SELECT event, count(*) FROM deliveries GROUP BY 1 ORDER BY 1") == [
        ("firing", 1),
        ("resolved", 1),
    ]
