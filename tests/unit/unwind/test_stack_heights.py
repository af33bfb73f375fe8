"""Heights of the stack that are followed through instructions, against what .eh_frame says."""

import os
import re
import subprocess
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from node_agent.unwind.image import open_image
from node_agent.unwind.instructions import Effect, decode
from node_agent.unwind.rules import END, GAP, SIGNAL, Rule, word
from node_agent.unwind.stack_heights import follow

CODE_BYTES = 160 << 10
TOP = word(Rule.CFA_RSP, 1)
CODES = {
    "a leaf": ("31 c0 c3", [(0, TOP)]),
    "pushes and pops": (
        "55 53 48 83 ec 18 31 c0 48 83 c4 18 5b 5d c3",
        [(0, (1, 0)), (1, (2, -2)), (2, (3, -2)), (6, (6, -2)), (12, (3, -2)), (13, (2, -2)),
         (14, (1, 0))],
    ),
    "a frame pointer": (
        "55 48 89 e5 48 83 ec 20 31 c0 c9 c3",
        [(0, TOP), (1, (2, -2)), (4, word(Rule.CFA_RBP, 2, -2)), (11, TOP)],
    ),
    "a jump over a return": (
        "53 85 ff 74 02 5b c3 31 c0 5b c3",
        [(0, TOP), (1, (2, 0)), (6, TOP), (7, (2, 0)), (10, TOP)],
    ),
    "lea and large constants": (
        "48 8d 64 24 f8 48 81 ec 00 10 00 00 90 48 8d a4 24 08 10 00 00 c3",
        [(0, TOP), (5, (2, 0)), (12, (514, 0)), (21, TOP)],
    ),
    "the outermost frame": ("31 ed 48 89 e7 e8 00 00 00 01 f4", [(0, TOP), (2, END)]),
    "rbp as a plain register, saved first": ("55 31 ed 5d c3", [(0, TOP), (1, (2, -2)), (4, TOP)]),
    "a height that nobody can tell": ("48 29 c4 31 c0 c3", [(0, TOP), (3, GAP)]),
    "the return from a signal": ("90 48 c7 c0 0f 00 00 00 0f 05", [(0, SIGNAL)]),
    "no instruction": ("06 06", [(0, GAP)]),
}  # fmt: skip


@pytest.mark.parametrize("name", CODES)
def test_rows_of_code(name: str) -> None:
    text, expected = CODES[name]
    rows = follow(bytes.fromhex(text), 0x1000, [0x1000], 0)
    words = [w if isinstance(w, int) else word(Rule.CFA_RSP, *w) for _, w in expected]
    pcs = [0x1000 + at for at, _ in expected]
    assert rows == [pc | w for pc, w in zip(pcs, words, strict=True)]


def test_the_entry_point_is_the_outermost_frame() -> None:
    assert follow(bytes.fromhex("48 89 e7 ff d0 f4"), 0x1000, [], 0x1000) == [0x1000 | END]


def _code(path: Path) -> tuple[bytes, int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        image = open_image(lambda at, length: os.pread(descriptor, length, at), size, False)
        text = next(section for section in image.elf_sections if section.name == ".text")
        return os.pread(descriptor, text.size, text.offset), text.addr
    finally:
        os.close(descriptor)


def test_instructions_have_the_lengths_that_objdump_shows(libc: Path) -> None:
    code, address = _code(libc)
    limit = address + CODE_BYTES
    command = ["objdump", "-d", "--no-show-raw-insn", "-j", ".text", f"--stop-address={limit}"]
    text = subprocess.run([*command, libc], check=True, capture_output=True, text=True).stdout
    lines = re.findall(r"^ *([0-9a-f]+):\t(.*)", text, re.M)
    compared = 0
    for (start, words), (end, _) in pairwise(lines):
        found = decode(code, int(start, 16) - address)
        assert found is not None and found.size == int(end, 16) - int(start, 16), words
        compared += 1
        if words.startswith("ret"):
            assert found.effect is Effect.END
    assert compared > 20_000


def test_most_of_libc_has_the_heights_that_eh_frame_says(
    libc: Path, rows_of: Callable[[Path], Any]
) -> None:
    code, address = _code(libc)
    code = code[:CODE_BYTES]
    symbols = subprocess.run(
        ["nm", "-D", "--defined-only", libc], check=True, capture_output=True, text=True
    ).stdout
    starts = [int(match, 16) for match in re.findall(r"^([0-9a-f]+) [TWi] ", symbols, re.M)]
    rows = follow(code, address, starts, 0)
    pcs = [row & 0xFFFFFFFF for row in rows]
    table = rows_of(libc)
    same = compared = 0
    for at in _instructions(code):
        expected = table.at(address + at)
        if expected is None or expected[0] not in (Rule.CFA_RSP, Rule.CFA_RBP):
            continue
        found = rows[bisect_right(pcs, address + at) - 1]
        same += found >> 32 == word(expected[0], expected[1] // 8, expected[2] // 8) >> 32
        compared += 1
    assert compared > 20_000
    assert same / compared > 0.95


def _instructions(code: bytes) -> Iterator[int]:
    at = 0
    while at < len(code):
        found = decode(code, at)
        size = found.size if found is not None else 1
        yield at
        at += size
