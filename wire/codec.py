"""Encode and decode messages: a 4-byte header, then zstd level 3 over msgpack.

Header: b"FF", one byte of version, one byte of kind. Version 2 is the short form of a batch and the
packed one of definitions; its zstd frames refer to WORDS as a dictionary. Decoding checks the size
before and while decompressing, so a small message cannot become a large one.
"""

from typing import Any, TypeVar

import msgspec
import zstandard

from wire import limits
from wire.errors import MalformedError, TooLargeError, UnsupportedVersionError
from wire.packed import PackedDefinitions
from wire.schema import Answer, Batch, Definitions, SymbolExtract
from wire.short import ShortBatch
from wire.words import WORDS

VERSION = 1
SHORT_VERSION = 2
DEFINITIONS_VERSION = 2  # the newest
CONTENT_TYPE = "application/vnd.flamefleet"
SHORT_TYPE = f"{CONTENT_TYPE};version={SHORT_VERSION}"  # Accept: who sends it wants numbers
_MAGIC = b"FF"
_LEVEL = 3
_KINDS: dict[type, tuple[bytes, int, int]] = {
    Batch: (b"B", limits.MAX_BATCH_BYTES, limits.MAX_BATCH_DECODED_BYTES),
    Definitions: (b"D", limits.MAX_DEFINITIONS_BYTES, limits.MAX_DEFINITIONS_DECODED_BYTES),
    SymbolExtract: (b"S", limits.MAX_EXTRACT_BYTES, limits.MAX_EXTRACT_DECODED_BYTES),
    Answer: (b"A", limits.MAX_BATCH_BYTES, limits.MAX_BATCH_DECODED_BYTES),
    ShortBatch: (b"B", limits.MAX_BATCH_BYTES, limits.MAX_BATCH_DECODED_BYTES),
    PackedDefinitions: (
        b"D",
        limits.MAX_DEFINITIONS_BYTES,
        limits.MAX_DEFINITIONS_DECODED_BYTES,
    ),
}
_OF_VERSION_2 = (ShortBatch, PackedDefinitions)
_DECODERS: dict[type, msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in _KINDS
}
_WORDS = zstandard.ZstdCompressionDict(WORDS, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
Message = TypeVar(
    "Message", Batch, Definitions, SymbolExtract, Answer, ShortBatch, PackedDefinitions
)
AnyMessage = Batch | Definitions | SymbolExtract | Answer | ShortBatch | PackedDefinitions


def encode(message: AnyMessage) -> bytes:
    """Bytes of `message` as they are stored in the spool and sent."""
    kind = _KINDS[type(message)][0]
    version = _version(type(message))
    words = _WORDS if version == SHORT_VERSION else None
    compressor = zstandard.ZstdCompressor(level=_LEVEL, dict_data=words)
    return _MAGIC + bytes((version,)) + kind + compressor.compress(msgspec.msgpack.encode(message))


def is_short(data: bytes) -> bool:
    """Whether `data` says that it is a message of version 2."""
    return data[:3] == _MAGIC + bytes((SHORT_VERSION,))


def decode(data: bytes, kind: type[Message]) -> Message:
    """The message in `data`, which must be of `kind`.

    Raises TooLargeError, UnsupportedVersionError or MalformedError; column lengths are checked by
    `wire.validate`.
    """
    letter, most, most_decoded = _KINDS[kind]
    if len(data) > most:
        raise TooLargeError(f"{kind.__name__} of {len(data)} bytes; at most {most} are allowed")
    if len(data) < 4 or data[:2] != _MAGIC:
        raise MalformedError(f"not a Flamefleet message: it must start with {_MAGIC!r}")
    if data[2] != _version(kind):
        raise UnsupportedVersionError(
            f"wire version {data[2]} is unknown here, where a {kind.__name__} has version "
            f"{_version(kind)}: upgrade the older of agent and aggregator"
        )
    if data[3:4] != letter:
        raise MalformedError(f"message kind {data[3:4]!r} where {letter!r} was expected")
    return _decode_body(data, kind, most_decoded)


def _version(kind: type) -> int:
    return SHORT_VERSION if kind in _OF_VERSION_2 else VERSION


def _decode_body(data: bytes, kind: type[Message], most_decoded: int) -> Message:
    try:
        declared = zstandard.frame_content_size(data[4:])
        if declared < 0:
            raise MalformedError("the compressed body does not declare its size")
        if declared > most_decoded:
            raise TooLargeError(
                f"body declares {declared} bytes decoded; at most {most_decoded} are allowed"
            )
        words = _WORDS if kind in _OF_VERSION_2 else None
        decompressor = zstandard.ZstdDecompressor(dict_data=words)
        body = decompressor.decompress(data[4:], max_output_size=most_decoded)
        message: Message = _DECODERS[kind].decode(body)
        return message
    except zstandard.ZstdError as error:
        raise MalformedError(f"body is truncated or not zstd: {error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedError(f"body is not a {kind.__name__}: {error}") from error
