"""Parsers of symbols on damaged input: they refuse in their own words or answer, nothing else.

The corpus is in tests/data/fuzz, a folder a parser (its README says how each file was made). A
failing case is found again by its seed, which the assertion names.
"""

import random
import resource
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from zlib import crc32

import pydemumble
import pytest

from aggregator.symbols import elf, minidebug, native, table
from aggregator.symbols.errors import RefusedExtractError
from aggregator.symbols.sandbox import MOST_MEMORY_BYTES, Request, parse
from node_agent.symbols import kallsyms, kernel_table
from node_agent.symbols.build_ids import read_build_id
from node_agent.symbols.errors import SymbolError
from node_agent.symbols.functions import read_functions
from node_agent.symbols.reduced_elf import reduce_elf
from wire.codec import encode
from wire.function_names import readable, shorten_cpp
from wire.gopclntab import GoTable, GoTableError
from wire.rust_v0 import demangle_v0
from wire.schema import ModuleKind, SymbolExtract

CORPUS = Path(__file__).parents[1] / "data" / "fuzz"
OFFSETS = (0, 0x100, 0x140, 0x1000, 1 << 40, (1 << 64) - 1)
NUMBERS = (0, 1, 0x7F, 0xFF, 0x100, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 64) - 1)
SHORT, LONG = 1_000, 100_000
SLOW = 4  # so many times fewer of what goes through native code


def damage(seed: bytes, chance: random.Random) -> bytes:
    """A copy of `seed` with one to four changes of the kinds that parsers mind."""
    data = bytearray(seed)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data)) if data else 0
        kind = chance.randrange(7)
        if kind == 0 and data:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1 and data:
            data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            width = chance.choice((2, 4, 8))
            number = chance.choice(NUMBERS) & ((1 << 8 * width) - 1)
            data[at : at + width] = number.to_bytes(width, "little")
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            del data[at : at + chance.randint(1, 64)]
        elif kind == 5:
            start = chance.randrange(len(data)) if data else 0
            data[at:at] = data[start : start + chance.randint(1, 64)]
        else:
            start = chance.randrange(len(data)) if data else 0
            data[at : at + 16] = data[start : start + 16]
    return bytes(data)


def inputs(parser: str, count: int) -> Iterator[tuple[str, bytes]]:
    """`count` damaged inputs from the corpus, and the corpus itself, each with its name."""
    files = sorted((CORPUS / parser).iterdir())
    assert files, f"no corpus for {parser}"
    for path in files:
        yield path.name, path.read_bytes()
    for number in range(count):
        path = files[number % len(files)]
        name = f"{parser}/{path.name}#{number}"
        yield name, damage(path.read_bytes(), random.Random(crc32(name.encode())))


def read_elf_on_the_node(data: bytes) -> None:
    def read(offset: int, size: int) -> bytes:
        assert offset >= 0 and 0 <= size <= 1 << 30
        return data[offset : offset + size]

    assert 1 <= len(read_build_id(read, len(data))) <= 64
    for work in (
        lambda: read_functions(read, len(data)).lines_at(OFFSETS),
        lambda: reduce_elf(read, len(data), 1 << 20),
    ):
        try:
            work()
        except SymbolError as error:
            assert str(error)


def read_elf_at_the_centre(data: bytes) -> None:
    for work in (elf.load_segments, elf.noted_build_id, elf.build_id, elf.sections):
        try:
            work(data)
        except RefusedExtractError as error:
            assert str(error)
    try:
        found = native.lookup(native.store_symbols(data)[0], OFFSETS)
        assert all(len(place) <= 64 for place in found)
    except RefusedExtractError as error:
        assert str(error)


def read_go_table(data: bytes) -> None:
    try:
        opened = GoTable(data, 0x1000, len(data) - 16)
    except GoTableError as error:
        assert str(error)
        return
    for address in range(0xFF0, 0x1090, 4):
        try:
            assert len(opened.lookup(address)) <= 65
        except GoTableError as error:
            assert str(error)


def read_minimal_debug_data(data: bytes) -> None:
    try:
        assert len(minidebug.unpack(data)) <= minidebug.MOST_BYTES
    except RefusedExtractError as error:
        assert str(error)


def read_kallsyms(data: bytes) -> None:
    middle = len(data) // 2
    text = data.decode("utf-8", "replace")
    for work in (
        lambda: kallsyms.read_ranges([data[:middle], data[middle:]]),
        lambda: kernel_table.encode_table(kernel_table.kernel_table(data)),
        lambda: kernel_table.module_table(data, "overlay", 0xFFFFFFFFC0000000, 0x25000),
        lambda: kallsyms.parse_modules(text),
    ):
        try:
            work()
        except SymbolError as error:
            assert str(error)


