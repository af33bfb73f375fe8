"""Native symbols: from a reduced ELF file to a symcache, and from file offsets to functions.

The only module that touches `symbolic`; its errors become RefusedExtractError here. Its Rust code
reads hostile files, so this runs only in the parser's child process.

Stored form: u32 segments, then (u64 offset, u64 address, u64 size) each, little-endian, then the
symcache. The segments are kept because frames are file offsets, which a symcache doesn't know.
"""

import struct
from collections.abc import Sequence
from typing import Any

from symbolic.debuginfo import Archive
from symbolic.exceptions import SymbolicError
from symbolic.symcache import SymCache

from aggregator.symbols.demangle import readable
from aggregator.symbols.elf import Segment, gnu_build_id, load_segments, relative_address
from aggregator.symbols.errors import RefusedExtractError
from aggregator.symbols.names import clean
from aggregator.symbols.sandbox import Place

_COUNT = struct.Struct("<I")
_SEGMENT = struct.Struct("<QQQ")
_SymCache: Any = SymCache  # its methods have no types


def build_symcache(elf: bytes, build_id: bytes) -> bytes:
    """Stored form of the symbols in the ELF file `elf`.

    Raises RefusedExtractError when it isn't one, has no symbols, or says that it is another build.
    """
    segments = load_segments(elf)
    own_id = gnu_build_id(elf)
    if own_id is not None and own_id != build_id:
        raise RefusedExtractError(f"it is of build {own_id[:64].hex()}, not of {build_id.hex()}")
    try:
        objects = list(Archive.from_bytes(elf).iter_objects())
        if len(objects) != 1 or objects[0].file_format != "elf":
            raise RefusedExtractError("not a single ELF object")
        if not objects[0].features & {"symtab", "debug"}:
            raise RefusedExtractError("no symbols in it")
        opened: Any = objects[0].make_symcache()
        symcache: bytes = opened.open_stream().read()
    except SymbolicError as error:
        words = " ".join(error.message.split("\n")[:2])  # what, caused by what; then a backtrace
        raise RefusedExtractError(f"unreadable: {clean(words)}") from error
    head = b"".join(_SEGMENT.pack(each.offset, each.address, each.size) for each in segments)
    return _COUNT.pack(len(segments)) + head + symcache


def lookup(stored: bytes, offsets: Sequence[int]) -> list[Place | None]:
    """Place of each file offset, innermost function; None where no symbol covers it.

    Raises RefusedExtractError when `stored` is damaged.
    """
    try:
        (count,) = _COUNT.unpack_from(stored)
        start = _COUNT.size + count * _SEGMENT.size
        segments = [Segment(*each) for each in _SEGMENT.iter_unpack(stored[_COUNT.size : start])]
        symcache = _SymCache.from_bytes(stored[start:])
        return [_place(symcache, segments, offset) for offset in offsets]
    except (struct.error, SymbolicError) as error:
        raise RefusedExtractError(f"damaged symcache: {error}") from error


def _place(symcache: Any, segments: Sequence[Segment], offset: int) -> Place | None:
    address = relative_address(segments, offset)
    found = [] if address is None else symcache.lookup(address)
    if not found or not found[0].symbol:
        return None
    innermost = found[0]
    file = clean(innermost.full_path) if innermost.full_path else None
    return readable(innermost.symbol), file, innermost.line or None
