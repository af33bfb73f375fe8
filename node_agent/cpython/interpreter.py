"""What an ELF file with a CPython in it (an executable or libpython) says about that CPython.

Pure, on untrusted input; runs in a confined child (node_agent/cpython/child.py).
"""

import re
import struct
from typing import NamedTuple

from node_agent.cpython.errors import UnknownLayoutError
from node_agent.cpython.eval_pieces import frame_entries, split_pieces
from node_agent.cpython.offsets import MAX_DEBUG_OFFSETS_BYTES
from node_agent.symbols.elf import (
    PT_LOAD,
    SHT_DYNSYM,
    SHT_NOBITS,
    SHT_SYMTAB,
    SYMBOL,
    ReadAt,
    Section,
    Segment,
    read_header,
    read_sections,
    read_segments,
)

# python3.11, python3.8-pgo, libpython3.12.so.1.0, libpython3.13t.so.1.0
FILE_NAME = re.compile(r"^(?:lib)?python3(?:\.(\d{1,2}))?(t?)(?=$|[^0-9a-z])")
MAX_TABLE_BYTES = 64 << 20
MAX_RANGES = 16
MIN_EVALUATOR_BYTES = 16 << 10  # the loop of every version is 34 KB and more
EVALUATOR = "_PyEval_EvalFrameDefault"
# Parts of a call from one Python function to another: they say nothing that the two don't.
GLUE = (
    *("call_function", "function_code_fastcall", "_PyFunction_Vectorcall"),
    *("_PyFunction_FastCallDict", "_PyEval_EvalCodeWithName", "_PyEval_EvalCode"),
    *("_PyEval_Vector", "PyEval_EvalCodeEx", "PyEval_EvalCode", "PyEval_EvalFrameEx"),
    "py_trampoline_evaluator",  # under -X perf
)
_PY_VERSION, _RUNTIME = "Py_Version", "_PyRuntime"
_RUNTIME_SECTION = ".PyRuntime"
_EXECUTABLE = 1  # PF_X
_PARTS = re.compile(rb"\0(_PyEval_EvalFrameDefault\.(?:cold|part|constprop|isra)[.\w]*)(?=\0)")
_TAIL_CALLS = b"\0_TAIL_CALL_"


class Interpreter(NamedTuple):
    """Addresses are those of the file (ELF virtual addresses); ranges are [start, end)."""

    version: str  # "3.11"
    runtime: int  # of _PyRuntime
    debug_offsets: bytes  # the begin of _PyRuntime; empty before 3.13
    evaluator: tuple[tuple[int, int], ...]
    glue: tuple[tuple[int, int], ...]
    segments: tuple[tuple[int, int, int], ...]  # executable: file offset, address, size in file

    def bias(self, start: int, offset: int) -> int | None:
        """What to add to an address of the file, when the file's byte `offset` (of a page) is
        mapped executable at `start`."""
        for file_offset, address, size in self.segments:
            if file_offset & ~4095 <= offset < file_offset + size:
                return start - (address - file_offset + offset)
        return None


class _Symbol(NamedTuple):
    value: int
    size: int


def read_interpreter(read: ReadAt, file_size: int, file_name: str) -> Interpreter:
    """What the file `file_name` says. Raises ElfError, or UnknownLayoutError with the reason in
    words when it holds no CPython whose frames can be found."""
    header = read_header(read)
    segments = read_segments(read, header)
    sections = read_sections(read, header, file_size)
    symbols, has_tail_calls = _read_symbols(read, sections)
    if EVALUATOR not in symbols:
        raise UnknownLayoutError(f"{file_name} holds no CPython: it has no {EVALUATOR}")
    version = _read_version(read, segments, symbols, file_name)
    runtime = _find_runtime(sections, symbols)
    if runtime is None:
        raise UnknownLayoutError(f"{file_name} has neither {_RUNTIME} nor {_RUNTIME_SECTION}")
    if has_tail_calls:
        raise UnknownLayoutError("a CPython whose evaluator is made of tail calls: not supported")
    evaluator = _find_evaluator(read, segments, sections, symbols)
    if sum(end - start for start, end in evaluator) < MIN_EVALUATOR_BYTES:
        raise UnknownLayoutError(
            "most of its evaluator can't be found (built with tail calls, or split and stripped)"
        )
    glue = sorted(
        (symbols[name].value, symbols[name].value + symbols[name].size)
        for name in GLUE
        if name in symbols and symbols[name].size
    )
    return Interpreter(
        version,
        runtime,
        _read_at_address(read, segments, runtime, MAX_DEBUG_OFFSETS_BYTES),
        tuple(evaluator[:MAX_RANGES]),
        tuple(glue[: MAX_RANGES - len(evaluator)]),
        tuple(
            (segment.offset, segment.vaddr, segment.filesz)
            for segment in segments
            if segment.type == PT_LOAD and segment.flags & _EXECUTABLE
        ),
    )


