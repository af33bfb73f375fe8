"""What is known of frames: their function, module, kind, file and line, and how fresh that is.

Frames have numbers of their own here, in the order in which they were met; 0 stands for all the
frames of stacks that are not defined, 1 for those of stacks that were refused. Functions are
interned: frames of one function in one module share it. Unresolved frames read `module+0xoffset`,
and builds are kept apart there, because the same offset means something else in another build.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aggregator.profiles.columns import Column, SortedMap
from aggregator.profiles.grouping import Ints
from wire.pprof import Line
from wire.schema import ModuleKind

KINDS = ("process", "kernel", "native", "python", "go", "jit", "unknown")
UNRESOLVED_FRESH_S = 5.0  # symbols come within seconds of a new build id
SETTLED_FRESH_S = 600.0  # better symbols may replace others, rarely
# By their numbers here, UNDEFINED_FRAME and REFUSED_FRAME of the prefix tree.
_NO_FRAMES = ("[undefined]", "[refused]")
_NO_BUILD = "none"  # the build of functions without a name in a module without a build id
# Modules of frames that are known by name only, by their ids.
_NAMED_KINDS = {b"python": "python", b"jit": "jit", b"[jit]": "jit", b"bpf": "kernel"}
# Go's linker names are path/package.Function or path/package.(*Type).Method. C and C++ compilers
# put dots only before suffixes of their own, or digits.
_GO_NAME = re.compile(
    r"(?:[\w.~%-]+/)*[\w%-]+\."
    r"(?!(?:isra|constprop|part|cold|hot|llvm|lto_priv|localalias|clone|str|avx\w*|sse\w*)\b)"
    r"(?:\(\*?[^\W\d]|[^\W\d])"
)


class FrameRow(NamedTuple):
    """A row of `frames` joined with its module. `offset` is signed, as stored."""

    id: int
    offset: int
    function: str | None
    file: str | None
    line: int | None
    resolved: bool
    module_id: int
    kind: int
    build_id: bytes
    module: str
    callers: list[list[Any]] | None = None  # [function, file, line], the outermost first


@dataclass(frozen=True)
class Function:
    """What frames are folded to. `kind` is one of KINDS; `build`, the build id in hex, keeps
    functions without a name apart, and `file` the interpreted ones."""

    name: str
    module: str
    kind: str
    build: str = ""
    file: str = ""


@dataclass(frozen=True)
class Place:
    """Where a frame is, for formats that tell: address is the offset in its module, `callers` are
    the functions that its own was inlined into, the outermost first."""

    file: str
    line: int
    address: int
    build_id: str
    callers: tuple[Line, ...] = ()


@dataclass(frozen=True)
class _Caller:
    """A function that another was inlined into, by numbers of functions and texts."""

    function: int
    file: int
    line: int


class FrameTable:
    """Frames by number; not safe for several threads at once."""

    def __init__(self) -> None:
        self.functions: list[Function] = []
        self._function_numbers: dict[Function, int] = {}
        self._numbers = SortedMap()  # frame id -> number
        self._ids = Column(np.int64)
        self._function = Column(np.int32)
        self._unnamed = Column(np.bool_)  # no symbol: counts as unsymbolized
        self._fresh_until = Column(np.float64)
        self.text_bytes = 0  # about; names and files are as long as a node makes them
        self._texts: dict[str, int] = {"": 0}  # files and build ids
        self._text_list = [""]
        self._file = Column(np.int32)
        self._line = Column(np.int64)
        self._address = Column(np.uint64)
        self._build_id = Column(np.int32)
        self._callers: list[tuple[_Caller, ...]] = [()]  # chains of inlining, each once
        self._caller_numbers: dict[tuple[_Caller, ...], int] = {(): 0}
        self._chain = Column(np.int32)  # index into `_callers`
        for name in _NO_FRAMES:
            function = self._intern(Function(name, "", "unknown"))
            self._append(np.zeros(1, np.int64), function, np.inf)

    def __len__(self) -> int:
        return len(self._ids)

    def numbers(self, frame_ids: Ints) -> Ints:
        """Numbers of frame ids (n, may repeat); ids not met before get a new one."""
        distinct, index = np.unique(frame_ids, return_inverse=True)
        numbers = self._numbers.find(distinct)
        new = np.flatnonzero(numbers < 0)
        numbers[new] = len(self) + np.arange(len(new))
        self._numbers.add(distinct[new], numbers[new])
        self._append(distinct[new], 0, -np.inf)
        result: Ints = numbers[index]
        return result

    def stale_ids(self, numbers: Ints, now_s: float) -> list[int]:
        """Ids of those frames whose row should be read (again); `now_s` is a monotonic clock."""
        stale = numbers[self._fresh_until.values[numbers] <= now_s]
        ids: list[int] = self._ids.values[stale].tolist()
        return ids

    def update(self, rows: Iterable[FrameRow], now_s: float) -> None:
        """Take what was read at `now_s` for frames that have numbers."""
        rows = list(rows)
        numbers = self._numbers.find(np.fromiter((row.id for row in rows), np.int64, len(rows)))
        for number, row in zip(numbers.tolist(), rows, strict=True):
            function, unnamed = describe_frame(row)
            self._function.values[number] = self._intern(function)
            self._unnamed.values[number] = unnamed
            fresh_s = SETTLED_FRESH_S if row.resolved else UNRESOLVED_FRESH_S
            self._fresh_until.values[number] = now_s + fresh_s
            self._file.values[number] = self._text(row.file or "")
            self._line.values[number] = row.line or 0
            self._chain.values[number] = self._intern_callers(row)
            if row.kind != ModuleKind.NAMED:
                self._address.values[number] = row.offset % (1 << 64)
                self._build_id.values[number] = self._text(row.build_id.hex())

    def functions_of(self, numbers: Ints) -> Ints:
        """For each frame the index of its function in `functions`."""
        return self._function.values[numbers].astype(np.int64)

    def chain_lengths(self, numbers: Ints) -> Ints:
        """For each frame the number of functions that its own was inlined into."""
        chains = self._chain.values[numbers]
        if not chains.any():
            return np.zeros(len(numbers), np.int64)
        lengths = np.fromiter(map(len, self._callers), np.int64, len(self._callers))
        result: Ints = lengths[chains]
        return result

    def functions_at(self, numbers: Ints, positions: Ints) -> Ints:
        """Like `functions_of`, at places in the frames' chains of inlining: 0 is the outermost
        function, the chain's length the frame's own."""
        functions = self.functions_of(numbers)
        inside = np.flatnonzero(positions < self.chain_lengths(numbers))
        chains, places = self._chain.values[numbers[inside]].tolist(), positions[inside].tolist()
        functions[inside] = [
            self._callers[chain][place].function
            for chain, place in zip(chains, places, strict=True)
        ]
        return functions

    def line_at(self, number: int, position: int) -> tuple[str, int]:
        """File and line at a place in a frame's chain of inlining; empty where not known."""
        callers = self._callers[int(self._chain.values[number])]
        if position < len(callers):
            return self._text_list[callers[position].file], callers[position].line
        return self._text_list[int(self._file.values[number])], int(self._line.values[number])

    def expire(self) -> None:
        """Have every frame read again when it is asked for."""
        fresh = self._fresh_until.values
        fresh[np.isfinite(fresh)] = -np.inf

    def unnamed(self, numbers: Ints) -> NDArray[np.bool_]:
        """Which frames have no symbol."""
        return self._unnamed.values[numbers]

    def place(self, number: int) -> Place:
        """Where the frame is; empty for undefined ones."""
        return Place(
            self._text_list[int(self._file.values[number])],
            int(self._line.values[number]),
            int(self._address.values[number]),
            self._text_list[int(self._build_id.values[number])],
            tuple(
                Line(
                    self.functions[caller.function].name,
                    self._text_list[caller.file],
                    caller.line,
                )
                for caller in self._callers[int(self._chain.values[number])]
            ),
        )

    def _intern(self, function: Function) -> int:
        number = self._function_numbers.get(function)
        if number is None:
            number = self._function_numbers[function] = len(self.functions)
            self.functions.append(function)
            self.text_bytes += len(function.name) + len(function.module) + len(function.file)
        return number

    def _intern_callers(self, row: FrameRow) -> int:
        if not row.callers:
            return 0
        callers = tuple(
            _Caller(
                self._intern(describe_frame(row._replace(function=function))[0]),
                self._text(file),
                line,
            )
            for function, file, line in row.callers
        )
        number = self._caller_numbers.setdefault(callers, len(self._callers))
        if number == len(self._callers):
            self._callers.append(callers)
        return number

    def _text(self, text: str) -> int:
        number = self._texts.setdefault(text, len(self._text_list))
        if number == len(self._text_list):
            self._text_list.append(text)
            self.text_bytes += len(text)
        return number

    def _append(self, ids: Ints, function: int, fresh_until: float) -> None:
        self._ids.extend(ids)
        self._function.extend(np.full(len(ids), function, np.int32))
        self._unnamed.extend(np.ones(len(ids), bool))
        self._fresh_until.extend(np.full(len(ids), fresh_until))
        self._file.extend(np.zeros(len(ids), np.int32))
        self._line.extend(np.zeros(len(ids), np.int64))
        self._address.extend(np.zeros(len(ids), np.uint64))
        self._build_id.extend(np.zeros(len(ids), np.int32))
        self._chain.extend(np.zeros(len(ids), np.int32))


def describe_frame(row: FrameRow) -> tuple[Function, bool]:
    """The function that a frame is shown as, and whether it lacks a symbol."""
    if row.kind == ModuleKind.NAMED:
        return _describe_named(row)
    kernel = row.kind in (ModuleKind.KERNEL, ModuleKind.KERNEL_MODULE)
    if not row.function:
        name = f"{row.module}+0x{row.offset % (1 << 64):x}"
        kind = "kernel" if kernel else "unknown"
        return Function(name, row.module, kind, row.build_id.hex() or _NO_BUILD), True
    if kernel:
        return Function(row.function, row.module, "kernel"), False
    kind = "go" if _GO_NAME.match(row.function) else "native"
    return Function(row.function, row.module, kind), False


def _describe_named(row: FrameRow) -> tuple[Function, bool]:
    name = row.function or row.module
    marker = name.startswith("[") and name.endswith("]")  # [unmapped], [jit], [stack lost]
    kind = _NAMED_KINDS.get(row.build_id, "jit" if name == "[jit]" else "unknown")
    # Interpreters have many functions of one name; what tells them apart is their file.
    file = (row.file or "") if kind in ("python", "jit") else ""
    return Function(name, "" if marker else row.module, kind, file=file), marker
