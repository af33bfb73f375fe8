"""Definitions and batches as they go to the wire."""

import struct

import pytest

from node_agent.collectors.stacks import PythonEnd, SampleKey, StackEnd
from node_agent.kernel.structs import PYTHON_END_SHIFT, SAMPLE_KERNEL_THREAD, STACK_END_SHIFT
from node_agent.processes.identity import Identities
from node_agent.sampler import batches, definitions
from node_agent.sampler.batches import build_columns
from node_agent.sampler.definitions import DefinitionBook, build_definitions
from node_agent.symbols.modules import UNKNOWN, ModuleRegistry
from wire.codec import decode, encode
from wire.hashes import module_hash, name_hash, pack_frame, stack_hash
from wire.schema import PYTHON_ENDS, STACK_ENDS, Definitions, Module, ModuleKind
from wire.validate import check_definitions

RUN = bytes(16)
LIBC = Module(ModuleKind.NATIVE, b"c" * 20, "libc.so.6")
KERNEL = Module(ModuleKind.KERNEL, b"k" * 20, "vmlinux")


def _recompute(message: Definitions) -> list[bytes]:
    """Stack hashes from the message alone, as the centre computes them."""
    modules = memoryview(message.frame_module).cast("I")
    offsets = memoryview(message.frame_offset).cast("Q")
    packed = []
    for module_row, offset in zip(modules, offsets, strict=True):
        module = message.modules[module_row]
        if module.kind == ModuleKind.NAMED:
            offset = name_hash(message.names[offset])  # noqa: PLW2901 (a name for its number)
        packed.append(pack_frame(module_hash(module), offset))
    rows = iter(memoryview(message.stack_frames).cast("I"))
    lengths = memoryview(message.stack_lengths).cast("H")
    return [stack_hash(b"".join(packed[next(rows)] for _ in range(n))) for n in lengths]


def test_the_centre_computes_the_same_hashes() -> None:
    registry = ModuleRegistry()
    for module in (LIBC, KERNEL):
        registry.add(module)
    libc = [pack_frame(module_hash(LIBC), offset) for offset in (1, 2, (1 << 64) - 1)]
    kernel = pack_frame(module_hash(KERNEL), 7)
    named = registry.named_frame(UNKNOWN, "Größe")
    stacks = {}
    for frames in (libc, [libc[0], kernel], [registry.jit, named, kernel], [libc[0]] * 256):
        packed = b"".join(frames)
        stacks[stack_hash(packed)] = packed
    message = build_definitions("web-1", RUN, stacks, registry)
    assert message is not None
    message = decode(encode(message), Definitions)
    assert check_definitions(message) == 4
    assert _recompute(message) == list(stacks)
    # Each frame, module and name is there once.
    assert len(message.frame_module) // 4 == 6
    assert [module.name for module in message.modules] == ["libc.so.6", "vmlinux", "[unknown]"]
    assert [name.function for name in message.names] == ["[jit]", "Größe"]


def test_nothing_new_is_no_message() -> None:
    assert build_definitions("web-1", RUN, {}, ModuleRegistry()) is None


def test_what_has_no_room_is_defined_when_it_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definitions, "MAX_PENDING_BYTES", 48)
    book = DefinitionBook(100)
    book.add(b"a" * 16, bytes(32))
    book.add(b"b" * 16, bytes(32))
    assert (book.knows(b"a" * 16), book.knows(b"b" * 16)) == (True, False)
    assert book.deferred == 1
    book.take()
    book.add(b"b" * 16, bytes(32))
    assert list(book.take()) == [b"b" * 16]


def test_definitions_of_many_bytes_want_a_batch_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definitions, "FULL_BYTES", 64)
    book = DefinitionBook(100)
    book.add(b"a" * 16, bytes(48))
    assert not book.is_full
    book.add(b"b" * 16, bytes(16))
    assert book.is_full
    book.take()
    assert not book.is_full


def test_unseen_stacks_are_forgotten_in_time() -> None:
    book = DefinitionBook(100)
    book.add(b"a" * 16, bytes(16))
    book.add(b"b" * 16, bytes(16))
    book.rotate()
    assert book.knows(b"a" * 16)
    book.rotate()
    assert (book.knows(b"a" * 16), book.knows(b"b" * 16)) == (True, False)


