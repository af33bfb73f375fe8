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
from node_agent.sampler.batches import build_columns
from node_agent.sampler.definitions import build_definitions
from node_agent.sampler.detached import empty_batch
from node_agent.sampler.events import Events
from node_agent.sampler.facts import clip
from node_agent.symbols.modules import JIT, UNKNOWN
from node_agent.symbols.perf_map_names import clean_name
from wire.codec import decode, encode
from wire.limits import MAX_LABEL_BYTES, MAX_LINE, MAX_NAME_BYTES
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
    for name in message.names:
        assert 0 <= name.line <= MAX_LINE
        for text in (name.function, name.file):
            assert "\0" not in text
            assert len(text.encode()) <= MAX_NAME_BYTES
    for module in message.modules:
        assert "\0" not in module.name
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
    assert all(len(value.encode()) <= MAX_LABEL_BYTES for value in labels.values())


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
    assert "\0" not in batch.facts["breaker"]
