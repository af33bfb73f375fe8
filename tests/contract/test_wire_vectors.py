"""Bytes of released wire versions: what they mean never changes, and what is broken is refused
with the error that names the fault."""

import struct
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from wire.codec import decode, encode
from wire.errors import MalformedError, TooLargeError, UnsupportedVersionError, WireError
from wire.hashes import (
    batch_check,
    batch_digest,
    definitions_check,
    labels_hash,
    module_hash,
    name_hash,
    pack_frame,
    stack_hash,
)
from wire.packed import PackedDefinitions, PackedModule, PackedName, Stack, pack
from wire.schema import (
    STACK_ENDS,
    Answer,
    Batch,
    Definitions,
    Event,
    Module,
    ModuleKind,
    ProfileDirective,
    ProfileEndDirective,
    SymbolDirective,
    SymbolExtract,
)
from wire.short import Numbers, ShortBatch, from_planes, shorten, widen_ends
from wire.unpack import unpack
from wire.validate import check_batch, check_definitions
from wire.words import WORDS

DATA = Path(__file__).parent.parent / "data" / "wire"
RUN = bytes(range(16))
LIBC_ID = bytes.fromhex("93ac5b4a8b1d7b8a1d3f0f9a7e6c5d4b3a291807")
KERNEL_ID = bytes.fromhex("4a5a9b0affb66c437abcd455d2738af879985fa9")
HASHES = [
    bytes.fromhex("a6d348b707bc8bff96167cca9472e9d5"),
    bytes.fromhex("4e63bee51e74cfcae3462def183f6cc1"),
    bytes.fromhex("b08ef6b4bc6cadb9df0877800cbdf4d9"),
]
MODULE_HASHES = [
    0x3D7AE8E98F770A4A,
    0xD9CEB4523D05CABB,
    0x832C653ED6A3A4C9,
    0xBD5BDF4D526EDEF9,
]
NAME_HASHES = [0xA1F61CC20E8BC304, 0x752FF035C42D0E95]


LABEL_HASHES = ["7a80c2248de3099b6afeece4739cd150", "936952faf5fa5cbef9ecbda73b5c5087"]
WORDS_OF_VERSION_2 = (974, "53ddab930b97b06ca7191fdcd13c4d65")


def _read(name: str, version: int = 1) -> bytes:
    return (DATA / f"v{version}" / f"{name}.bin").read_bytes()


def _u32(column: bytes) -> list[int]:
    return list(memoryview(column).cast("I"))


def test_batch_of_version_1() -> None:
    batch = decode(_read("batch"), Batch)
    assert check_batch(batch) == 4
    assert (batch.node, batch.run, batch.sequence) == ("web-1", RUN, 7)
    assert (batch.start_ns, batch.duration_ns) == (1_767_225_600_000_000_000, 10_000_000_000)
    assert (batch.rate_millihertz, batch.collector, batch.online_cpus) == (19_000, "cpu", 4)
    assert [series.labels for series in batch.series] == [
        {"service": "nginx", "executable": "nginx", "unit": "nginx"},
        {"service": "kernel", "executable": "kworker"},
    ]
    assert batch.stack_hashes == b"".join([*HASHES, HASHES[0]])
    assert _u32(batch.series_index) == [0, 0, 0, 1]
    assert _u32(batch.counts) == [190, 1, 2**32 - 1, 3]
    assert batch.lost == {"count_map_full": 5}
    assert batch.overhead.interrupt_cpu_ns == 4_000_000
    assert batch.overhead.cpu_percent == 0.025
    assert batch.facts == {"kernel": "6.1.0-18-amd64", "mode": "core"}
    assert batch.agent_version == "0.1.0"
    assert batch.stack_ends == {}


def test_batch_of_version_1_with_the_ends_of_its_stacks() -> None:
    batch = decode(_read("batch_stack_ends"), Batch)
    assert check_batch(batch) == 4
    ends = {reason: _u32(column) for reason, column in batch.stack_ends.items()}
    assert ends == {
        "complete": [180, 1],
        "truncated": [2, 0],
        "no_mapping": [1, 0],
        "no_rows": [3, 0],
        "no_room": [1, 0],
        "unsupported_rule": [1, 0],
        "read_fault": [2, 1],
        "later_word": [1, 0],
    }
    assert tuple(ends)[:7] == STACK_ENDS
    # Otherwise it is the batch from before that field.
    assert msgspec.structs.replace(batch, stack_ends={}) == decode(_read("batch"), Batch)


