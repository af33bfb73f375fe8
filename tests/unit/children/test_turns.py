"""Ranks come first, equals share the CPU time, and nobody saves up turns."""

from node_agent.children.turns import Turns

BOTH = [(1, "rows"), (1, "symbols")]


def take(
    turns: Turns, waiting: list[tuple[int, str]], costs: dict[str, float], n: int
) -> list[str]:
    taken = []
    for _ in range(n):
        name = turns.next(waiting)
        turns.pay(name, costs[name])
        taken.append(name)
    return taken


def test_the_lowest_rank_comes_first_whatever_it_has_used() -> None:
    turns = Turns()
    turns.pay("python", 100.0)
    assert turns.next([(0, "python"), *BOTH]) == "python"


def test_equals_share_the_time_and_not_the_turns() -> None:
    taken = take(Turns(), BOTH, {"rows": 0.3, "symbols": 0.1}, 40)
    assert taken.count("symbols") == 3 * taken.count("rows")


def test_who_did_not_wait_has_not_saved_up_turns() -> None:
    turns = Turns()
    take(turns, BOTH[:1], {"rows": 1.0}, 50)
    taken = take(turns, BOTH, {"rows": 1.0, "symbols": 1.0}, 10)
    assert taken.count("rows") == taken.count("symbols")
