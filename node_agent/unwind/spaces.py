"""The executable mappings of one process in the form that the kernel program searches. Pure.

A part is a run of mappings that need no telling apart: the mappings of one file with the same
distance to it, or code without a file. What rows a part has is filled in when it is packed, so
processes with equal parts (forks) share one list.
"""

import struct
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import NamedTuple

from node_agent.kernel.structs import (
    MAPPING_FRAME_POINTER,
    MAPPING_NO_ROOM,
    MAPPING_NO_ROWS,
    MAPPING_PENDING,
    MAX_MAPPINGS,
    UNWIND_MAPPING,
)
from node_agent.processes.mappings import Mapping
from node_agent.unwind.arena import Extent

_PAGE = 4096
_SQUEEZED = struct.Struct("=QQQQB")
SQUEEZED_BYTES = _SQUEEZED.size
_ADDRESSES = 1 << 64
_USER_END = 1 << 63  # above it is the kernel's: [vsyscall]


class Kind(IntEnum):
    """What is known of code without rows: enum mapping_kind of bpf/events.h."""

    FRAME_POINTER = MAPPING_FRAME_POINTER
    NO_ROWS = MAPPING_NO_ROWS
    NO_ROOM = MAPPING_NO_ROOM
    PENDING = MAPPING_PENDING


class Segment(NamedTuple):
    """An executable segment of an ELF file."""

    offset: int
    address: int  # as the file says (p_vaddr)
    size: int


class Place(NamedTuple):
    """Where the rows of a module lie, and how its addresses relate to them."""

    extent: Extent
    base: int  # address that pc 0 stands for
    segments: tuple[Segment, ...]
    signals: tuple[int, ...] = ()  # pcs of the code that signal handlers return to


class Part(NamedTuple):
    """`offset` is the file offset of `start`; `module` the file's hash, or None: then `kind`
    says it all."""

    start: int
    end: int
    offset: int
    module: int | None
    kind: Kind = Kind.PENDING


Identify = Callable[[Mapping], "int | Kind"]
Look = Callable[[int], "Place | Kind"]


def plan_parts(mappings: Iterable[Mapping], identify: Identify) -> tuple[Part, ...]:
    """Parts of `mappings`, which are sorted by address; `identify` gives the hash of the file
    behind a mapping, or the kind of what has none."""
    parts: list[Part] = []
    for mapping in mappings:
        if mapping.start >= _USER_END or mapping.end <= mapping.start:
            continue
        found = identify(mapping)
        if isinstance(found, Kind):
            part = Part(mapping.start, mapping.end, 0, None, found)
        else:
            part = Part(mapping.start, mapping.end, mapping.offset, found)
        last = parts[-1] if parts else None
        if last is not None and _continues(last, part):
            parts[-1] = last._replace(end=part.end)
        else:
            parts.append(part)
    return tuple(parts)


def fit(parts: tuple[Part, ...], limit: int = MAX_MAPPINGS) -> tuple[Part, ...]:
    """At most `limit` parts, still sorted: files first, then the largest."""
    if len(parts) <= limit:
        return parts
    best = sorted(parts, key=lambda part: (part.module is None, part.start - part.end))
    return tuple(sorted(best[:limit]))


def squeeze(parts: Iterable[Part]) -> bytes:
    """The same in 33 bytes each, where a Part takes 200."""
    return b"".join(
        _SQUEEZED.pack(start, end, offset, module or 0, kind if module is None else 0)
        for start, end, offset, module, kind in parts
    )


def expand(squeezed: bytes) -> tuple[Part, ...]:
    """What was squeezed."""
    return tuple(
        Part(start, end, offset, None, Kind(kind)) if kind else Part(start, end, offset, module)
        for start, end, offset, module, kind in _SQUEEZED.iter_unpack(squeezed)
    )


def pack_parts(parts: Iterable[Part], look: Look) -> bytes:
    """An array of struct unwind_mapping; `look` tells where the rows of a module are."""
    return b"".join(
        UNWIND_MAPPING.pack(part.start, part.end, *_locate(part, look)) for part in parts
    )


def signal_addresses(parts: Iterable[Part], look: Look) -> frozenset[int]:
    """The addresses that signal handlers return to. A frame of one of them and the frame below it
    are exact addresses, no return addresses."""
    found = set()
    for part in parts:
        place = look(part.module) if part.module is not None else None
        if isinstance(place, Place) and place.signals:
            bias = _bias(part, place)
            if bias is not None:
                # glibc lets the row begin one byte early, for those who subtract one.
                found |= {
                    (pc + bias + extra) % _ADDRESSES for pc in place.signals for extra in (0, 1)
                }
    return frozenset(found)


def _continues(last: Part, part: Part) -> bool:
    if last.end != part.start or last.module != part.module:
        return False
    if part.module is None:
        return last.kind == part.kind
    return last.start - last.offset == part.start - part.offset


def _locate(part: Part, look: Look) -> tuple[int, int, int]:
    """bias, first_cell, cell_count."""
    found = part.kind if part.module is None else look(part.module)
    if isinstance(found, Kind):
        return 0, found, 0
    bias = _bias(part, found)
    return (0, Kind.NO_ROWS, 0) if bias is None else (bias, *found.extent)


def _bias(part: Part, place: Place) -> int | None:
    """What an address in `part` exceeds its pc by; None where no segment is mapped there."""
    end = part.offset + part.end - part.start
    best, most = None, 0
    for segment in place.segments:
        # The loader maps whole pages, so neighbours may show at the edges.
        first = segment.offset // _PAGE * _PAGE
        last = -(-(segment.offset + segment.size) // _PAGE) * _PAGE
        overlap = min(end, last) - max(part.offset, first)
        if overlap > most:
            best, most = segment, overlap
    if best is None:
        return None
    return (part.start - part.offset + best.offset - best.address + place.base) % _ADDRESSES