def test_batch_of_version_1_with_events() -> None:
    batch = decode(_read("batch_events"), Batch)
    assert check_batch(batch) == 4
    began_ns = 1_767_225_600_000_000_000
    step = "99 Hz -> 19 Hz: 1.52 % of the host, limit 1"
    killed = "Größe: the kernel ended a process of the service"
    assert batch.events == [
        Event(began_ns + 2_500_000_000, "governor", "cpu", step, 1.52, 1.0, "99 Hz", "19 Hz"),
        Event(began_ns + 9_000_000_001, "unit_limit", "oom", killed, 0.0, 0.0, "", ""),
        Event(began_ns + 9_999_999_999, "later_kind", "later reason", "", -1.5, 0.0, "", "paused"),
    ]
    # Otherwise it is the batch from before that field.
    without = msgspec.structs.replace(batch, events=[])
    assert without == decode(_read("batch_stack_ends"), Batch)


def test_batch_of_version_2() -> None:
    """The short form of the batch with events: two stacks and one set of labels have numbers."""
    short, whole = decode(_read("batch", 2), ShortBatch), decode(_read("batch_events"), Batch)
    for field in ShortBatch.__struct_fields__[:12]:
        assert getattr(short, field) == getattr(whole, field) or field == "overhead"
    assert msgspec.structs.astuple(short.overhead) == msgspec.structs.astuple(whole.overhead)
    assert [msgspec.structs.astuple(event) for event in short.events] == [
        msgspec.structs.astuple(event) for event in whole.events
    ]
    assert short.series == [70_000, {"service": "kernel", "executable": "kworker"}]
    assert list(from_planes("", short.numbered_rows)) == [2, 1]
    assert list(from_planes("", short.hashed_rows)) == [1, 0]
    # 258 and 4,000,000,001; in the next series that again.
    assert list(from_planes("", short.numbers)) == [258, 3_999_999_743, 0]
    assert list(from_planes("", short.numbered_counts)) == [1, 190, 3]
    assert short.hashes == HASHES[2]
    assert list(from_planes("", short.hashed_counts)) == [2**32 - 1]
    assert short.digest == batch_digest(whole) == bytes.fromhex("332734d6798b0a38d64fb45c1efeed17")
    labels = [labels_hash(series.labels) for series in whole.series]
    assert [one.hex() for one in labels] == LABEL_HASHES
    assert short.check == batch_check(short.digest, labels, [HASHES[1], HASHES[0], HASHES[0]])
    assert short.check == bytes.fromhex("deac45b0429a7a6b")
    samples = [190 + 1 + 2**32 - 1, 3]
    assert widen_ends("stack_ends", short.stack_ends, samples) == whole.stack_ends
    assert short.python_ends == whole.python_ends == {}
    numbers = {HASHES[0]: 4_000_000_001, HASHES[1]: 258}
    assert shorten(whole, short.digest, Numbers(numbers, {labels[0]: 70_000})) == short


def test_the_words_of_version_2_never_change() -> None:
    assert (len(WORDS), blake2b(WORDS, digest_size=16).hexdigest()) == WORDS_OF_VERSION_2


def test_answer_with_numbers() -> None:
    answer = decode(_read("answer_numbers", 2), Answer)
    assert (answer.status, answer.want) == ("stored", HASHES[1])
    assert _u32(answer.stack_numbers) == [258, 4_000_000_001, 0]
    assert _u32(answer.series_numbers) == [70_000]
    assert (answer.definitions, answer.defined) == (0, 0)  # from before these fields


def test_definitions_of_version_2() -> None:
    """The packed form of those of version 1: stacks by their frames, so in another order."""
    packed = decode(_read("definitions", 2), PackedDefinitions)
    whole = decode(_read("definitions"), Definitions)
    assert (packed.node, packed.run, packed.ahead) == ("web-1", RUN, True)
    assert [msgspec.structs.astuple(module) for module in packed.modules] == [
        msgspec.structs.astuple(module) for module in whole.modules
    ]
    assert [msgspec.structs.astuple(name) for name in packed.names] == [
        msgspec.structs.astuple(name) for name in whole.names
    ]
    assert _planes(packed.module_frames) == [2, 1, 1, 2]
    offsets = list(from_planes("", packed.offsets, 8))
    assert offsets == [0x27249, 0x100FF0 - 0x27249, 0x1234567, 0x42, 0, 1]
    # Frames 0 1 2 3, 0 4 and 0 5 1.
    assert _planes(packed.shared) == [0, 1, 1]
    assert _planes(packed.rest) == [4, 1, 2]
    assert _planes(packed.frames) == [0, 1, 2, 3, 4, 5, 1]
    assert packed.check == definitions_check(HASHES) == bytes.fromhex("3f12eb3e50682c28")
    assert unpack(packed) == _plain(whole)
    edges = pairwise((0, 4, 6, 9))
    stacks = [Stack(one, *edge) for one, edge in zip(HASHES, edges, strict=True)]
    assert pack(whole, stacks[::-1], ahead=True) == packed


