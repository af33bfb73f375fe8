"""Native symbols: from an ELF file to a form for look-up, and from file offsets to functions.

Three sources are looked into, the best that knows the address answers: debug information (lines and
inlined functions), Go's own table (the same for Go), and symbol tables, the file's own and the one
inside `.gnu_debugdata`, of which the nearest symbol counts. Runs only in the parser's child.

Stored form: b"FFN2", then msgpack of `_Stored`. The segments are kept because frames are file
offsets, which the sources don't know.
"""

from collections.abc import Sequence

import msgspec

from aggregator.symbols import minidebug
from aggregator.symbols.elf import (
    Data,
    Segment,
    content_of,
    entry_point,
    load_segments,
    noted_build_id,
    relative_address,
    sections,
)
from aggregator.symbols.errors import RefusedExtractError
from aggregator.symbols.names import clean
from aggregator.symbols.symcaches import Found, OpenSymCache, make_symcache
from wire.function_names import readable
from wire.gopclntab import GoTable, GoTableError, check_text, open_table
from wire.pprof import Line

_MAGIC = b"FFN2"
_GO_TABLES = (".gopclntab", ".data.rel.ro.gopclntab")


class _Go(msgspec.Struct, array_like=True):
    """The sections that Go's functions are read from."""

    table: bytes
    table_address: int
    text_address: int
    moduledata: bytes


class _Stored(msgspec.Struct, array_like=True):
    segments: list[tuple[int, int, int]]  # offset, address, size
    symcaches: list[tuple[bytes, int]]  # and what to add to an address of the file for them
    go: _Go | None


def build_symbols(elf: bytes, build_id: bytes) -> bytes:
    """Stored form of the symbols in the ELF file `elf`.

    Raises RefusedExtractError when it isn't one, has no symbols, or says that it is another build.
    """
    own_id = noted_build_id(elf)
    if own_id is not None and own_id != build_id:
        raise RefusedExtractError(f"it is of build {own_id[:64].hex()}, not of {build_id.hex()}")
    return store_symbols(elf)[0]


def store_symbols(data: Data) -> tuple[bytes, bool]:
    """Stored form of the symbols in an ELF file, whose content is `data`, and whether there is
    debug information. Raises RefusedExtractError."""
    segments = load_segments(data)
    symcaches = []
    has_debug = False
    made = make_symcache(data)
    if made is not None:
        symcaches.append((made[0], 0))
        has_debug = made[1]
    found = {section.name: section for section in sections(data)}
    packed = found.get(".gnu_debugdata")
    damage = ""
    if packed is not None and (content := content_of(data, packed)):
        try:
            inner = minidebug.unpack(content)
            made = make_symcache(inner)
            if made is not None:
                # Its addresses count from its own first segment.
                symcaches.append((made[0], segments[0].address - load_segments(inner)[0].address))
        except RefusedExtractError as error:
            damage = f": {error.message}"  # the file's other tables may still do
    go = None
    for name in _GO_TABLES:
        if name in found and (content := content_of(data, found[name])):
            text = found.get(".text")
            module = found.get(".go.module")
            go = _Go(
                content,
                found[name].address,
                text.address if text else 0,
                content_of(data, module) if module else b"",
            )
            go = go if _is_sound(go, entry_point(data)) else None
    if not symcaches and go is None:
        raise RefusedExtractError(f"no symbols in it{damage}")
    rows = [(each.offset, each.address, each.size) for each in segments]
    return _MAGIC + msgspec.msgpack.encode(_Stored(rows, symcaches, go)), has_debug


def lookup(stored: bytes, offsets: Sequence[int]) -> list[list[Line]]:
    """What runs at each file offset, the innermost function first; empty where no symbol covers it.

    Raises RefusedExtractError when `stored` is damaged.
    """
    if not stored.startswith(_MAGIC):
        raise RefusedExtractError("damaged symbols: not the stored form")
    try:
        opened = msgspec.msgpack.decode(stored[len(_MAGIC) :], type=_Stored)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise RefusedExtractError(f"damaged symbols: {error}") from error
    symbols = _Symbols(opened)
    return [symbols.lookup(offset) for offset in offsets]


class _Symbols:
    def __init__(self, stored: _Stored) -> None:
        self._segments = [Segment(*row) for row in stored.segments]
        self._symcaches = [(OpenSymCache(data), shift) for data, shift in stored.symcaches]
        try:
            self._go = _open_go(stored.go) if stored.go is not None else None
        except GoTableError as error:
            raise RefusedExtractError(f"damaged symbols: {error}") from error

    def lookup(self, offset: int) -> list[Line]:
        address = relative_address(self._segments, offset)
        if address is None:
            return []
        nearest: Found | None = None
        for symcache, shift in self._symcaches:
            found = symcache.lookup(address + shift) if 0 <= address + shift < 1 << 63 else None
            if found is None:
                continue
            if any(line.line for line in found.lines):
                return found.lines
            if nearest is None or found.start - shift > nearest.start:
                nearest = Found(found.lines, found.start - shift)
        return self._lookup_go(address) or (nearest.lines if nearest is not None else [])

    def _lookup_go(self, address: int) -> list[Line]:
        if self._go is None:
            return []
        try:
            lines = self._go.lookup(address + self._segments[0].address)
        except GoTableError:
            return []  # damaged there; the symbol tables may still know
        return [
            Line(clean(readable(line.function, lambda _: None)), clean(line.file), line.line)
            for line in lines
        ]


def _open_go(go: _Go) -> GoTable:
    return open_table(go.table, go.table_address, go.text_address, go.moduledata)


def _is_sound(go: _Go, entry: int) -> bool:
    try:
        check_text(_open_go(go), entry)
    except GoTableError:
        return False
    return True
