"""Encode profiles as pprof (https://github.com/google/pprof/blob/main/proto/profile.proto).

Written by hand because a protobuf runtime costs more than the agent may weigh. The sample types
are always [samples/count, cpu/nanoseconds] with a period type, or `pprof -diff_base` refuses the
file. The body itself is gzipped; it is sent without a Content-Encoding.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class Line(NamedTuple):
    """A function and the place in its source; the line is 0 where it is not known."""

    function: str
    file: str = ""
    line: int = 0


class Frame(NamedTuple):
    """One frame with its symbol; an unresolved one has a function like `libc.so.6+0x29d90`.

    `callers` are the functions that this one was inlined into, the outermost first: one frame of
    the stack, several functions.
    """

    function: str
    module: str = ""
    file: str = ""
    line: int = 0
    address: int = 0
    build_id: str = ""
    callers: tuple[Line, ...] = ()


def encode_profile(
    stacks: Iterable[tuple[Sequence[Frame], int, Mapping[str, str]]],
    period_ns: int,
    start_ns: int,
    duration_ns: int,
) -> bytes:
    """Gzipped pprof of `stacks`: (frames root first, number of samples, labels).

    `period_ns` is the CPU time of one sample; `start_ns` is Unix time.
    """
    weighted = ((frames, count, count * period_ns, labels) for frames, count, labels in stacks)
    return encode_weighted_profile(weighted, period_ns, start_ns, duration_ns)


def encode_weighted_profile(
    stacks: Iterable[tuple[Sequence[Frame], int, int, Mapping[str, str]]],
    period_ns: int,
    start_ns: int,
    duration_ns: int,
) -> bytes:
    """Like `encode_profile`, for samples of several rates: (frames, samples, CPU ns, labels)."""
    tables = _Tables()
    samples = bytearray()
    for frames, count, cpu_ns, labels in stacks:
        locations = b"".join(tables.location(frame) for frame in reversed(frames))
        body = _bytes(1, locations) + _bytes(2, _varint(count) + _varint(cpu_ns))
        for key, value in labels.items():
            body += _bytes(3, _int(1, tables.string(key)) + _int(2, tables.string(value)))
        samples += _bytes(2, body)
    cpu = _value_type(tables, "cpu", "nanoseconds")
    profile = b"".join(
        (
            _bytes(1, _value_type(tables, "samples", "count")),
            _bytes(1, cpu),
            bytes(samples),
            bytes(tables.mappings),
            bytes(tables.locations),
            bytes(tables.functions),
            _int(9, start_ns),
            _int(10, duration_ns),
            _bytes(11, cpu),
            _int(12, period_ns),
            _int(14, tables.string("cpu")),
            # The string table is complete only now; order of fields is free in protobuf.
            b"".join(_bytes(6, text.encode("utf-8", "replace")) for text in tables.strings),
        )
    )
    compressor = zlib.compressobj(6, zlib.DEFLATED, 31)
    return compressor.compress(profile) + compressor.flush()


class _Tables:
    """The profile's tables of strings, mappings, functions and locations, each entry once."""

    def __init__(self) -> None:
        self.strings: dict[str, int] = {"": 0}
        self.mappings = bytearray()
        self.functions = bytearray()
        self.locations = bytearray()
        self._mapping_ids: dict[tuple[str, str], int] = {}
        self._function_ids: dict[tuple[str, str], int] = {}
        self._location_ids: dict[Frame, bytes] = {}

    def string(self, text: str) -> int:
        return self.strings.setdefault(text, len(self.strings))

    def location(self, frame: Frame) -> bytes:
        """The location's id as a varint."""
        known = self._location_ids.get(frame)
        if known is None:
            number = len(self._location_ids) + 1
            known = self._location_ids[frame] = _varint(number)
            # The innermost function first; the last is the one that the others were inlined into.
            innermost = Line(frame.function, frame.file, frame.line)
            lines = b"".join(
                _bytes(4, _int(1, self._function(line)) + _int(2, line.line))
                for line in (innermost, *reversed(frame.callers))
            )
            self.locations += _bytes(
                4,
                _int(1, number) + _int(2, self._mapping(frame)) + _int(3, frame.address) + lines,
            )
        return known

    def _function(self, line: Line) -> int:
        key = (line.function, line.file)
        number = self._function_ids.get(key)
        if number is None:
            number = self._function_ids[key] = len(self._function_ids) + 1
            name = self.string(line.function)
            self.functions += _bytes(
                5,
                _int(1, number) + _int(2, name) + _int(3, name) + _int(4, self.string(line.file)),
            )
        return number

    def _mapping(self, frame: Frame) -> int:
        if not frame.module:
            return 0
        key = (frame.module, frame.build_id)
        number = self._mapping_ids.get(key)
        if number is None:
            number = self._mapping_ids[key] = len(self._mapping_ids) + 1
            # has_functions (7) keeps pprof from looking for the file to symbolize it again.
            self.mappings += _bytes(
                3,
                _int(1, number)
                + _int(5, self.string(frame.module))
                + _int(6, self.string(frame.build_id))
                + _int(7, 1),
            )
        return number


def _value_type(tables: _Tables, kind: str, unit: str) -> bytes:
    return _int(1, tables.string(kind)) + _int(2, tables.string(unit))


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value) if value else b""


def _bytes(field: int, body: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(body)) + body