def _planes(column: bytes) -> list[int]:
    return list(from_planes("", column))


def _plain(definitions: Definitions) -> Definitions:
    """With the modules and names that version 2 decodes to."""
    return msgspec.structs.replace(
        definitions,
        modules=[PackedModule(one.kind, one.id, one.name) for one in definitions.modules],
        names=[PackedName(one.function, one.file, one.line) for one in definitions.names],
    )


def test_answer_to_definitions() -> None:
    answer = decode(_read("answer_definitions", 2), Answer)
    assert (answer.status, answer.definitions, answer.defined) == ("stored", 2, 1)
    assert _u32(answer.stack_numbers) == [258, 4_000_000_001, 0]


def test_definitions_of_version_1() -> None:
    definitions = decode(_read("definitions"), Definitions)
    assert check_definitions(definitions) == 3
    assert [(module.kind, module.name) for module in definitions.modules] == [
        (ModuleKind.NATIVE, "libc.so.6"),
        (ModuleKind.KERNEL, "vmlinux"),
        (ModuleKind.KERNEL_MODULE, "ext4"),
        (ModuleKind.NAMED, "[unknown]"),
    ]
    assert [(n.function, n.file, n.line) for n in definitions.names] == [
        ("[jit]", "", 0),
        ("Größe.berechnen", "app.py", 12),
    ]
    assert _u32(definitions.frame_module) == [0, 0, 1, 2, 3, 3]
    offsets = struct.unpack("<6Q", definitions.frame_offset)
    assert offsets == (0x27249, 0x100FF0, 0x1234567, 0x42, 0, 1)
    assert struct.unpack("<3H", definitions.stack_lengths) == (4, 2, 3)
    assert _u32(definitions.stack_frames) == [0, 1, 2, 3, 0, 4, 0, 5, 1]


def test_symbol_extracts_of_version_1() -> None:
    extract = decode(_read("symbol_extract"), SymbolExtract)
    assert (extract.module_kind, extract.build_id) == (ModuleKind.KERNEL, KERNEL_ID)
    assert extract.data == b"0 startup_64\n1000 do_syscall_64\n"
    assert not extract.refused
    refused = decode(_read("symbol_extract_refused"), SymbolExtract)
    assert (refused.module_kind, refused.build_id) == (ModuleKind.NATIVE, LIBC_ID)
    assert refused.data == b""
    assert refused.refused.startswith("no symbols")


def test_answer_of_version_1() -> None:
    answer = decode(_read("answer"), Answer)
    assert (answer.status, answer.want) == ("stored", HASHES[1])
    [directive] = answer.directives
    assert (directive.module_kind, directive.build_id) == (ModuleKind.NATIVE, LIBC_ID)


def test_answer_of_version_1_with_profiles() -> None:
    answer = decode(_read("answer_profile"), Answer)
    assert answer.directives == [
        SymbolDirective(ModuleKind.NATIVE, LIBC_ID),
        ProfileDirective(12, "cpu", 199, 60, 300),
        ProfileEndDirective(11),
    ]


def test_module_and_name_hashes_are_those_of_the_release() -> None:
    definitions = decode(_read("definitions"), Definitions)
    assert [module_hash(module) for module in definitions.modules] == MODULE_HASHES
    assert [name_hash(name) for name in definitions.names] == NAME_HASHES


def test_stack_hashes_follow_from_the_definitions() -> None:
    definitions = decode(_read("definitions"), Definitions)
    modules = _u32(definitions.frame_module)
    offsets = struct.unpack("<6Q", definitions.frame_offset)
    packed = []
    for module, offset in zip(modules, offsets, strict=True):
        is_named = definitions.modules[module].kind == ModuleKind.NAMED
        packed.append(
            pack_frame(MODULE_HASHES[module], NAME_HASHES[offset] if is_named else offset)
        )
    frames = _u32(definitions.stack_frames)
    at = 0
    hashes = []
    for length in struct.unpack("<3H", definitions.stack_lengths):
        hashes.append(stack_hash(b"".join(packed[row] for row in frames[at : at + length])))
        at += length
    assert hashes == HASHES
    assert definitions.stack_hashes == b"".join(HASHES)


