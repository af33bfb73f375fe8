"""Where a version of CPython keeps what the kernel program reads: offsets.toml beside this file."""

import struct
import sys
from enum import IntEnum
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from node_agent.cpython.errors import OffsetsError, UnknownLayoutError

LIST = Path(__file__).parent / "offsets.toml"
MAX_DEBUG_OFFSETS_BYTES = 2048
_COOKIE = b"xdebugpy"
_MAX_OFFSET = 1 << 15
_MAX_READ_BYTES = 240  # one frame, or the fields of one code object: what the program has room for
_TEXT_COMPACT_MORE = 16  # sizeof(PyCompactUnicodeObject) - sizeof(PyASCIIObject) since 3.12
# Field of Offsets: field of _Py_DebugOffsets.
_SAID = {
    "runtime_interpreters": "runtime_state.interpreters_head",
    "interpreter_next": "interpreter_state.next",
    "interpreter_threads": "interpreter_state.threads_head",
    "thread_next": "thread_state.next",
    "thread_id": "thread_state.thread_id",
    "thread_frame": "thread_state.current_frame",
    "frame_previous": "interpreter_frame.previous",
    "frame_code": "interpreter_frame.executable",
    "frame_owner": "interpreter_frame.owner",
    "code_first_line": "code_object.firstlineno",
    "code_file": "code_object.filename",
    "code_name": "code_object.name",
    "code_qualified_name": "code_object.qualname",
    "code_line_table": "code_object.linetable",
    "text_ascii": "unicode_object.asciiobject_size",
}


class Segments(IntEnum):
    """How to tell which Python frames one call of the evaluator ran (bpf/python_events.h)."""

    EVERY_FRAME = 0
    ENTRY_FLAG = 1
    SHIMS = 2


class Offsets(NamedTuple):
    """Offsets in bytes into the structs of one CPython."""

    segments: Segments
    runtime_interpreters: int
    interpreter_next: int
    interpreter_threads: int
    thread_next: int
    thread_id: int
    thread_frame: int
    frame_previous: int
    frame_code: int
    code_first_line: int
    code_file: int
    code_name: int
    code_qualified_name: int
    code_line_table: int
    text_ascii: int
    text_compact: int
    frame_owner: int = 0
    frame_is_entry: int = 0
    cframe_frame: int = -1  # below 0: the thread state holds the frame itself

    @property
    def frame_bytes(self) -> int:
        """How much of a frame has to be read."""
        last = max(self.frame_previous, self.frame_code)
        return max(last + 8, self.frame_owner + 1, self.frame_is_entry + 1) + 7 & ~7

    @property
    def code_start(self) -> int:
        """Offset of the first byte of a code object that is read."""
        return min(self._code_fields()) & ~7

    @property
    def code_bytes(self) -> int:
        """How much is read from `code_start` on."""
        return max(self._code_fields()) + 8 - self.code_start

    def _code_fields(self) -> tuple[int, ...]:
        names = (self.code_name, self.code_qualified_name)
        return (self.code_first_line, self.code_file, self.code_line_table, *names)


class _List(NamedTuple):
    layouts: dict[str, Offsets]
    debug_fields: dict[str, tuple[tuple[str, ...], Segments]]


def known_versions() -> list[str]:
    """The minor versions that can be read. Raises OffsetsError."""
    listed = _read_list()
    return [*listed.layouts, *listed.debug_fields]


def find_offsets(version: str, debug_offsets: bytes) -> Offsets:
    """The offsets of CPython `version` ("3.11"); `debug_offsets` is the begin of its _PyRuntime.

    Raises UnknownLayoutError, whose words are for people, or OffsetsError.
    """
    listed = _read_list()
    if version in listed.layouts:
        return listed.layouts[version]
    if version not in listed.debug_fields:
        known = ", ".join(known_versions())
        raise UnknownLayoutError(f"CPython {version} is not known here; {known} are")
    fields, segments = listed.debug_fields[version]
    return _read_debug_offsets(version, fields, segments, debug_offsets)


def _read_debug_offsets(
    version: str, fields: tuple[str, ...], segments: Segments, data: bytes
) -> Offsets:
    if len(data) < 8 * len(fields) or not data.startswith(_COOKIE):
        raise UnknownLayoutError(f"this CPython {version} has no debug offsets where they belong")
    said = dict(zip(fields[1:], struct.unpack_from(f"<{len(fields) - 1}Q", data, 8), strict=True))
    major, minor = said["version"] >> 24, said["version"] >> 16 & 0xFF
    if f"{major}.{minor}" != version:
        raise UnknownLayoutError(f"its debug offsets are those of {major}.{minor}, not {version}")
    if said["free_threaded"]:
        raise UnknownLayoutError(f"a free-threaded CPython {version}: not supported")
    found = {name: said[field] for name, field in _SAID.items()}
    found["text_compact"] = found["text_ascii"] + _TEXT_COMPACT_MORE
    if max(found.values()) >= _MAX_OFFSET:
        raise UnknownLayoutError(f"the debug offsets of this CPython {version} make no sense")
    return _checked(Offsets(segments=segments, **found))


def _checked(offsets: Offsets) -> Offsets:
    if max(offsets.frame_bytes, offsets.code_bytes) > _MAX_READ_BYTES:
        raise UnknownLayoutError("its frames or code objects are larger than what is read")
    return offsets


@cache
def _read_list() -> _List:
    toml: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        content = toml.loads(LIST.read_text())
        layouts = {
            version: _checked(
                Offsets(segments=Segments[entry["segments"].upper()], **entry["offsets"])
            )
            for entry in content["layout"]
            for version in entry["versions"]
        }
        debug_fields = {
            entry["version"]: (tuple(entry["fields"].split()), Segments[entry["segments"].upper()])
            for entry in content["debug_offsets"]
        }
    except (OSError, KeyError, TypeError, ValueError, UnknownLayoutError) as error:
        raise OffsetsError(
            f"The list of CPython's offsets cannot be read: {LIST}: {error}", "Install it again."
        ) from error
    return _List(layouts, debug_fields)
