"""What the sampler itself reads of others: nothing in it raises what is not foreseen.

Everything else is read by children (tests/unit/test_symbols_fuzz.py, tests/unit/unwind). A failing
case is found again by its name, which the assertion has.
"""

import json
import os
import random
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import msgspec
import pytest
import zstandard

from node_agent.collectors.stacks import Decoder, ProcessKey, RawStack, StackEnd
from node_agent.cpython import child as python_child
from node_agent.cpython import programs
from node_agent.cpython.errors import PythonError
from node_agent.cpython.offsets import find_offsets
from node_agent.cpython.records import make_layout, make_process
from node_agent.cpython.structs import PythonNameC
from node_agent.exclusions import ExcludeConfig
from node_agent.kernel.structs import STACK_EVENT_HEADER
from node_agent.normalize import Normalizer
from node_agent.overhead.unit_limits import LimitTeller, parse_unit
from node_agent.processes import mappings
from node_agent.processes.cgroups import parse_cgroup, parse_v2
from node_agent.processes.errors import ProcessError
from node_agent.processes.excluded import is_cgroup_excluded
from node_agent.processes.identity import Identities
from node_agent.processes.mappings import Mapping, parse_maps, read_start_ticks
from node_agent.processes.mounts import parse_view
from node_agent.record import name_children
from node_agent.sampler.definitions import DefinitionBook
from node_agent.sampler.status import parse_shipper_usage, read_shipper_report
from node_agent.shipper.definitions import split_hashes
from node_agent.shipper.orders import pass_on
from node_agent.shipper.policy import parse_retry_after
from node_agent.shipper.short import ShortForms, Unnumbered
from node_agent.spool import Spool, directives
from node_agent.symbols import perf_map_file
from node_agent.symbols.build_ids import read_build_id
from node_agent.symbols.elf import HEADER, SEGMENT, file_reader
from node_agent.symbols.modules import ModuleRegistry
from node_agent.unwind import mapped_image
from node_agent.unwind.child import read_result
from node_agent.unwind.row_file import encode_rows
from node_agent.unwind.rows import CodeSegment, PackedRows
from node_agent.unwind.spaces import (
    Kind,
    Place,
    Segment,
    expand,
    fit,
    pack_parts,
    plan_parts,
    signal_addresses,
    squeeze,
)
from wire.codec import decode
from wire.errors import WireError
from wire.hashes import pack_frame
from wire.schema import Answer, ProfileDirective, SymbolDirective

CORPUS = Path(__file__).parents[1] / "data" / "fuzz"
NUMBERS = (0, 1, 0x7F, 0x80, 0xFFFF, 0x7FFFFFFF, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40)
HUGE = ((1 << 63) - 1, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1)
WORDS = (-1, 1 << 64, 10**30, "9" * 5_000, "1e999", "NaN", "", "-", "0x", "\u0661", "\ud800", None)
SHORT, LONG = 600, 60_000
NUMBER = re.compile(rb"[0-9a-f]{2,}|\d+")
PID = os.getpid()
PROCESS = ProcessKey(PID, read_start_ticks(PID) * 10_000_000, 0)

