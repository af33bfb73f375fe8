"""Small messages that would become large: refused before anything is made of them."""

import subprocess
import sys

import msgspec
import pytest
import zstandard

from wire import limits
from wire.codec import declared_bytes, decode, encode
from wire.errors import MalformedError, TooLargeError, WireError
from wire.packed import PackedDefinitions
from wire.scan import check_items
from wire.schema import Answer, Batch, Definitions, ExtractView, Overhead, SymbolExtract
from wire.short import ShortBatch, ShortOverhead
from wire.words import WORDS

# Version and letter of the header; whether the body is an array of the fields' values.
KINDS = {
    Batch: (1, b"B", False),
    ShortBatch: (2, b"B", True),
    Definitions: (1, b"D", False),
    PackedDefinitions: (2, b"D", True),
    SymbolExtract: (1, b"S", False),
    ExtractView: (1, b"S", False),
    Answer: (1, b"A", False),
}
MOST_MIB = 160  # of a process that decodes one message; without any it has 20


def message(kind, body):
    version, letter, _ = KINDS[kind]
    words = zstandard.ZstdCompressionDict(WORDS, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    compressor = zstandard.ZstdCompressor(dict_data=words if version == 2 else None)
    return b"FF" + bytes((version,)) + letter + compressor.compress(body)


def array_of(count, item):
    return b"\xdd" + count.to_bytes(4, "big") + item * count


def text_of(content):
    return b"\xdb" + len(content).to_bytes(4, "big") + content


def bomb(kind, value):
    """A message with `value` in the place of every field; of an unknown one too."""
    fields = msgspec.structs.fields(kind)
    if KINDS[kind][2]:
        return message(kind, array_of(0, b"")[:1] + len(fields).to_bytes(4, "big") + value)
    return message(kind, b"\x82" + b"\xa1x" + value + b"\xa4node" + value)


def most_decoded(kind):
    return {
        b"B": limits.MAX_BATCH_DECODED_BYTES,
        b"D": limits.MAX_DEFINITIONS_DECODED_BYTES,
        b"S": limits.MAX_EXTRACT_DECODED_BYTES,
        b"A": limits.MAX_BATCH_DECODED_BYTES,
    }[KINDS[kind][1]]


BOMBS = {
    "empty maps": lambda size: array_of(size, b"\x80"),
    "empty lists": lambda size: array_of(size, b"\x90"),
    "numbers": lambda size: array_of(size, b"\x00"),
    "maps in maps": lambda size: b"\x81\x00" * size,
    "lists in lists": lambda size: b"\x91" * size,
    "more than there are": lambda size: b"\xdd\xff\xff\xff\xff",
    "one text": lambda size: text_of(b"a" * (size - 4) + "\U0001f600".encode()),
    "many texts": lambda size: array_of(size // 40_000, text_of(b"a" * 39_995)),
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_of_each_kind_is_refused(kind, name):
    data = bomb(kind, BOMBS[name]((most_decoded(kind) - 200) // 2))

    with pytest.raises(WireError):
        decode(data, kind)


OVERHEAD = Overhead(1, 2, 3, 4, 5, 6, 0.5, 0.5)
BATCH = ("n", b"r", 1, 2, 3, 4, "cpu", 1)
WHOLE = {
    Batch: Batch(*BATCH, [], b"", b"", b"", {}, OVERHEAD, "1"),
    ShortBatch: ShortBatch(
        *BATCH,
        *("1", {}, {}, ShortOverhead(*msgspec.structs.astuple(OVERHEAD)), [], b"", b"", []),
        *(b"", b"", b"", b"", b"", b"", {}, {}),
    ),
    Definitions: Definitions("n", b"r", [], [], b"", b"", b"", b"", b""),
    PackedDefinitions: PackedDefinitions("n", b"r", False, [], [], b"", b"", b"", b"", b"", b""),
    Answer: Answer("stored"),
}
# What the list or map of a field may be full of, in as few bytes as there can be.
FULL = [
    (ShortBatch, "series", b"\x80"),
    (ShortBatch, "facts", None),
    (Batch, "series", b"\x81\xa6labels\x80"),
    (Batch, "lost", None),
    (Definitions, "names", b"\x81\xa8function\xa0"),
    (PackedDefinitions, "names", b"\x91\xa0"),
    (PackedDefinitions, "modules", b"\x93\x00\xc4\x00\xa0"),
    (Answer, "directives", b"\x82\xa4kind\xabprofile_end\xa2id\x00"),
]


def distinct_entries(count, value):
    """A map with as many keys."""
    keys = (number.to_bytes(4, "big") for number in range(count))
    entries = b"".join(b"\xa4" + bytes(33 + part % 90 for part in key) + value for key in keys)
    return b"\xdf" + count.to_bytes(4, "big") + entries


@pytest.mark.parametrize(("kind", "field", "item"), FULL)
def test_a_field_that_is_full_costs_no_memory(kind, field, item, tmp_path):
    """In a process of its own: what it took at most is known only there."""
    if item is None:
        content = distinct_entries(3 << 19, b"\x01" if field == "lost" else b"\xa0")
    else:
        content = array_of((most_decoded(kind) - 1_000) // len(item), item)
    full = msgspec.structs.replace(WHOLE[kind], **{field: msgspec.Raw(content)})
    data = message(kind, msgspec.msgpack.encode(full))
    path = tmp_path / "bomb"
    path.write_bytes(data)
    module, name = kind.__module__, kind.__name__
    program = (
        f"import sys\nfrom pathlib import Path\nfrom {module} import {name}\n"
        "from wire.codec import decode\nfrom wire.errors import WireError\n"
        f"try:\n    decode(Path({str(path)!r}).read_bytes(), {name})\n"
        "except WireError as error:\n    print(error)\nelse:\n    sys.exit('taken')\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(int(status.partition('VmHWM:')[2].split()[0]) >> 10)\n"
    )

    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert told.returncode == 0, told.stdout + told.stderr
    assert int(told.stdout.split()[-1]) < MOST_MIB, told.stdout


def test_depth_is_malformed():
    with pytest.raises(MalformedError):
        decode(message(Batch, b"\x81\xa1x" + b"\x91" * 30_000), Batch)


ITEMS = [None, True, 1, -1, 200, 70_000, -70_000, 2**40, -(2**40), 1.5, "", "a" * 40, "b" * 300]
ITEMS += ["c" * 70_000, b"", b"x" * 300, b"y" * 70_000, [], [1] * 20, {}]
ITEMS += [{str(number): number for number in range(20)}]


def count_items(value):
    if isinstance(value, dict):
        return 1 + sum(count_items(key) + count_items(one) for key, one in value.items())
    if isinstance(value, list):
        return 1 + sum(map(count_items, value))
    return 1


def test_every_form_of_item_is_counted_as_one(monkeypatch):
    monkeypatch.setattr(limits, "MAX_TEXT_BYTES", 1 << 20)
    extensions = [msgspec.msgpack.Ext(1, b"e" * size) for size in (1, 2, 4, 8, 16, 3, 300, 70_000)]
    value = [*ITEMS, *extensions, *[[item] * 3 for item in ITEMS]] * 20
    body = msgspec.msgpack.encode(value)
    items = count_items(value)

    check_items(body, items)
    with pytest.raises(TooLargeError):
        check_items(body, items - 1)
    for cut in (1, 70_001):
        with pytest.raises(WireError):
            check_items(body[:-cut], items)


def test_a_text_has_a_limit_and_all_together(monkeypatch):
    long = msgspec.msgpack.encode(["a" * (limits.MAX_TEXT_BYTES + 1)])
    with pytest.raises(TooLargeError):
        check_items(long, 10)
    monkeypatch.setattr(limits, "MAX_TEXTS_BYTES", 100_000)
    many = msgspec.msgpack.encode(["a" * 50_000] * 3)
    with pytest.raises(TooLargeError):
        check_items(many, 10)


def test_what_a_message_declares():
    answer = encode(Answer("stored", want=bytes(100_000)))

    assert declared_bytes(answer) > 100_000 > len(answer)
    assert declared_bytes(b"FF\x01B") == declared_bytes(b"") == declared_bytes(b"FF\x01Bxyz") == 0
