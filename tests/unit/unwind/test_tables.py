"""Who has room for rows: the busiest win, equals don't take turns, nobody's rows leave in time."""

from node_agent.unwind.arena import Extent
from node_agent.unwind.spaces import Kind, Place
from node_agent.unwind.tables import KEPT_UNUSED, RowTable

GRACE_S = 2.0


def make(max_rows: int, **rows: int) -> RowTable:
    """A table in which modules a, b, ... (named by their letter) are used and have asked."""
    table = RowTable(max_rows, GRACE_S, shard=10)
    for name, count in rows.items():
        table.use([ord(name)])
        put(table, name, count)
    return table


def put(table: RowTable, name: str, count: int) -> Extent | None:
    extent = table.allocate(ord(name), count)
    if extent is not None:
        table.settle(ord(name), Place(extent, 0, ()))
    return extent


def credit(table: RowTable, **samples: int) -> None:
    table.credit({ord(name): count for name, count in samples.items()})


def compete(table: RowTable) -> str:
    """The letters of those that gave way, their room retired and free again."""
    leaving = table.compete()
    for _, extent in leaving:
        table.arena.retire(extent, 0.0)
    table.arena.reclaim(GRACE_S)
    return "".join(sorted(chr(module) for module, _ in leaving))


def test_a_module_is_wanted_until_it_was_asked_for_and_the_busiest_first() -> None:
    table = RowTable(100, GRACE_S)
    table.use(map(ord, "abc"))
    credit(table, b=5, c=9)
    assert table.wanted() == [ord("c"), ord("b"), ord("a")]
    table.asked(ord("b"))
    assert table.wanted() == [ord("c"), ord("a")]
    assert table.look(ord("b")) is Kind.PENDING
    table.settle(ord("b"), Kind.NO_ROWS)
    table.release([ord("a")])
    assert table.wanted() == [ord("c")]
    assert table.look(ord("b")) is Kind.NO_ROWS
    assert table.kinds() == {"pending": 2, "no_rows": 1}


def test_a_file_out_of_reach_is_asked_for_again_with_the_next_process() -> None:
    table = make(100, a=0)
    assert table.look(ord("a")) is Kind.NO_ROWS
    table.use([ord("a")])
    assert table.wanted() == [ord("a")]


def test_what_does_not_fit_has_no_room_and_what_is_empty_no_rows() -> None:
    table = make(100, a=60, b=50, c=0)
    assert table.look(ord("a")) == Place(Extent(0, 60), 0, ())
    assert table.look(ord("b")) is Kind.NO_ROOM
    assert table.look(ord("c")) is Kind.NO_ROWS
    assert table.wanted() == []
    assert table.kinds() == {"loaded": 1, "no_room": 1, "no_rows": 1}


def test_the_busier_takes_the_room_of_those_sampled_less_than_half() -> None:
    table = make(100, a=40, b=40, c=50)
    credit(table, a=100, b=30, c=70)
    assert compete(table) == "b"
    assert table.look(ord("b")) is Kind.NO_ROOM
    assert table.look(ord("c")) is Kind.PENDING
    assert table.wanted() == [ord("c")]
    assert put(table, "c", 50) == Extent(40, 50)


def test_equals_do_not_take_turns() -> None:
    table = make(100, a=60, b=60)
    for _ in range(5):
        credit(table, a=50, b=70)
        assert compete(table) == ""
    assert table.look(ord("b")) is Kind.NO_ROOM


def test_only_as_many_give_way_as_must() -> None:
    table = make(100, a=20, b=20, c=20, d=20, e=20, f=25)
    credit(table, a=1, b=100, c=2, d=3, e=100, f=90)
    # a is the least sampled, but only c and d lie side by side
    assert compete(table) == "cd"
    assert put(table, "f", 25) == Extent(40, 25)


def test_nobody_gives_way_in_vain() -> None:
    table = make(100, a=40, b=20, c=40, d=50)
    credit(table, a=1, b=100, c=1, d=90)  # a and c are apart
    assert compete(table) == ""
    assert isinstance(table.look(ord("a")), Place)


def test_what_is_larger_than_everything_never_competes() -> None:
    table = make(100, a=40, b=101)
    credit(table, a=1, b=90)
    assert compete(table) == ""
    assert table.look(ord("b")) is Kind.NO_ROOM


def test_a_module_that_nobody_uses_any_more_gives_way_first() -> None:
    table = make(100, a=50, b=50, c=50)
    credit(table, a=60, b=1, c=4)
    table.release([ord("a")])
    assert compete(table) == "a"
    assert table.look(ord("a")) is Kind.PENDING  # not known any more
    assert table.kinds() == {"loaded": 1, "pending": 1}


def test_unused_rows_stay_for_a_while() -> None:
    table = make(100, a=50)
    table.release([ord("a")])
    for _ in range(KEPT_UNUSED):
        credit(table)
        assert compete(table) == ""
    credit(table)
    assert compete(table) == "a"
    assert len(table) == 0
    assert table.arena.used == 0


def test_freed_room_is_taken_without_a_contest() -> None:
    table = make(100, a=60, b=60)
    credit(table, a=10, b=10)
    table.release([ord("a")])
    for _ in range(KEPT_UNUSED + 1):
        credit(table, b=10)
    assert compete(table) == "a"
    credit(table, b=10)
    assert compete(table) == ""
    assert table.wanted() == [ord("b")]


def test_scores_fade() -> None:
    table = make(100, a=60, b=60)
    credit(table, a=1000)
    credits_needed = 0
    while compete(table) == "":
        credit(table, b=30)
        credits_needed += 1
    assert 3 < credits_needed < 10
