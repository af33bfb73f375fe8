"""The table of a perf map against a plain model of it."""

import random
from pathlib import Path

from node_agent.symbols.perf_map_names import clean_name
from node_agent.symbols.perf_map_table import Entry, PerfMapTable, parse_lines

CORPUS = Path(__file__).parents[2] / "data" / "fuzz" / "perf_map"


def test_lines_of_both_kinds_are_entries_and_others_are_counted() -> None:
    text = (
        b"7f0000001000 20 first\n"
        b"0x00007f0000002000 0x0000000000000270 long Hot.inner(int)\n"
        b"nonsense\n"
        b"7f0000003000 0 empty\n"
        b"7f0000003000 20\n"
        b"7f0000003000 20 \n"
        b"ffffffffffffff00 20 beyond\n"
        b"7f0000003000 fffffffff huge\n"
        b"\n"
    )
    parsed = parse_lines(text, 1_000)
    assert parsed.entries == [
        Entry(0x7F0000001000, 0x7F0000001020, 1_000),
        Entry(0x7F0000002000, 0x7F0000002270, 1_022),
    ]
    assert parsed.bad_lines == 7


def test_a_later_entry_takes_the_place_of_all_that_it_overlaps() -> None:
    table = PerfMapTable()
    assert table.merge([Entry(100, 200, 1), Entry(300, 400, 2), Entry(500, 600, 3)]) == []
    assert table.merge([Entry(150, 350, 4)]) == [100, 300]
    assert table.find(120) is None
    assert table.find(349) == Entry(150, 350, 4)
    assert table.find(350) is None
    assert table.find(599) == Entry(500, 600, 3)
    assert len(table) == 2


def test_the_table_equals_a_plain_model() -> None:
    draw = random.Random(4)
    for _ in range(200):
        table = PerfMapTable()
        model: list[Entry] = []
        for turn in range(draw.randrange(1, 6)):
            batch = []
            for number in range(draw.randrange(1, 30)):
                start = draw.randrange(1, 400)
                batch.append(Entry(start, start + draw.randrange(1, 40), turn * 100 + number))
            removed = table.merge(list(batch))
            gone = []
            for entry in batch:
                overlapped = [o for o in model if o.start < entry.end and entry.start < o.end]
                gone += [o.start for o in overlapped if o.line < turn * 100]
                model = [o for o in model if o not in overlapped] + [entry]
            assert sorted(removed) == sorted(gone)
        for address in range(450):
            found = [e for e in model if e.start <= address < e.end]
            assert table.find(address) == (found[0] if found else None)
        assert len(table) == len(model)


def test_hostile_text_is_only_ever_counted() -> None:
    """The corpus, and each of its files with random bytes changed."""
    draw = random.Random(5)
    files = sorted(CORPUS.iterdir())
    assert len(files) >= 5
    for path in files:
        original = path.read_bytes()
        for _ in range(40):
            text = bytearray(original)
            for _ in range(draw.randrange(0, 8)):
                text[draw.randrange(len(text))] = draw.randrange(256)
            parsed = parse_lines(bytes(text), 0)
            assert len(parsed.entries) + parsed.bad_lines == text.count(b"\n")
            table = PerfMapTable()
            table.merge(parsed.entries)
            for entry in parsed.entries[-1:]:  # nothing is later than the last one
                assert table.find(entry.start) == entry
            for line in bytes(text).split(b"\n"):
                name = clean_name(line.decode("utf-8", "replace"))
                assert name.function
                assert "\0" not in name.function + name.file
                assert 0 <= name.line < 1 << 31
