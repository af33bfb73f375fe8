"""Whatever processes call themselves, the agent's messages are such as the centre takes."""

import os
import random
from zlib import crc32

import msgspec
import pytest

from node_agent.collectors.stacks import ProcessKey, RawStack, SampleKey
from node_agent.config import create_recommended_config
from node_agent.cpython.structs import PYTHON_FILE_BYTES, PYTHON_NAME_BYTES, PythonNameC
from node_agent.processes import identity
from node_agent.processes.identity import LABELS, Identities
from node_agent.processes.mappings import Mapping, Mappings
from node_agent.sampler import batches
from node_agent.sampler.batches import build_columns
from node_agent.sampler.definitions import DefinitionBook, build_definitions, split_by_text
from node_agent.sampler.detached import empty_batch
from node_agent.sampler.events import Events
from node_agent.sampler.facts import clip
from node_agent.symbols.extract import MAX_SYMBOL_BYTES
from node_agent.symbols.modules import JIT, UNKNOWN
from node_agent.symbols.perf_map_names import clean_name
from wire.codec import decode, encode
from wire.faults import event_fault, is_label, module_fault, name_fault
from wire.limits import (
    MAX_BATCH_ROWS,
    MAX_DEFINITIONS_BYTES,
    MAX_EXTRACT_DECODED_BYTES,
    MAX_LABEL_BYTES,
    MAX_LINE,
    MAX_NAME_BYTES,
)
from wire.schema import Batch, Definitions, Module, ModuleKind, Name
from wire.validate import check_batch, check_definitions

RUN = bytes(16)
TEXTS = [
    "",
    "plain",
    "\0",
    "a\0b" * 3_000,
    "\x1b[2J\r\n\t\x7f\x85\u2028",
    "\udcff\ud800 lone surrogates",
    "ß" * 5_000,
    "🔥" * 2_000,
    "x" * 100_000,
    "\ufffd" * 4_000,
    "a;b 12",
]
LINES = [-(1 << 63), -1, 0, 1, MAX_LINE, MAX_LINE + 1, (1 << 32) - 1, 1 << 64]
BYTES = [b"", b"\0", b"\xff\xfe\x80", b"a\nb", b"\xed\xa0\x80" * 200, b"n" * 255, bytes(range(256))]


def checked_definitions(registry, frames: list[bytes]) -> Definitions:
    """The message of one stack, as the centre reads and checks it."""
    stacks = {bytes([number]) * 16: frame for number, frame in enumerate(frames)}
    message = build_definitions("web-1", RUN, stacks, registry)
    assert message is not None
    message = decode(encode(message), Definitions)
    assert check_definitions(message) == len(frames)
    assert {name_fault(name) for name in message.names} <= {None}
    assert {module_fault(module) for module in message.modules} <= {None}
    return message


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_names(bench, text: str, line: int) -> None:
    registry = bench.registry
    names = [Name(text, "/a.py", line), Name("f", text, line), Name(text, text, line)]
    frames = [registry.name_frame(JIT, name) for name in names]
    frames.append(registry.named_frame(UNKNOWN, text))
    frames.append(registry.name_frame(JIT, clean_name(text.replace("\ud800", ""))))

    message = checked_definitions(registry, frames)

    expected = line if 0 <= line <= MAX_LINE else 0
    assert {name.line for name in message.names if name.file} == {expected}


def test_modules(bench) -> None:
    registry = bench.registry
    frames = []
    for number, text in enumerate(TEXTS):
        hash64 = registry.add(Module(ModuleKind.NATIVE, bytes([number + 1]), text))
        assert hash64 is not None
        frames.append(hash64.to_bytes(8, "little") + b"\xff" * 8)

    message = checked_definitions(registry, frames)

    assert len(message.modules) == len(TEXTS)


