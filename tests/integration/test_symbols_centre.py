"""Symbols end to end at the centre: asked of one node, sent by HTTP, read by the worker's job."""

import asyncio
import ctypes.util
import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import zstandard

from aggregator.app_keys import INGEST
from aggregator.ingest import directives
from aggregator.symbols import symbolize, tasks
from aggregator.symbols.service import MOST_ASKED
from aggregator.symbols.symbolize import symbolize_module
from aggregator.symbols.tasks import symbolize_pending
from node_agent.symbols.build_ids import read_build_id
from node_agent.symbols.extract import encode_extract
from wire.codec import encode
from wire.limits import MAX_EXTRACT_DECODED_BYTES
from wire.schema import Module, ModuleKind, Name, SymbolDirective, SymbolExtract

KERNEL = Module(ModuleKind.KERNEL, b"\xee" * 20, "vmlinux")
TABLE = b"0 _stext\n40 do_syscall_64\n1000 schedule\n"

C_SOURCE = """
__attribute__((noinline)) int hot_loop(int n) { volatile int s = 0; while (n--) s += n; return s; }
int main(void) { return hot_loop(1000); }
"""
CPP_SOURCE = """
namespace shop { struct Cart { __attribute__((noinline)) int total(int n) const {
  volatile int s = 0; while (n--) s += n; return s; } }; }
int main() { return shop::Cart().total(1000); }
"""
RUST_SOURCE = """
mod till { #[inline(never)] pub fn burn(n: u64) -> u64 {
  (0..n).fold(0, |s, i| s ^ unsafe { std::ptr::read_volatile(&i) }) } }
fn main() { println!("{}", till::burn(10)); }
"""


def native(build_id: bytes) -> Module:
    return Module(ModuleKind.NATIVE, build_id, "demo")


def file_offset(elf: Path, part: str, *nm_flags: str) -> int:
    """Where binutils says that the code of the symbol with `part` in its name is in the file."""
    argv = ["nm", "--defined-only", *nm_flags, str(elf)]
    lines = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()
    address = next(int(line.split()[0], 16) for line in lines if part in line.split()[-1])
    argv = ["objdump", "-h", "--wide", "--section=.text", str(elf)]
    listing = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    row = next(line.split() for line in listing.splitlines() if " .text " in line)
    return address - int(row[3], 16) + int(row[5], 16)


def build_id_of(elf: Path) -> bytes:
    with elf.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return read_build_id(lambda at, length: os.pread(file.fileno(), length, at), size)


def extract_of(node: str, elf: Path, module: Module) -> bytes:
    """The message that the agent makes of a file."""
    request = {
        "node": node,
        "module_kind": module.kind,
        "build_id": module.id.hex(),
        "name": module.name,
    }
    with elf.open("rb") as file:
        return encode_extract(request, file.fileno())


