"""Encode and decode messages: a 4-byte header, then zstd level 3 over msgpack.

Header: b"FF", one byte of version, one byte of kind. Decoding checks the size before and while
decompressing, so a small message cannot become a large one.
"""

from typing import Any, TypeVar

import msgspec
import zstandard

from wire import limits
from wire.errors import MalformedError, TooLargeError, UnsupportedVersionError
from wire.schema import Answer, Batch, Definitions, SymbolExtract

VERSION = 1
CONTENT_TYPE = "application/vnd.flamefleet"
_MAGIC = b"FF"
_LEVEL = 3
_KINDS: dict[type, tuple[bytes, int, int]] = {
    Batch: (b"B", limits.MAX_BATCH_BYTES, limits.MAX_BATCH_DECODED_BYTES),
    Definitions: (b"D", limits.MAX_DEFINITIONS_BYTES, limits.MAX_DEFINITIONS_DECODED_BYTES),
    SymbolExtract: (b"S", limits.MAX_EXTRACT_BYTES, limits.MAX_EXTRACT_DECODED_BYTES),
    Answer: (b"A", limits.MAX_BATCH_BYTES, limits.MAX_BATCH_DECODED_BYTES),
}
_DECODERS: dict[type, msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in _KINDS
}
Message = TypeVar("Message", Batch, Definitions, SymbolExtract, Answer)


def encode(message: Batch | Definitions | SymbolExtract | Answer) -> bytes:
    """Bytes of `message` as they are stored in the spool and sent."""
    kind = _KINDS[type(message)][0]
    body = zstandard.ZstdCompressor(level=_LEVEL).compress(msgspec.msgpack.encode(message))
    return _MAGIC + bytes((VERSION,)) + kind + body


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
    if data[2] != VERSION:
        raise UnsupportedVersionError(
            f"wire version {data[2]} is unknown here, which speaks version {VERSION}: "
            "upgrade the older of agent and aggregator"
        )
    if data[3:4] != letter:
        raise MalformedError(f"message kind {data[3:4]!r} where {letter!r} was expected")
    return _decode_body(data, kind, most_decoded)


def _decode_body(data: bytes, kind: type[Message], most_decoded: int) -> Message:
    try:
        declared = zstandard.frame_content_size(data[4:])
        if declared < 0:
            raise MalformedError("the compressed body does not declare its size")
        if declared > most_decoded:
            raise TooLargeError(
                f"body declares {declared} bytes decoded; at most {most_decoded} are allowed"
            )
        body = zstandard.ZstdDecompressor().decompress(data[4:], max_output_size=most_decoded)
        message: Message = _DECODERS[kind].decode(body)
        return message
    except zstandard.ZstdError as error:
        raise MalformedError(f"body is truncated or not zstd: {error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedError(f"body is not a {kind.__name__}: {error}") from error
