"""Symcaches: functions, lines and inlined functions by address.

The only module that touches `symbolic`; its errors become RefusedExtractError here. Its Rust code
reads hostile files, so this runs only in the parser's child process.
"""

from dataclasses import dataclass
from typing import Any

from symbolic._lowlevel import ffi
from symbolic.debuginfo import Archive
from symbolic.exceptions import SymbolicError
from symbolic.symcache import SymCache

from aggregator.symbols.demangle import readable
from aggregator.symbols.elf import Data
from aggregator.symbols.errors import RefusedExtractError
from aggregator.symbols.names import clean
from wire.pprof import Line

MOST_INLINED = 64  # levels; the inner ones are kept
_INLINED = 0xFFFFFFFF  # no function begins at an inlined one's address
_SymCache: Any = SymCache  # its methods have no types


@dataclass(frozen=True)
class Found:
    """What runs at an address, the innermost function first, and where the outermost begins."""

    lines: list[Line]
    start: int


class OpenSymCache:
    """An opened symcache. Addresses count from the first segment's."""

    def __init__(self, data: bytes) -> None:
        """Raises RefusedExtractError when it is damaged."""
        try:
            self._symcache = _SymCache.from_bytes(data)
        except SymbolicError as error:
            raise RefusedExtractError(f"damaged symcache: {error}") from error

    def lookup(self, address: int) -> Found | None:
        """None where no symbol covers the address. Raises RefusedExtractError on damage."""
        try:
            found = self._symcache.lookup(address)
        except SymbolicError as error:
            raise RefusedExtractError(f"damaged symcache: {error}") from error
        lines = [
            Line(readable(each.symbol), clean(each.full_path or ""), each.line or 0)
            for each in found[:MOST_INLINED]
            if each.symbol
        ]
        if not lines:
            return None
        start = found[-1].sym_addr
        return Found(lines, address if start == _INLINED else start)


def make_symcache(elf: Data) -> tuple[bytes, bool] | None:
    """The symcache of an ELF file, and whether it has debug information; None when it has no
    symbols at all. The file's content is not copied.

    Raises RefusedExtractError when it is no single ELF object or cannot be read.
    """
    try:
        archive = Archive.from_bytes(ffi.from_buffer("uint8_t[]", elf))
        objects = list(archive.iter_objects())
        if len(objects) != 1 or objects[0].file_format != "elf":
            raise RefusedExtractError("not a single ELF object")
        features = objects[0].features
        if not features & {"symtab", "debug"}:
            return None
        made: Any = objects[0].make_symcache()
        return made.open_stream().read(), "debug" in features
    except SymbolicError as error:
        words = " ".join(error.message.split("\n")[:2])  # what, caused by what; then a backtrace
        raise RefusedExtractError(f"unreadable: {clean(words)}") from error
