"""Encode and decode messages: a 4-byte header, then zstd level 3 over msgpack.

Header: b"FF", one byte of version, one byte of kind. Version 2 is the short form of a batch and the
packed one of definitions; its zstd frames refer to WORDS as a dictionary. Decoding checks the size
before and while decompressing, and the number of items before it makes them, so a small message
cannot become a large one.
"""

from typing import Any, NamedTuple, TypeVar

import msgspec
import zstandard

from wire import limits
from wire.errors import MalformedError, TooLargeError, UnsupportedVersionError, WireError
from wire.packed import PackedDefinitions
from wire.scan import check_items
from wire.schema import Answer, Batch, Definitions, ExtractView, SymbolExtract
from wire.short import ShortBatch
from wire.words import WORDS

VERSION = 1
SHORT_VERSION = 2
DEFINITIONS_VERSION = 2  # the newest
CONTENT_TYPE = "application/vnd.flamefleet"
SHORT_TYPE = f"{CONTENT_TYPE};version={SHORT_VERSION}"  # Accept: who sends it wants numbers
_MAGIC = b"FF"
_LEVEL = 3


class _Bounds(NamedTuple):
    """Of one kind of message."""

    letter: bytes
    most_bytes: int  # on the wire
    most_decoded: int  # bytes of its body
    most_items: int


_BATCH = _Bounds(
    b"B", limits.MAX_BATCH_BYTES, limits.MAX_BATCH_DECODED_BYTES, limits.MAX_BATCH_ITEMS
)
_DEFINITIONS = _Bounds(
    b"D",
    limits.MAX_DEFINITIONS_BYTES,
    limits.MAX_DEFINITIONS_DECODED_BYTES,
    limits.MAX_DEFINITIONS_ITEMS,
)
_EXTRACT = _Bounds(
    b"S", limits.MAX_EXTRACT_BYTES, limits.MAX_EXTRACT_DECODED_BYTES, limits.MAX_EXTRACT_ITEMS
)
_KINDS: dict[type, _Bounds] = {
    Batch: _BATCH,
    ShortBatch: _BATCH,
    Definitions: _DEFINITIONS,
    PackedDefinitions: _DEFINITIONS,
    SymbolExtract: _EXTRACT,
    ExtractView: _EXTRACT,
    Answer: _BATCH._replace(letter=b"A"),
}
_OF_VERSION_2 = (ShortBatch, PackedDefinitions)
_DECODERS: dict[type, msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in _KINDS
}
_WORDS = zstandard.ZstdCompressionDict(WORDS, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
Message = TypeVar(
    "Message", Batch, Definitions, SymbolExtract, ExtractView, Answer, ShortBatch, PackedDefinitions
)
AnyMessage = Batch | Definitions | SymbolExtract | Answer | ShortBatch | PackedDefinitions


def encode(message: AnyMessage) -> bytes:
    """Bytes of `message` as they are stored in the spool and sent."""
    kind = _KINDS[type(message)].letter
    version = _version(type(message))
    words = _WORDS if version == SHORT_VERSION else None
    compressor = zstandard.ZstdCompressor(level=_LEVEL, dict_data=words)
    return _MAGIC + bytes((version,)) + kind + compressor.compress(msgspec.msgpack.encode(message))


def is_short(data: bytes) -> bool:
    """Whether `data` says that it is a message of version 2."""
    return data[:3] == _MAGIC + bytes((SHORT_VERSION,))


def declared_bytes(data: bytes) -> int:
    """How large the body of `data` says that it becomes: the work of decoding it, before that is
    done. 0 where it says nothing; such a message is refused."""
    try:
        return max(0, zstandard.frame_content_size(data[4:]))
    except zstandard.ZstdError:
        return 0


def decode(data: bytes, kind: type[Message]) -> Message:
    """The message in `data`, which must be of `kind`.

    Raises TooLargeError, UnsupportedVersionError or MalformedError; column lengths are checked by
    `wire.validate`.
    """
    bounds = _KINDS[kind]
    if len(data) > bounds.most_bytes:
        raise TooLargeError(
            f"{kind.__name__} of {len(data)} bytes; at most {bounds.most_bytes} are allowed"
        )
    if len(data) < 4 or data[:2] != _MAGIC:
        raise MalformedError(f"not a Flamefleet message: it must start with {_MAGIC!r}")
    if data[2] != _version(kind):
        raise UnsupportedVersionError(
            f"wire version {data[2]} is unknown here, where a {kind.__name__} has version "
            f"{_version(kind)}: upgrade the older of agent and aggregator"
        )
    if data[3:4] != bounds.letter:
        raise MalformedError(f"message kind {data[3:4]!r} where {bounds.letter!r} was expected")
    try:
        return _decode_body(data, kind, bounds)
    except WireError as error:
        # The frames that an error knows hold the body, and whoever keeps the error keeps them.
        refusal = error.with_traceback(None)
        refusal.__cause__ = refusal.__context__ = None
    raise refusal


def _version(kind: type) -> int:
    return SHORT_VERSION if kind in _OF_VERSION_2 else VERSION


def _decode_body(data: bytes, kind: type[Message], bounds: _Bounds) -> Message:
    most = bounds.most_decoded
    try:
        declared = zstandard.frame_content_size(data[4:])
        if declared < 0:
            raise MalformedError("the compressed body does not declare its size")
        if declared > most:
            raise TooLargeError(
                f"body declares {declared} bytes decoded; at most {most} are allowed"
            )
        words = _WORDS if kind in _OF_VERSION_2 else None
        decompressor = zstandard.ZstdDecompressor(dict_data=words)
        body = decompressor.decompress(data[4:], max_output_size=most)
        check_items(body, bounds.most_items)
        message: Message = _DECODERS[kind].decode(body)
        return message
    except zstandard.ZstdError as error:
        raise MalformedError(f"body is truncated or not zstd: {error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"body is not a {kind.__name__}: {error}") from error
