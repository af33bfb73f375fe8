"""Kernel tables: text in, packed, looked up by bisection."""

import pytest

from aggregator.symbols.errors import RefusedExtractError
from aggregator.symbols.table import Table, pack

TEXT = b"0 _stext\n40 do_one\n40 alias_of_do_one\n1000 sch\xc3\xa9dule\n2000 last\n"


@pytest.mark.parametrize(
    ("offset", "name"),
    [
        (0, "_stext"),
        (0x3F, "_stext"),
        (0x40, "do_one"),
        (0xFFF, "do_one"),
        (0x1000, "schédule"),
        (0x2000, "last"),
        (0x2000 + (1 << 20) - 1, "last"),
        (0x2000 + (1 << 20), None),
        (1 << 63, None),
    ],
)
def test_an_offset_belongs_to_the_symbol_before_it(offset: int, name: str | None) -> None:
    assert Table(pack(TEXT)).lookup(offset) == name


def test_offsets_before_the_first_symbol_have_no_name() -> None:
    table = Table(pack(b"10 first\n"))
    assert (table.lookup(0xF), table.lookup(0x10)) == (None, "first")


def test_unsorted_lines_are_sorted() -> None:
    assert Table(pack(b"20 b\n10 a\n")).lookup(0x15) == "a"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "no symbol"),
        (b"\n\n", "no symbol"),
        (b"10\n", "line 1 has no name"),
        (b"10 a\nzz b\n", "line 2 is not"),
        (b"10 \xff\xfe\n", "line 1 is not"),
        (b"-1 a\n", "out of range"),
        (b"8000000000000000 a\n", "out of range"),
        (b"\n" * 2_000_001, "at most 2000000"),
    ],
)
def test_other_text_is_refused_in_words(text: bytes, words: str) -> None:
    with pytest.raises(RefusedExtractError, match=words):
        pack(text)


@pytest.mark.parametrize("cut", [0, 3, 11, 12, 40])
def test_a_damaged_packed_table_is_refused(cut: int) -> None:
    with pytest.raises(RefusedExtractError, match="damaged"):
        Table(pack(TEXT)[:cut])
