import pytest

from node_agent.spool.entries import (
    BatchEntry,
    ExtractEntry,
    Stored,
    choose_doomed,
    order,
    parse_batch_name,
    parse_extract_name,
)

RUN = "0123456789abcdef" * 2


def test_batch_names_round_trip():
    entry = BatchEntry(RUN, 42)
    assert entry.stem == f"{RUN}-000000000042"
    assert parse_batch_name(entry.stem + ".batch") == entry
    assert parse_batch_name(entry.stem + ".defs") == entry
    long = BatchEntry(RUN, 10**15)
    assert parse_batch_name(long.stem + ".batch") == long


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x",
        ".batch",
        f"{RUN}.batch",
        f"{RUN}-1.batch",
        f"{RUN}-00000000000x.batch",
        f"{RUN}-" + "\u0660" * 12 + ".batch",
        f"{RUN.upper()}-000000000001.batch",
        f"{RUN[1:]}-000000000001.batch",
        f"{RUN}-000000000001.tmp",
        f"{RUN}--00000000001.batch",
    ],
)
def test_other_names_are_no_batches(name):
    assert parse_batch_name(name) is None


def test_extract_names():
    entry = ExtractEntry("ab" * 20, 2)
    assert parse_extract_name(entry.stem + ".extract") == entry
    for name in ("-1.extract", "ab.extract", "zz-1.extract", "ab-x.extract", "ab-1.defs"):
        assert parse_extract_name(name) is None


def test_order_is_by_run_start_and_then_sequence():
    old, new = "f" * 32, "0" * 32
    entries = [BatchEntry(new, 1), BatchEntry(old, 10), BatchEntry(old, 9)]
    assert order(entries, {old: 100.0, new: 200.0}) == [
        BatchEntry(old, 9),
        BatchEntry(old, 10),
        BatchEntry(new, 1),
    ]


def file(name: str, modified_s: float, size: int = 10, folder: str = "batches") -> Stored:
    return Stored(folder, name, modified_s, size)


@pytest.mark.parametrize(
    ("files", "limit_bytes", "doomed"),
    [
        ([], 0, []),
        ([file("a.batch", 90)], 10, []),
        ([file("a.batch", 90), file("b.batch", 91)], 19, [("a.batch", "spool_full")]),
        # Definitions share the fate of their batch, and their bytes count.
        (
            [file("a.defs", 89), file("a.batch", 90), file("b.batch", 91)],
            20,
            [("a.defs", "spool_full"), ("a.batch", "spool_full")],
        ),
        # A file of the same stem in another folder is another thing.
        (
            [file("a.batch", 90), file("a.batch", 95, folder="refused")],
            10,
            [("a.batch", "spool_full")],
        ),
        ([file("a.batch", 9), file("b.batch", 91)], 100, [("a.batch", "spool_age")]),
        ([file("a.batch", 9), file("b.batch", 91)], 10, [("a.batch", "spool_age")]),
        (
            [file("c.batch", 92), file("a.batch", 90), file("b.batch", 91)],
            10,
            [("a.batch", "spool_full"), ("b.batch", "spool_full")],
        ),
        # Equal times: the name (the sequence) decides.
        ([file("b.batch", 90), file("a.batch", 90)], 10, [("a.batch", "spool_full")]),
        ([file("a.batch", 90)], 9, [("a.batch", "spool_full")]),
        ([file("future.batch", 500)], 10, []),
    ],
)
def test_the_oldest_go_first(files, limit_bytes, doomed):
    found = choose_doomed(files, limit_bytes, limit_age_s=90, now_s=100)
    assert [(one.file.name, one.reason) for one in found] == doomed