def test_a_module_is_its_id_and_not_its_name() -> None:
    module = Module(ModuleKind.NATIVE, LIBC_ID, "renamed.so")
    assert module_hash(module) == MODULE_HASHES[0]
    assert module_hash(Module(ModuleKind.KERNEL, LIBC_ID, "renamed.so")) != MODULE_HASHES[0]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("batch", Batch),
        ("batch_stack_ends", Batch),
        ("batch_events", Batch),
        ("definitions", Definitions),
        ("symbol_extract", SymbolExtract),
        ("symbol_extract_refused", SymbolExtract),
        ("answer", Answer),
        ("answer_profile", Answer),
    ],
)
def test_decoded_messages_encode_to_the_same_message(name: str, kind: type) -> None:
    message = decode(_read(name), kind)
    assert decode(encode(message), kind) == message


REFUSED = {
    "batch_truncated": (MalformedError, "truncated"),
    "batch_header_only": (MalformedError, "truncated"),
    "batch_version_2": (UnsupportedVersionError, "version 2"),
    "batch_wrong_magic": (MalformedError, "not a Flamefleet message"),
    "batch_wrong_kind": (MalformedError, "message kind"),
    "batch_not_zstd": (MalformedError, "not zstd"),
    "batch_zip_bomb": (TooLargeError, "68157440 bytes decoded"),
    "batch_size_undeclared": (MalformedError, "does not declare its size"),
    "batch_not_msgpack": (MalformedError, "not a Batch"),
    "batch_wrong_type": (MalformedError, "Expected `str`"),
    "batch_trailing_garbage": (MalformedError, "trailing"),
    "batch_columns_differ": (MalformedError, "counts must have 4 rows"),
    "batch_column_cut": (MalformedError, "not a multiple of 16"),
    "batch_run_short": (MalformedError, "run must be 16 bytes"),
    "batch_rate_zero": (MalformedError, "rate_millihertz"),
    "batch_stack_ends_short": (MalformedError, "stack_ends.complete must have 2 rows"),
    "batch_stack_ends_cut": (MalformedError, "stack_ends.complete has 7 bytes"),
    "batch_stack_ends_word": (MalformedError, "'No rows' is not a word"),
    "batch_stack_ends_word_long": (MalformedError, "is not a word of at most 32 letters"),
    "batch_stack_ends_many": (TooLargeError, "17 reasons in stack_ends"),
    "batch_events_many": (TooLargeError, "65 events in a batch; at most 64"),
    "batch_event_words_long": (
        MalformedError,
        "words must not hold NUL, .* at most 512 bytes",
    ),
    "batch_event_reason_long": (
        MalformedError,
        "reason must not hold NUL, .* at most 64 bytes",
    ),
    "batch_event_kind_empty": (MalformedError, "an event's kind must not be empty"),
    "batch_event_time": (MalformedError, "at_ns must be positive"),
    "batch_event_nan": (MalformedError, "value and limit of event 'governor' must be finite"),
    "batch_event_nul": (MalformedError, "after must not hold NUL, and have at most"),
    "definitions_lengths_differ": (MalformedError, "stack_lengths must have 3 rows"),
}


def test_a_short_batch_cut_anywhere_or_read_as_a_whole_one_is_a_named_error() -> None:
    data = _read("batch", 2)
    for length in range(len(data)):
        with pytest.raises(WireError):
            decode(data[:length], ShortBatch)
    with pytest.raises(UnsupportedVersionError, match="wire version 2 is unknown here"):
        decode(data, Batch)
    with pytest.raises(UnsupportedVersionError, match="wire version 1 is unknown here"):
        decode(_read("batch"), ShortBatch)


def test_every_malformed_sample_is_in_the_table() -> None:
    assert {path.stem for path in (DATA / "malformed").glob("*.bin")} == set(REFUSED)


@pytest.mark.parametrize("name", REFUSED)
def test_malformed_messages_are_refused_with_the_fault(name: str) -> None:
    error, words = REFUSED[name]
    data = (DATA / "malformed" / f"{name}.bin").read_bytes()
    with pytest.raises(error, match=words):
        if name.startswith("batch"):
            check_batch(decode(data, Batch))
        else:
            check_definitions(decode(data, Definitions))


def test_a_batch_cut_anywhere_is_a_named_error() -> None:
    data = _read("batch")
    for length in range(len(data)):
        with pytest.raises(WireError):
            decode(data[:length], Batch)


def test_a_batch_with_any_byte_changed_is_refused_or_still_a_batch() -> None:
    data = _read("batch")
    refused = 0
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 0xFF
        try:
            check_batch(decode(bytes(changed), Batch))
        except WireError:
            refused += 1
    assert refused > len(data) // 4