@pytest.fixture
def report(node: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """report(frames): node web-1 reports a stack of these frames; the directives that it gets."""
    monkeypatch.setattr(directives, "ASK_EVERY_S", 0.0)

    async def send(*frames: tuple[Module, Any], by: Any = None) -> list[SymbolDirective]:
        reporter = by or node
        # A stack that is defined already would not tell that this node has the modules too.
        stack = ((Module(ModuleKind.NAMED, b"node", "node"), Name(reporter.name)), *frames)
        first = await reporter.send(reporter.batch({stack: 1}))
        await reporter.define([stack])
        second = await reporter.send(reporter.batch({stack: 1}))
        return [*first.directives, *second.directives]

    return send


@pytest.fixture
def work(database: Any, centre_config: Any) -> Callable[[], Awaitable[int]]:
    """Runs the worker's job once, beside the aggregator's loop."""
    return lambda: asyncio.to_thread(symbolize_pending, database, centre_config)


@pytest.fixture
def functions(rows: Any) -> Callable[[], dict[int, Any]]:
    """Function by offset, of the resolved frames."""
    return lambda: dict(
        rows(
            'SELECT f."offset", f.function FROM frames f JOIN modules m ON m.id = f.module_id '
            "WHERE f.resolved AND m.kind <> 3"
        )
    )


def kernel_extract(node: str, **changes: Any) -> SymbolExtract:
    fields = {
        "node": node,
        "module_kind": KERNEL.kind,
        "build_id": KERNEL.id,
        "name": KERNEL.name,
        "data": TABLE,
    }
    return SymbolExtract(**{**fields, **changes})


async def test_symbols_are_asked_of_one_node_and_named_ones_never(report, node, new_node):
    frames = [(KERNEL, 0x44), (native(b"\1" * 20), 4096), (Module(3, b"[unknown]", "x"), Name("f"))]
    asked = [(each.module_kind, each.build_id) for each in await report(*frames)]
    assert asked == [(KERNEL.kind, KERNEL.id), (ModuleKind.NATIVE, b"\1" * 20)]
    assert await report(*frames) == []
    assert await report(*frames, by=new_node("web-2")) == []


async def test_at_most_sixteen_modules_are_asked_for_at_once(report):
    frames = [(native(bytes([number]) * 20), 4096) for number in range(1, 38)]
    counts = [len(await report(*frames)) for _ in range(3)]
    assert counts == [16, 21, 0]  # two batches in each round


async def test_a_silent_node_is_asked_again_after_five_minutes(report, rows):
    assert len(await report((KERNEL, 1))) == 1
    rows("UPDATE runs SET started_at = now() - interval '1 hour'")
    rows("UPDATE modules SET requested_at = now() - interval '4 minutes 50 seconds'")
    assert await report((KERNEL, 1)) == []
    rows("UPDATE modules SET requested_at = now() - interval '5 minutes 1 second'")
    assert len(await report((KERNEL, 1))) == 1


async def test_a_node_that_started_anew_is_asked_again_at_once(report, node, new_node):
    other = new_node("web-2")
    assert len(await report((KERNEL, 1))) == 1
    await report((KERNEL, 1), by=other)
    other.run, other.sequence = uuid4().bytes, 0
    assert await report((KERNEL, 1), by=other) == []  # it was not asked

    node.run, node.sequence = uuid4().bytes, 0

    assert len(await report((KERNEL, 1))) == 1
    assert await report((KERNEL, 1)) == []


async def test_kernel_frames_get_names_also_those_that_come_later(report, node, work, functions):
    await report((KERNEL, 0x44), (KERNEL, 1 << 40))
    assert await work() == 0
    async with await node.post("/api/v1/symbols", kernel_extract(node.name)) as response:
        assert response.status == 204
    assert await work() == 2
    assert functions() == {0x44: "do_syscall_64", 1 << 40: None}
    await report((KERNEL, 0x1001))
    assert await work() == 1
    assert functions()[0x1001] == "schedule"
    assert await work() == 0


async def test_frames_are_named_in_several_passes(report, node, work, functions, monkeypatch):
    monkeypatch.setattr(symbolize, "FRAMES_AT_ONCE", 3)
    await report(*((KERNEL, 0x1000 + number) for number in range(8)))
    await node.post("/api/v1/symbols", kernel_extract(node.name))
    assert await work() == 8
    assert set(functions().values()) == {"schedule"}


async def test_offsets_beyond_a_signed_bigint_are_looked_up(report, node, work, functions):
    await report((KERNEL, (1 << 64) - 8))
    await node.post("/api/v1/symbols", kernel_extract(node.name))
    assert await work() == 1
    assert functions() == {-8: None}


@pytest.mark.parametrize(
    ("source", "suffix", "compiler", "symbol", "function"),
    [
        (C_SOURCE, ".c", ("gcc", "-O1"), "hot_loop", "hot_loop"),
        (CPP_SOURCE, ".cpp", ("g++", "-O1"), "total", "shop::Cart::total"),
        (CPP_SOURCE, ".cpp", ("g++", "-O1", "-no-pie"), "total", "shop::Cart::total"),
        (RUST_SOURCE, ".rs", ("rustc", "-O"), "4till4burn", "demo::till::burn"),
        (
            RUST_SOURCE,
            ".rs",
            ("rustc", "-O", "-Csymbol-mangling-version=v0"),
            "4till4burn",
            "demo::till::burn",
        ),
    ],
    ids=["c", "c++", "c++-no-pie", "rust", "rust-v0"],
)
async def test_an_agents_extract_of_a_compiled_program_names_its_frames(
    tmp_path, report, node, work, functions, source, suffix, compiler, symbol, function
):
    elf, code = tmp_path / "demo", tmp_path / f"demo{suffix}"
    code.write_text(source)
    subprocess.run([*compiler, "-o", str(elf), str(code)], check=True, cwd=tmp_path)
    module = native(build_id_of(elf))
    place = file_offset(elf, symbol) + 1

    (directive,) = await report((module, place), (module, 1))
    assert (directive.module_kind, directive.build_id) == (module.kind, module.id)
    async with await node.post("/api/v1/symbols", extract_of(node.name, elf, module)) as response:
        assert response.status == 204
    assert await work() == 2
    assert functions() == {place: function, 1: None}


async def test_the_stripped_libc_of_this_machine_names_its_frames(report, node, work, functions):
    name = ctypes.util.find_library("c")
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    [elf] = [Path(path) for path in mapped if path.endswith(f"/{name}")]
    module = native(build_id_of(elf))
    place = file_offset(elf, "qsort_r@", "-D")

    await report((module, place + 3))
    await node.post("/api/v1/symbols", extract_of(node.name, elf, module))
    assert await work() == 1
    assert functions() == {place + 3: "qsort_r"}


@pytest.mark.parametrize(
    ("module", "data", "reason"),
    [
        (native(b"\1" * 20), b"\x7fELF" + bytes(1000), "64-bit"),
        (native(b"\1" * 20), os.urandom(5000), "not an ELF file"),
        (KERNEL, b"not a table at all", "line 1"),
        (KERNEL, b"0 a\n" * 3_000_000, "at most 2000000"),
    ],
    ids=["empty-elf", "noise", "text", "endless-table"],
)
async def test_hostile_extracts_are_refused_and_the_worker_goes_on(
    report, node, rows, work, functions, module, data, reason
):
    await report((module, 5), (Module(ModuleKind.KERNEL, b"\2" * 20, "other"), 5))
    extract = SymbolExtract(node.name, module.kind, module.id, module.name, data)
    await node.post("/api/v1/symbols", extract)
    await node.post("/api/v1/symbols", kernel_extract(node.name, build_id=b"\2" * 20))
    assert await work() == 1
    [(state, words)] = rows(
        "SELECT symbol_state, refused_reason FROM modules WHERE build_id = :id", id=module.id
    )
    assert state == "refused"
    assert reason in words
    assert functions() == {5: "_stext"}
    assert rows("SELECT count(*) FROM symbol_files") == [(1,)]


async def test_after_a_refusal_another_node_is_asked_an_hour_later(report, node, new_node, rows):
    await report((KERNEL, 5))
    refusal = kernel_extract(node.name, data=b"", refused="the kernel hides\0its addresses")
    await node.post("/api/v1/symbols", refusal)
    assert rows("SELECT symbol_state, refused_reason FROM modules WHERE kind = 1") == [
        ("refused", "the kernel hides\ufffdits addresses")
    ]
    other = new_node("web-2")
    assert await report((KERNEL, 5), by=other) == []
    rows("UPDATE modules SET requested_at = now() - interval '61 minutes'")
    assert await report((KERNEL, 5)) == []
    assert len(await report((KERNEL, 5), by=other)) == 1


async def test_ready_symbols_are_never_replaced(report, node, new_node, rows, work, functions):
    await report((KERNEL, 5))
    other = new_node("evil-1")
    await report((KERNEL, 5), by=other)
    await node.post("/api/v1/symbols", kernel_extract(node.name))
    forged = kernel_extract("evil-1", data=b"0 forged\n")
    async with await other.post("/api/v1/symbols", forged) as response:
        assert response.status == 204
    await work()
    await other.post("/api/v1/symbols", forged)
    await other.post("/api/v1/symbols", kernel_extract("evil-1", data=b"", refused="spite"))
    await work()
    assert functions() == {5: "_stext"}
    assert rows("SELECT symbol_state FROM modules WHERE kind = 1") == [("ready",)]


async def test_extracts_that_nobody_asked_for_are_refused(report, node, new_node, error_of, rows):
    await report((KERNEL, 5))
    stranger = new_node("web-2")
    stream = zstandard.ZstdCompressor().compressobj(size=MAX_EXTRACT_DECODED_BYTES + 1)
    bomb = (
        b"FF\x01S"
        + stream.compress(bytes(1 << 20))
        + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    )
    cases = [
        (stranger.post("/api/v1/symbols", kernel_extract("web-2")), (422, "extract_unexpected")),
        (stranger.post("/api/v1/symbols", kernel_extract(node.name)), (403, "wrong_node")),
        (
            node.post("/api/v1/symbols", kernel_extract(node.name, build_id=b"\3" * 20)),
            (422, "extract_unexpected"),
        ),
        (
            node.post("/api/v1/symbols", kernel_extract(node.name, module_kind=1 << 62)),
            (422, "extract_unexpected"),
        ),
        (
            node.post("/api/v1/symbols", kernel_extract(node.name, module_kind=-(1 << 63))),
            (422, "extract_unexpected"),
        ),
        (node.post("/api/v1/symbols", b"nonsense"), (400, "malformed")),
        (node.post("/api/v1/symbols", b"FF\x02S"), (415, "unsupported_version")),
        (node.post("/api/v1/symbols", bomb), (413, "too_large")),
        (node.post("/api/v1/symbols", encode(kernel_extract(node.name))[:-7]), (400, "malformed")),
    ]
    for request, expected in cases:
        assert await error_of(request) == expected
    async with node.client.post("/api/v1/symbols", data=b"") as response:
        assert response.status == 401
    assert rows("SELECT count(*) FROM symbol_files") == [(0,)]
    assert rows("SELECT symbol_state FROM modules WHERE kind = 1") == [("requested",)]


async def test_an_extract_of_another_node_than_the_asked_one_is_refused(
    report, node, new_node, error_of, rows, app, work, functions
):
    """Both have the module, and the other one's names must not be taken for it."""
    other = new_node("web-2")
    assert len(await report((KERNEL, 0x44))) == 1
    assert await report((KERNEL, 0x44), by=other) == []
    false = b"0 trusted_name\n"

    for changes in ({"data": false}, {"data": b"", "refused": "I will not"}):
        refused = other.post("/api/v1/symbols", kernel_extract("web-2", **changes))
        assert await error_of(refused) == (422, "extract_unexpected")
    assert rows("SELECT count(*) FROM symbol_files") == [(0,)]
    assert rows("SELECT symbol_state FROM modules WHERE kind = 1") == [("requested",)]
    await app[INGEST].refusals.write()
    counted = "SELECT nodes.name, reason, count::int FROM node_refusals JOIN nodes ON id = node_id"
    assert rows(counted) == [("web-2", "extract_unexpected", 2)]
    async with await node.post("/api/v1/symbols", kernel_extract(node.name)) as response:
        assert response.status == 204
    await work()
    assert "trusted_name" not in functions().values()
    assert functions()


async def test_an_extract_that_comes_after_another_node_was_asked_is_taken(
    report, node, new_node, rows
):
    await report((KERNEL, 0x44))
    rows("UPDATE modules SET requested_at = now() - interval '6 minutes'")
    assert len(await report((KERNEL, 0x44), by=new_node("web-2"))) == 1

    async with await node.post("/api/v1/symbols", kernel_extract(node.name)) as response:
        assert response.status == 204
    assert rows("SELECT count(*) FROM symbol_files") == [(1,)]


async def test_nodes_asked_are_remembered_once_and_not_for_ever(report, new_node, rows):
    nodes = [new_node(f"node-{number}") for number in range(MOST_ASKED + 2)]
    for each in [*nodes, nodes[-1]]:
        assert await report((KERNEL, 0x44), by=each)
        rows("UPDATE modules SET requested_at = now() - interval '6 minutes'")

    [(asked,)] = rows("SELECT asked_of FROM modules WHERE kind = 1")
    names = dict(rows("SELECT id, name FROM nodes"))
    assert [names[node_id] for node_id in asked] == [
        each.name for each in nodes[: -MOST_ASKED - 1 : -1]
    ]


async def test_two_workers_at_once_do_the_work_once(report, node, database, rows):
    await report((KERNEL, 5))
    await node.post("/api/v1/symbols", kernel_extract(node.name))
    [(module_id,)] = rows("SELECT id FROM modules WHERE kind = 1")
    with database.begin() as connection:
        connection.exec_driver_sql(
            f"SELECT pg_advisory_xact_lock({symbolize._LOCK_CLASS}, {module_id})"
        )
        assert await asyncio.to_thread(symbolize_module, database, module_id) is None
    outcome = await asyncio.to_thread(symbolize_module, database, module_id)
    assert outcome is not None
    assert outcome.named == 1


async def test_the_job_leaves_the_rest_for_later_when_its_time_is_up(
    report, node, work, monkeypatch
):
    await report((KERNEL, 5))
    await node.post("/api/v1/symbols", kernel_extract(node.name))
    monkeypatch.setattr(tasks, "BUDGET_S", 0.0)
    assert await work() == 0
    monkeypatch.setattr(tasks, "BUDGET_S", 20.0)
    assert await work() == 1


async def test_a_module_that_fails_keeps_no_other_waiting(report, node, work, functions, rows):
    broken = Module(ModuleKind.KERNEL, b"\2" * 20, "broken")
    await report((broken, 5), (KERNEL, 5))
    await node.post("/api/v1/symbols", kernel_extract(node.name, build_id=b"\2" * 20))
    await node.post("/api/v1/symbols", kernel_extract(node.name))
    rows(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE EXCEPTION 'no'; END $$"
    )
    rows(
        "CREATE TRIGGER fail BEFORE UPDATE ON modules FOR EACH ROW"
        " WHEN (new.name = 'broken') EXECUTE FUNCTION fail()"
    )
    assert await work() == 1
    assert functions() == {5: "_stext"}