MAPS = b"""\
55d0c0a00000-55d0c0a28000 r--p 00000000 08:01 1057 /usr/bin/python3.11
55d0c0a28000-55d0c0c00000 r-xp 00028000 08:01 1057 /usr/bin/python3.11
7f0000000000-7f0000021000 rwxp 00000000 00:00 0
7f1000000000-7f1000200000 r-xp 7ffffffffffff000 00:2f 9 /tmp/a b\\012c (deleted)
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0 [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
"""
MOUNTS = b"""\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:50 / /mnt/a\\040b\\011c rw - fuse.sshfs host: rw,user_id=1000
41 22 0:51 / /home/x\ry rw master:2 - fuseblk /dev/sdb rw
"""
CGROUPS = b"""\
12:cpu,cpuacct:/system.slice/docker-%s.scope
1:name=systemd:/system.slice/ssh\\x2dd.service
0::/kubepods.slice/cri-containerd-%s.scope/x.service
""" % (b"4e" * 32, b"b7" * 32)
STAT = b"77 (a) b (c)) S 5 " + b" ".join(b"%d" % n for n in range(5, 53)) + b"\n"
STATUS = b"Name:\ta\\nb\rc\nUmask:\t0022\nUid:\t7\t7\t7\t7\nGroups:\t1 2\nNSpid:\t77\t5\n"
ROWS = PackedRows(bytes(64), 8, 0x400000, (CodeSegment(0, 0x400000, 4096),), {"a": 1}, False, (7,))
INTERPRETER = {
    "version": "3.11",
    "runtime": 0x900000,
    "debug_offsets": b"xdebugpy".hex(),
    "evaluator": [[0x1000, 0x9000]],
    "glue": [[0x9000, 0x9100], [1, 2]],
    "segments": [[0, 0x400000, 4096]],
}
NAMED = [[["main", "/a.c", 5], ["caller", "", 0]], [], [["x", "", 1]]]
REPORT = {
    "at": 4e9,
    "pid": 7,
    "usage": {"pid": 7, "cpu_ns": 10**9, "memory_bytes": 1 << 20},
    "unit": {"throttled": 1, "oom_kills": 2, "memory_max_bytes": 1 << 26},
}
ORDERS = (
    {"kind": "symbols", "module_kind": 0, "build_id": "ab" * 20},
    {"kind": "define", "hashes": ["00" * 16, "ff" * 16]},
    {
        "kind": "profile",
        "id": 5,
        "collector": "cpu",
        "rate_hz": 99,
        "seconds": 60,
        "begin_before_s": 1.9e9,
    },
    {"kind": "profile_end", "id": 5},
)
ANSWER = Answer(
    "stored",
    bytes(range(32)),
    [SymbolDirective(0, b"ab"), ProfileDirective(5, "cpu", 99, 60, 30)],
    b"\1\0\0\0" * 2,
    b"\2\0\0\0",
    2,
    1,
)


def vary(seed: bytes, chance: random.Random) -> bytes:
    """A copy of a text or a message with one to four changes."""
    data = bytearray(seed)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(7)
        numbers = list(NUMBER.finditer(data))
        if kind <= 1 and numbers:
            place = chance.choice(numbers)
            number = chance.choice((*NUMBERS, *HUGE))
            words = (b"%d" % number, b"%x" % number, b"-1", b"9" * 5_000, b"", b"1e999")
            data[place.start() : place.end()] = chance.choice(words)
        elif kind == 2:
            data[at : at + 1] = chance.choice(
                (b"\n", b"\r", b" ", b":", b"\0", b"\xff", b'"', b"[")
            )
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            del data[at : at + chance.randint(1, 40)]
        elif kind == 5 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        else:
            data[at:at] = data[: chance.randint(1, 200)]
    return bytes(data)