@pytest.mark.parametrize("case", range(60))
def test_names_of_python_code_as_the_kernel_program_sends_them(bench, case: int) -> None:
    """Whatever a process has in its memory where a code object should be."""
    chance = random.Random(crc32(b"python %d" % case))
    numbers = (0, 1, 5, 160, 255, 256, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
    records = [
        bytes(
            PythonNameC(
                id=number + 1,
                first_line=chance.choice(numbers),
                name_chars=chance.choice(numbers),
                file_chars=chance.choice(numbers),
                name_width=chance.choice((0, 1, 2, 3, 4, 255)),
                file_width=chance.choice((0, 1, 2, 3, 4, 255)),
                name=chance.randbytes(PYTHON_NAME_BYTES),
                file=chance.choice(
                    (chance.randbytes(PYTHON_FILE_BYTES), b"\xd8\x00" * 128, b"\xff" * 256)
                ),
            )
        )
        for number in range(20)
    ]
    python = bench.normalizer.python
    for record in records:
        python.take(record)

    checked_definitions(bench.registry, [python.frame(number + 1) for number in range(20)])
    assert bench.registry.faults.counts == {}


@pytest.mark.parametrize("path", BYTES, ids=range(len(BYTES)))
def test_files_of_any_name_at_any_place(bench, own, path: bytes) -> None:
    for offset in (0, 4096, (1 << 63) - 4096, (1 << 64) - 4096):
        mapping = Mapping(0x1000, 0x3000, offset, 8, 1, 5, b"/" + path + b" (deleted)")
        process = bench.normalizer._addresses.process(ProcessKey(os.getpid(), 1 + offset, 0))
        process.space.mappings = Mappings.of([mapping])
        process.space.read_at = float("inf")
        process.bases[mapping.start] = (
            bench.registry.add(Module(ModuleKind.NATIVE, b"id", "x")),
            mapping.start - mapping.offset,
        )
        for address in (0x1000, 0x2FFF):
            raw = RawStack(
                address, ProcessKey(os.getpid(), 1 + offset, 0), "x", 1, (), (address,), False
            )
            bench.normalizer.add(raw)
    frames = list(bench.definitions.take().values())
    frames.append(bench.registry.named_frame(UNKNOWN, f"[{path.decode('utf-8', 'replace')}]"))
    checked_definitions(bench.registry, frames)
    assert bench.registry.faults.counts == {}


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_labels(bench, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A cgroup, a program and a thread that are called so."""
    cgroup = f"0::/system.slice/{text}.service\n1:name=systemd:/lxc/{text}\n"
    monkeypatch.setattr(
        identity, "read_process_file", lambda *_: cgroup.encode("utf-8", "surrogatepass")
    )
    monkeypatch.setattr(identity, "_read_executable", lambda _: text)
    monkeypatch.setattr(identity, "check_start", lambda *_: None)
    identities = Identities({"team": text}, lambda _: "ab")
    counts = {
        SampleKey(number, 1, 1, number, 1, text, 0): (1 << 32) + number for number in range(1, 4)
    }

    columns = build_columns(counts, bench.normalizer, identities)
    names = ("series", "stack_hashes", "series_index", "counts", "stack_ends", "python_ends")
    batch = batch_with(**{name: getattr(columns, name) for name in names})

    assert check_batch(batch) == 1
    labels = batch.series[0].labels
    assert set(labels) <= {*LABELS, "team"}
    assert all(is_label(name, value) for name, value in labels.items())


def batch_with(**fields: object) -> Batch:
    """A batch with these fields, as the centre reads it."""
    batch = empty_batch(create_recommended_config("debug"), {})
    return decode(encode(msgspec.structs.replace(batch, **fields)), Batch)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_events_and_facts(text: str) -> None:
    events = Events()
    events.add("fault", "file_OverflowError", text, float(1 << 62), 0.0, text, text)

    batch = batch_with(events=events.take(), facts={"breaker": clip(text)})

    check_batch(batch)
    assert [event_fault(event) for event in batch.events] == [None]
    assert "\0" not in batch.facts["breaker"]


def test_a_process_with_names_of_kilobytes_leaves_room_for_the_others(bench) -> None:
    """GIVEN more text than a message may have, most of it one process's."""
    registry, book = bench.registry, DefinitionBook(10_000)
    for number in range(3_000):
        name = Name(f"{number:04d}" + "n" * MAX_NAME_BYTES, f"{number:04d}" + "f" * MAX_NAME_BYTES)
        frame = registry.name_frame(JIT, name)
        book.add(number.to_bytes(16, "big"), frame)
    small = [registry.named_frame(UNKNOWN, f"[program {number}]") for number in range(100)]
    hashes = [number.to_bytes(16, "big") for number in range(3_000, 3_100)]
    for stack_hash, frame in zip(hashes, small, strict=True):
        book.add(stack_hash, frame)

    stacks, left = split_by_text(book.take(), registry)
    book.defer(left)
    message = build_definitions("web-1", RUN, stacks, registry)

    assert message is not None
    encoded = encode(message)
    assert len(encoded) <= MAX_DEFINITIONS_BYTES
    assert check_definitions(decode(encoded, Definitions)) == len(stacks)
    assert set(hashes) <= set(stacks)
    assert len(stacks) + len(left) == 3_100
    assert len(stacks) > 900
    assert book.deferred == len(left)
    assert not any(book.knows(stack_hash) for stack_hash in left)
    assert all(book.knows(stack_hash) for stack_hash in stacks)


@pytest.mark.parametrize("length", [3, MAX_LABEL_BYTES])
def test_more_sets_of_labels_than_a_message_may_have(bench, length: int) -> None:
    """GIVEN so many processes of different names and units."""

    class Labels:
        def labels(self, process: tuple[int, ...], *_: object) -> dict[str, str]:
            names = ("service", "executable", "container", "runtime", "build_id")
            return {name: f"{process[0]:x}".rjust(length, "l") for name in names}

    counts = {SampleKey(number % 8_000, number, 1, 1, 1, "x", 0): 3 for number in range(1, 40_000)}

    columns = build_columns(counts, bench.normalizer, Labels())  # type: ignore[arg-type]
    names = ("series", "stack_hashes", "series_index", "counts", "stack_ends", "python_ends")
    batch = batch_with(**{name: getattr(columns, name) for name in names})

    assert check_batch(batch) == len(columns.counts) // 4
    assert columns.samples == 3 * 39_999
    assert batch.series[-1].labels == {"service": "other", "executable": "other"}
    assert len(batch.series) > 3_000


def test_a_batch_has_no_more_rows_than_are_taken() -> None:
    assert batches.MAX_ROWS <= MAX_BATCH_ROWS
    assert MAX_SYMBOL_BYTES < MAX_EXTRACT_DECODED_BYTES