def _read_symbols(read: ReadAt, sections: list[Section]) -> tuple[dict[str, _Symbol], bool]:
    """The symbols that are of use, and whether there are functions of tail calls."""
    found: dict[str, _Symbol] = {}
    has_tail_calls = False
    for section in sections:
        if section.type not in (SHT_SYMTAB, SHT_DYNSYM) or section.link >= len(sections):
            continue
        strings = sections[section.link]
        if section.size + strings.size > MAX_TABLE_BYTES or strings.type == SHT_NOBITS:
            continue
        names = read(strings.offset, strings.size)
        has_tail_calls = has_tail_calls or _TAIL_CALLS in names
        # The few names first: an interpreter has 14,000 symbols.
        wanted = {}
        for name in (EVALUATOR, _RUNTIME, _PY_VERSION, *GLUE):
            at = names.find(b"\0" + name.encode() + b"\0")
            if at >= 0:
                wanted[at + 1] = name
        for part in _PARTS.finditer(names):
            wanted[part.start(1)] = part[1].decode()
        if not wanted:
            continue
        table = read(section.offset, section.size - section.size % SYMBOL.size)
        for index, _, _, section_index, value, size in SYMBOL.iter_unpack(table):
            if index in wanted and section_index != 0:
                found[wanted[index]] = _Symbol(value, size)
    return found, has_tail_calls


def _read_version(
    read: ReadAt, segments: list[Segment], symbols: dict[str, _Symbol], file_name: str
) -> str:
    """From Py_Version (there since 3.11), else from the file's name."""
    name = FILE_NAME.match(file_name)
    if name is not None and name[2]:
        raise UnknownLayoutError("a free-threaded CPython: not supported")
    if _PY_VERSION in symbols:
        data = _read_at_address(read, segments, symbols[_PY_VERSION].value, 8)
        if len(data) == 8:
            (number,) = struct.unpack("<Q", data)
            return f"{number >> 24 & 0xFF}.{number >> 16 & 0xFF}"
    if name is None or name[1] is None:
        raise UnknownLayoutError(f"nothing tells which version of CPython {file_name} is")
    return f"3.{int(name[1])}"


def _find_runtime(sections: list[Section], symbols: dict[str, _Symbol]) -> int | None:
    if _RUNTIME in symbols:
        return symbols[_RUNTIME].value
    return next((s.addr for s in sections if s.name == _RUNTIME_SECTION), None)


def _find_evaluator(
    read: ReadAt,
    segments: list[Segment],
    sections: list[Section],
    symbols: dict[str, _Symbol],
) -> list[tuple[int, int]]:
    """By symbols where each part has one, else also by the unwind table."""
    parts = [symbols[name] for name in symbols if name.startswith(EVALUATOR)]
    found = {(part.value, part.value + part.size) for part in parts if part.size}
    eh_frame = next((s for s in sections if s.name == ".eh_frame"), None)
    if len(parts) == 1 and eh_frame is not None and eh_frame.size <= MAX_TABLE_BYTES:
        start, size = parts[0]
        entries = frame_entries(read(eh_frame.offset, eh_frame.size), eh_frame.addr)
        code = _read_at_address(read, segments, start, min(size, MAX_TABLE_BYTES))
        found.update(split_pieces(code, start, entries))
    return sorted(found, key=lambda piece: piece[0] - piece[1])[: MAX_RANGES // 2]


def _read_at_address(read: ReadAt, segments: list[Segment], address: int, size: int) -> bytes:
    """The file's bytes for `size` bytes of memory at `address`; fewer where it has none."""
    for segment in segments:
        inside = address - segment.vaddr
        if segment.type == PT_LOAD and 0 <= inside < segment.filesz:
            return read(segment.offset + inside, min(size, segment.filesz - inside))
    return b""