def read_kernel_table(data: bytes) -> None:
    for work in (lambda: table.Table(table.pack(data)), lambda: table.Table(data)):
        try:
            opened = work()
        except RefusedExtractError as error:
            assert str(error)
            continue
        for offset in OFFSETS:
            opened.lookup(offset)


def read_names(data: bytes) -> None:
    for line in data.decode("utf-8", "replace").split("\n"):
        assert isinstance(readable(line, lambda name: pydemumble.demangle(name) or None), str)
        assert isinstance(shorten_cpp(line), str)
        assert demangle_v0(line) is None or len(demangle_v0(line) or "") <= 2_000


PARSERS: dict[str, tuple[str, Callable[[bytes], None]]] = {
    "elf on the node": ("elf", read_elf_on_the_node),
    "gopclntab": ("gopclntab", read_go_table),
    "minidebug": ("minidebug", read_minimal_debug_data),
    "kallsyms": ("kallsyms", read_kallsyms),
    "kernel table": ("kernel_table", read_kernel_table),
    "names": ("names", read_names),
}


def run(name: str, count: int) -> None:
    folder, parser = PARSERS[name]
    for case, data in inputs(folder, count):
        try:
            parser(data)
        except Exception as error:
            raise AssertionError(f"{case}: {data[:200].hex()}") from error


def run_at_the_centre(count: int) -> None:
    """Native code reads there. It may end its process, which has to be the sandbox's child."""
    done = 0
    total = count + len(list((CORPUS / "elf").iterdir()))
    while done < total:
        child = subprocess.run(
            [sys.executable, __file__, str(done), str(count)],
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(Path(__file__).parents[2])},
            check=False,
        )
        assert child.returncode <= 0, child.stderr
        done += child.stdout.count("done")
        if child.returncode < 0:
            case, data = next(islice(inputs("elf", count), done, None))
            extract = SymbolExtract("node", ModuleKind.NATIVE, b"\1", "module", data)
            request = Request(ModuleKind.NATIVE, b"\1", encode(extract), False, list(OFFSETS))
            with pytest.raises(RefusedExtractError):
                parse(request)
            print(f"{case} ended its parser")
            done += 1


def main() -> None:
    """The child: from which case on, of how many. Says after each that it is done."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    start, count = map(int, sys.argv[1:])
    for _, data in islice(inputs("elf", count), start, None):
        read_elf_at_the_centre(data)
        print("done", flush=True)


@pytest.mark.parametrize("name", PARSERS)
def test_damaged_input_is_refused_or_read(name: str) -> None:
    run(name, SHORT)


def test_damaged_files_are_refused_or_read_at_the_centre() -> None:
    run_at_the_centre(SHORT // SLOW)


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_many_damaged_files_are_refused_or_read_at_the_centre() -> None:
    run_at_the_centre(LONG // SLOW)


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("name", PARSERS)
def test_much_damaged_input_is_refused_or_read(name: str) -> None:
    run(name, LONG)


def test_a_go_table_that_goes_round_in_circles_ends() -> None:
    good = (CORPUS / "gopclntab/go120").read_bytes()
    inlined = struct.unpack_from("<Iiii", good, len(good) - 16)
    # the inlined function's caller is itself
    looped = good[:-16] + struct.pack("<Iiii", *inlined[:2], 20, inlined[3])
    assert GoTable(good, 0, len(good) - 16).lookup(0x1014)[0].function == "main.inner"
    with pytest.raises(GoTableError, match="inlined into each other"):
        GoTable(looped, 0, len(good) - 16).lookup(0x1014)


def test_a_go_table_of_a_million_steps_is_given_up() -> None:
    good = (CORPUS / "gopclntab/go120").read_bytes()
    values = struct.unpack_from("<8Q", good, 8)[6]
    endless = bytearray(good) + b"\x02\x01" * 1_000_000
    endless[8 + 6 * 8 : 8 + 7 * 8] = (len(good) - 1).to_bytes(8, "little")
    opened = GoTable(bytes(endless), 0, None)
    with pytest.raises(GoTableError):
        opened.lookup(0x107F)
    assert values < len(good)


@pytest.mark.parametrize(
    "text",
    [
        "<" * 10_000,
        "(" * 10_000,
        "'lambda'(" * 1_000,
        "operator(" * 1_000,
        "> " * 5_000,
        "decltype(",
    ],
    ids=lambda text: text[:9],
)
def test_names_of_hostile_depth_are_read(text: str) -> None:
    assert shorten_cpp(text)


@pytest.mark.parametrize(
    "symbol",
    ["_R" + "INvC1a1b" * 1_000, "_RNvB_" * 1_000, "_RC" + "9" * 5_000],
    ids=lambda symbol: symbol[:9],
)
def test_symbols_of_hostile_depth_are_left_alone(symbol: str) -> None:
    assert demangle_v0(symbol) is None


if __name__ == "__main__":
    main()
