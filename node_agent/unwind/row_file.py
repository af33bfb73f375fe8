"""Unwind rows as a file: the form in which they are kept, and in which a child hands them over.

Version 2, little-endian: b"FFROWS", u16 version, the BLAKE2b-128 (personalised `ff-rows`) of all
that follows; u8 length of the build id, u8 flags (1: frame pointers where there are no rows), u16
code segments, u32 bytes of notes, u32 bytes of the block, u32 rows, u32 signal pcs, u64 base; the
build id; the segments, each u64 file offset, address and size; the signal pcs, u32; the notes,
JSON; the block (`struct row_block` of bpf/events.h).
"""

import json
import struct
from _blake2 import blake2b
from typing import Any

from node_agent.kernel.structs import ROW_CELL_BYTES
from node_agent.unwind.errors import RowFileError
from node_agent.unwind.rows import MAX_BLOCK_BYTES, MAX_SIGNALS, CodeSegment, PackedRows

VERSION = 2
MAX_NOTES_BYTES = 16 << 10
MAX_SEGMENTS = 1_024
_MAGIC = b"FFROWS"
_FRAME_POINTERS = 1
_HEAD = struct.Struct("<6sH16s")
_BODY = struct.Struct("<BBHIIIIQ")
_SEGMENT = struct.Struct("<QQQ")
_SIGNAL = struct.Struct("<I")
MAX_FILE_BYTES = (
    _HEAD.size
    + _BODY.size
    + 64
    + MAX_SEGMENTS * _SEGMENT.size
    + MAX_SIGNALS * _SIGNAL.size
    + MAX_NOTES_BYTES
    + MAX_BLOCK_BYTES
)


def encode_rows(build_id: bytes, rows: PackedRows) -> bytes:
    """The file that holds the rows of the build."""
    notes = json.dumps(rows.notes, separators=(",", ":")).encode()
    body = b"".join(
        (
            _BODY.pack(
                len(build_id),
                _FRAME_POINTERS if rows.frame_pointers else 0,
                len(rows.segments),
                len(notes),
                len(rows.rows),
                rows.row_count,
                len(rows.signals),
                rows.base,
            ),
            build_id,
            *(_SEGMENT.pack(*segment) for segment in rows.segments),
            *(_SIGNAL.pack(pc) for pc in rows.signals),
            notes,
            rows.rows,
        )
    )
    return _HEAD.pack(_MAGIC, VERSION, _checksum(body)) + body


def decode_rows(build_id: bytes, data: bytes) -> PackedRows:
    """The rows in a file that has to be the build's. Raises RowFileError."""
    if len(data) < _HEAD.size + _BODY.size:
        raise RowFileError("a file of rows that ends early")
    magic, version, checksum = _HEAD.unpack_from(data)
    if magic != _MAGIC or version != VERSION:
        raise RowFileError("no file of rows, or one of another version")
    view = memoryview(data)
    if _checksum(view[_HEAD.size :]) != checksum:
        raise RowFileError("a file of rows whose checksum is wrong")
    id_size, flags, segment_count, notes_size, block_size, row_count, signal_count, base = (
        _BODY.unpack_from(data, _HEAD.size)
    )
    id_at = _HEAD.size + _BODY.size
    segments_at = id_at + id_size
    signals_at = segments_at + segment_count * _SEGMENT.size
    notes_at = signals_at + signal_count * _SIGNAL.size
    rows_at = notes_at + notes_size
    if (
        block_size > MAX_BLOCK_BYTES
        or block_size % ROW_CELL_BYTES
        or signal_count > MAX_SIGNALS
        or notes_size > MAX_NOTES_BYTES
        or segment_count > MAX_SEGMENTS
        or rows_at + block_size != len(data)
    ):
        raise RowFileError("a file of rows whose sizes contradict each other")
    if data[id_at:segments_at] != build_id:
        raise RowFileError("a file of another build's rows")
    segments = tuple(
        CodeSegment(*numbers) for numbers in _SEGMENT.iter_unpack(view[segments_at:signals_at])
    )
    return PackedRows(
        data[rows_at:],
        row_count,
        base,
        segments,
        _notes(data[notes_at:rows_at]),
        bool(flags & _FRAME_POINTERS),
        tuple(pc for (pc,) in _SIGNAL.iter_unpack(view[signals_at:notes_at])),
    )


def _notes(text: bytes) -> dict[str, int]:
    try:
        notes: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RowFileError("a file of rows whose notes can't be read") from error
    if not isinstance(notes, dict) or not all(type(count) is int for count in notes.values()):
        raise RowFileError("a file of rows whose notes can't be read")
    return notes


def _checksum(body: bytes | memoryview) -> bytes:
    return blake2b(body, digest_size=16, person=b"ff-rows").digest()