def vary_json(value: object, chance: random.Random) -> object:
    """A copy of JSON with one thing that is another, or not there."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        rest = {name: one for name, one in value.items() if name != key}
        return rest if chance.random() < 0.1 else {**rest, key: vary_json(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        return [*value[:at], vary_json(value[at], chance), *value[at + 1 :]]
    others = (*NUMBERS, *HUGE, *WORDS, 1.5, True, [], {}, [[]] * 3, {"refused": 1}, ["a"] * 5_000)
    return chance.choice(others)


def cases(name: str, count: int) -> Iterator[tuple[str, random.Random]]:
    for number in range(count):
        case = f"{name}#{number}"
        yield case, random.Random(crc32(case.encode()))


def read_maps_text(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    found = parse_maps(data)
    modules = iter(range(1, 1 << 20))
    parts = fit(plan_parts(found.entries, lambda m: next(modules) if m.has_file else Kind.NO_ROWS))
    place = Place((0, 8), 0x400000, (Segment(0, 0x400000, 1 << 40), Segment(*HUGE[1:])), (7,))  # type: ignore[arg-type]
    assert expand(squeeze(parts)) == parts
    pack_parts(parts, lambda _: place)
    signal_addresses(parts, lambda _: place)
    for address in (*NUMBERS, *HUGE, -1):
        found.find(address)
    for module in (mappings, mapped_image):
        monkeypatch.setattr(module, "read_maps", lambda _: data)
    for mapping in (*found.entries, Mapping(1, 2, 0, 8, 1, 1057, b"/x")):
        mappings.file_bytes_at(PID, mapping.start - mapping.offset, mapping)
        mapped_image._pieces(PID, mapping)


def read_stat(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (mappings, programs):
        monkeypatch.setattr(module, "read_process_file", lambda *_: data)
    with suppress(ProcessError):
        read_start_ticks(PID)
    rig = programs.PythonPrograms.__new__(programs.PythonPrograms)
    rig._known = {}
    rig._find_salt(PROCESS)


def read_status(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf_map_file, "read_process_file", lambda *_: data)
    with suppress(ProcessError):
        perf_map_file._identity(PID)


def read_cgroups(data: bytes, _monkeypatch: pytest.MonkeyPatch) -> None:
    text = data.decode("utf-8", "replace")
    parse_cgroup(text), parse_v2(text)
    is_cgroup_excluded(text, ExcludeConfig(units=("a.service",), cgroups=("/b",)))


def read_mounts(data: bytes, _monkeypatch: pytest.MonkeyPatch) -> None:
    view = parse_view(data)
    for mount in view.mounts.values():
        assert view.points[mount.point] in view.on_way(mount.point)
        assert view.of_device(mount.device) is not None


def read_rows(data: bytes, _monkeypatch: pytest.MonkeyPatch) -> None:
    made = read_result(b"id", data)
    if isinstance(made, PackedRows):
        segments = tuple(Segment(s.offset, s.vaddr, s.size) for s in made.segments)
        place = Place((0, len(made.rows)), made.base, segments, made.signals)  # type: ignore[arg-type]
        pack_parts(plan_parts(parse_maps(MAPS).entries, lambda _: 1), lambda _: place)


def read_answer(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        answer = decode(data, Answer)
        split_hashes(answer.want)
        forms = ShortForms()
        forms.learn(Unnumbered([b"a" * 16, b"b" * 16], [b"c" * 16]), answer)
        forms.learn_defined([b"a" * 16, b"b" * 16], answer)
    except WireError as error:
        assert str(error)
        return
    orders = type("Orders", (), {"dropped": {"directive_malformed": 0}, "put_directive": print})
    pass_on(answer, orders())  # type: ignore[arg-type]


def read_retry_after(data: bytes, _monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = parse_retry_after(data.decode("latin-1"), 1.8e9)
    assert seconds is None or 0 <= seconds <= 3600


def encoded(answer: Answer) -> bytes:
    return b"FF\1A" + zstandard.ZstdCompressor().compress(msgspec.msgpack.encode(answer))


TEXTS: dict[str, tuple[bytes, Callable[[bytes, pytest.MonkeyPatch], None]]] = {
    "maps": (MAPS, read_maps_text),
    "stat": (STAT, read_stat),
    "status": (STATUS, read_status),
    "cgroup": (CGROUPS, read_cgroups),
    "mountinfo": (MOUNTS, read_mounts),
    "rows": (encode_rows(b"id", ROWS), read_rows),
    "answer": (encoded(ANSWER), read_answer),
    "retry-after": (b"Wed, 21 Oct 2099 07:28:00 GMT", read_retry_after),
}


def run_texts(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seed, read = TEXTS[name]
    read(seed, monkeypatch)
    for case, chance in cases(name, count):
        data = vary(seed, chance)
        try:
            read(data, monkeypatch)
        except Exception as error:
            raise AssertionError(f"{case}: {data[:400]!r}") from error


@pytest.mark.parametrize("name", TEXTS)
def test_damaged_texts_are_read_or_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_texts(name, SHORT, monkeypatch)


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("name", TEXTS)
def test_many_damaged_texts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_texts(name, LONG, monkeypatch)


def test_damaged_bodies_of_answers_are_read_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the compression, which would refuse nearly all of them."""
    body = msgspec.msgpack.encode(ANSWER)
    for case, chance in cases("body", SHORT):
        data = vary(body, chance)
        try:
            read_answer(b"FF\1A" + zstandard.ZstdCompressor().compress(data), monkeypatch)
        except Exception as error:
            raise AssertionError(f"{case}: {data[:400]!r}") from error


