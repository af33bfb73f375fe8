"""What the sampler does now and then."""

from node_agent.sampler.chores import Chores


def test_each_chore_is_done_when_it_is_due_and_once_after_a_long_sleep() -> None:
    done: list[str] = []
    chores = Chores(100.0)
    chores.add(2.0, lambda: done.append("often"))
    chores.add(30.0, lambda: done.append("seldom"))
    seen: list[tuple[float, list[str]]] = []
    for now_s in (100.0, 101.9, 102.0, 103.0, 131.0, 132.0, 133.0, 162.0):
        done.clear()
        chores.step(now_s)
        seen.append((now_s, list(done)))
    assert seen == [
        (100.0, []),
        (101.9, []),
        (102.0, ["often"]),
        (103.0, []),
        (131.0, ["often", "seldom"]),
        (132.0, []),
        (133.0, ["often"]),
        (162.0, ["often", "seldom"]),
    ]