def _key(stack_key: int, tgid: int = 2, thread: str = "kworker/0:1") -> SampleKey:
    return SampleKey(stack_key, tgid, 0, 0, 1, thread, SAMPLE_KERNEL_THREAD)


def test_rows_of_the_same_stack_and_labels_are_added_up(bench, own) -> None:
    first = bench.normalizer.add(own.raw(own.addresses[0], key=1))
    second = bench.normalizer.add(own.raw(own.addresses[1], key=2))
    counts = {
        _key(1, 10, "kworker/0:1"): 5,
        _key(1, 11, "kworker/1:2-events"): 7,
        _key(2, 10): 1,
        _key(1, 12, "ksoftirqd/0"): 3,
    }
    columns = build_columns(counts, bench.normalizer, Identities({"team": "a"}))
    assert [series.labels["executable"] for series in columns.series] == ["kworker", "ksoftirqd"]
    assert all(series.labels["team"] == "a" for series in columns.series)
    rows = list(
        zip(
            [columns.stack_hashes[at : at + 16] for at in range(0, 48, 16)],
            struct.unpack("<3I", columns.series_index),
            struct.unpack("<3I", columns.counts),
            strict=True,
        )
    )
    assert rows == [(first, 0, 12), (second, 0, 1), (first, 1, 3)]
    assert (columns.samples, columns.lost) == (16, 0)


def test_rows_beyond_the_limit_are_counted_as_lost(
    bench, own, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MAX_ROWS", 2)
    for key in range(4):
        bench.normalizer.add(own.raw(own.addresses[key], key=key))
    counts = {_key(key): 10 for key in range(4)} | {_key(0, 3): 1}
    columns = build_columns(counts, bench.normalizer, Identities({}))
    assert (columns.samples, columns.lost) == (21, 20)
    assert len(columns.counts) == 8


def test_the_kernels_ends_have_the_words_of_the_wire() -> None:
    assert tuple(end.name.lower() for end in StackEnd) == ("no_user", *STACK_ENDS)
    assert list(StackEnd) == list(range(len(STACK_ENDS) + 1))
    assert tuple(end.name.lower() for end in PythonEnd) == ("none", *PYTHON_ENDS)
    assert list(PythonEnd) == list(range(len(PYTHON_ENDS) + 1))


def test_ends_of_stacks_are_counted_by_series(bench, own, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in range(4):
        bench.normalizer.add(own.raw(own.addresses[key], key=key))

    def ended(key: SampleKey, end: int, python_end: int = 0) -> SampleKey:
        flags = key.flags | end << STACK_END_SHIFT | python_end << PYTHON_END_SHIFT
        return key._replace(flags=flags)

    counts = {
        ended(_key(0), 1, 1): 50,
        ended(_key(0, 3), 7, 2): 2,
        ended(_key(1, 9, thread="ksoftirqd/0"), 1): 30,
        ended(_key(1, 4, thread="ksoftirqd/1"), 4): 5,
        ended(_key(1, 5), 15, 15): 1,  # a number that this release has no word for
        _key(2): 8,  # no user part
    }
    columns = build_columns(counts, bench.normalizer, Identities({}))
    assert [series.labels["executable"] for series in columns.series] == ["kworker", "ksoftirqd"]
    ends = {name: struct.unpack("<2I", column) for name, column in columns.stack_ends.items()}
    assert ends == {"complete": (50, 30), "read_fault": (2, 0), "no_rows": (0, 5), "other": (1, 0)}
    assert columns.ends() == {"complete": 80, "read_fault": 2, "no_rows": 5, "other": 1}
    ends = {name: struct.unpack("<2I", column) for name, column in columns.python_ends.items()}
    assert ends == {"complete": (50, 0), "truncated": (2, 0), "other": (1, 0)}

    # What had no room in the batch is not among the ends either.
    monkeypatch.setattr(batches, "MAX_ROWS", 1)
    columns = build_columns(counts, bench.normalizer, Identities({}))
    assert (columns.samples, columns.lost) == (52, 44)
    assert columns.ends() == {"complete": 50, "read_fault": 2}


def test_an_interval_without_samples_is_empty(bench) -> None:
    columns = build_columns({}, bench.normalizer, Identities({}))
    assert columns == ([], b"", b"", b"", 0, 0, {}, {})