def lying_headers(seed: bytes) -> Iterator[tuple[str, bytes]]:
    """Every field of the ELF header, and of each program header, with every number."""
    segments, count = struct.unpack_from("<Q", seed, 32)[0], struct.unpack_from("<H", seed, 56)[0]
    fields = [(at, 8) for at in (24, 32, 40)] + [(at, 2) for at in range(52, HEADER.size, 2)]
    for number in range(min(count, 8)):
        start = segments + number * SEGMENT.size
        fields += [(start, 4), (start + 4, 4), *((start + at, 8) for at in range(8, 56, 8))]
    for at, width in fields:
        for number in (*NUMBERS, *HUGE):
            data = bytearray(seed)
            data[at : at + width] = (number & ((1 << 8 * width) - 1)).to_bytes(width, "little")
            yield f"{number:#x} at {at}", bytes(data)
    # All notes, wherever the file said they were.
    for offset in (*NUMBERS, *HUGE):
        data = bytearray(seed)
        for number in range(count):
            start = segments + number * SEGMENT.size
            struct.pack_into("<I", data, start, 4)
            struct.pack_into("<Q", data, start + 8, offset)
            struct.pack_into("<Q", data, start + 32, 4096)
        yield f"notes at {offset:#x}", bytes(data)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("e*/*")), ids=lambda path: path.name)
def test_mapped_files_that_lie_are_identified(path: Path, tmp_path: Path) -> None:
    """By the way that a mapped file goes in the sampler, with real files."""
    seed = path.read_bytes()
    if seed[:4] != b"\x7fELF":
        return
    target = tmp_path / "mapped"
    target.write_bytes(seed)
    status = target.stat()
    mapping = Mapping(
        *(0x1000, 0x3000, 0, os.major(status.st_dev), os.minor(status.st_dev)),
        *(status.st_ino, os.fsencode(target)),
    )
    damaged = ((case, vary(seed, chance)) for case, chance in cases(path.name, SHORT // 4))
    for case, data in (*lying_headers(seed), *damaged):
        target.write_bytes(data)
        registry = ModuleRegistry()
        hash64 = registry.native_module(PID, mapping)
        assert hash64 is not None, case
        assert registry.faults.counts == {}, case
        assert 1 <= len(registry.modules[hash64].id) <= 64
        with target.open("rb") as file:
            assert read_build_id(*file_reader(file.fileno())) == registry.modules[hash64].id


class Kernel:
    def frame(self, address: int) -> bytes:
        return pack_frame(1, address % (1 << 64))


def test_stacks_of_any_addresses() -> None:
    """As they come through the ring buffer: what a process has on its stack, and calls itself."""
    registry, definitions = ModuleRegistry(), DefinitionBook(1000)
    normalizer = Normalizer(registry, Kernel(), definitions, 1000)
    mapped = [entry.start for entry in mappings.read_mappings(*PROCESS[:2]).entries]
    addresses = (*NUMBERS, *HUGE, *mapped, *(start - 1 for start in mapped))
    decoder = Decoder()
    identities = Identities({}, normalizer.main_build_id, registry.faults)
    for _, chance in cases("stack", SHORT):
        ips = [chance.choice(addresses) for _ in range(chance.randint(1, 127))]
        python = [chance.choice((*NUMBERS, *HUGE)) for _ in range(chance.randint(0, 5))]
        head = STACK_EVENT_HEADER.pack(
            *(chance.getrandbits(64) | 1, PROCESS.start_ns, 5, PID, 0),
            *(chance.randrange(2, 8) << 1, chance.randbytes(16), 1, 0, len(ips), len(python)),
        )
        record = head + struct.pack(f"<{len(ips) + len(python)}Q", *ips, *python)
        name = bytes(PythonNameC(id=chance.choice(NUMBERS), name=chance.randbytes(160)))
        for raw in decoder.stacks([memoryview(name), memoryview(record)]):
            normalizer.add(raw)
            identities.labels(raw.process, raw.cgroup_id, raw.thread_name, False)
    normalizer.add(RawStack(1, PROCESS, "x", 1, (0,), (0,), False, 0, StackEnd.NO_MAPPING))
    assert registry.faults.counts == {}
    assert len(definitions.take()) > SHORT // 10


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool")
    made.create()
    return made


def test_orders_of_any_content(spool: Spool) -> None:
    path = spool.root / "directives" / "x.json"
    taken = 0
    for case, chance in cases("order", 2 * SHORT):
        order = chance.choice(ORDERS)
        text = json.dumps(order if chance.random() < 0.5 else vary_json(order, chance)).encode()
        path.write_bytes(vary(text, chance) if chance.random() < 0.7 else text)
        for directive in spool.take_directives():
            assert directives.check(directive) == directive, case
            assert "/" not in directives.file_name(directive, 0)
            taken += 1
        assert not path.exists(), case
    assert taken > SHORT // 10
    assert spool.dropped["directive_malformed"] > SHORT // 10


def test_reports_of_the_shipper_of_any_content(spool: Spool) -> None:
    teller = LimitTeller("the shipper")
    believed = 0
    for _case, chance in cases("report", 2 * SHORT):
        report = json.dumps(vary_json(REPORT, chance) if chance.random() < 0.8 else REPORT).encode()
        (spool.root / "status" / "shipper.json").write_bytes(
            vary(report, chance) if chance.random() < 0.5 else report
        )
        found = read_shipper_report(spool)
        usage = parse_shipper_usage(found)
        assert usage is None or all(0 <= number < 1 << 60 for number in usage)
        believed += usage is not None
        unit = parse_unit(found.get("unit")) if found else None
        if unit is not None:
            teller.note(unit, 0.0)
    assert believed > SHORT // 10


def test_what_children_answer() -> None:
    """They have read files of anybody's, and might say anything."""
    key = ProcessKey(7, 1 << 62, 1)
    read = 0
    for case, chance in cases("child", 4 * SHORT):
        text = json.dumps(vary_json(INTERPRETER, chance)).encode()
        try:
            answer = python_child.parse_answer(vary(text, chance) if case[-1] in "123" else text)
        except ValueError:
            continue
        if isinstance(answer, str):
            continue
        read += 1
        with suppress(PythonError):
            offsets = find_offsets(answer.version, answer.debug_offsets)
            make_layout(offsets, answer)
        for bias in (*NUMBERS, *HUGE, answer.bias(0x1000, 0) or 0):
            make_process(key, bias, answer.runtime + bias, 5, 0)
    assert read > SHORT // 4
    for case, chance in cases("names", 2 * SHORT):
        text = json.dumps(vary_json(NAMED, chance)).encode()
        named = name_children.parse_answer(vary(text, chance) if case[-1] in "123" else text, 3)
        for line in (line for lines in named or () for line in lines):
            assert line.function.encode() is not None
            assert 0 <= line.line < 1 << 31


@pytest.mark.parametrize("nested", [b"[" * 100_000, b'{"version":' * 50_000])
def test_answers_of_children_nested_beyond_any_stack(nested: bytes) -> None:
    with pytest.raises(ValueError, match="not an answer"):
        python_child.parse_answer(nested)
    assert name_children.parse_answer(nested, 1) is None
