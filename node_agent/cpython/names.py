"""What the ids of code objects stand for, as the kernel program read it."""

from collections.abc import Callable, Iterable

from node_agent.cpython.spent import PythonTime
from node_agent.cpython.structs import PYTHON_FILE_BYTES, PYTHON_NAME, PYTHON_NAME_BYTES
from node_agent.generations import GenerationCache
from node_agent.symbols.modules import JIT, ModuleRegistry
from wire.fit import fit_name
from wire.hashes import module_hash
from wire.schema import Module, ModuleKind, Name

PYTHON = Module(ModuleKind.NAMED, b"python", "python")
MAX_IDS = 20_000  # about 150 bytes each; forked processes share theirs
CUT = "…"
_JIT_FRAME, _PYTHON_FRAME = (module_hash(m).to_bytes(8, "little") for m in (JIT, PYTHON))
_ENCODINGS = {1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}


class PythonNames:
    """Packed frames by id. `counts` tells what could not be named, by reason.

    `forget` is called with ids whose names are not known here, so that they are sent again. `spent`
    is the CPU time that Python frames take, here and elsewhere in the sampler.
    """

    def __init__(self, registry: ModuleRegistry, counts: dict[str, int]) -> None:
        self.counts = counts
        self.spent = PythonTime()
        self.forget: Callable[[Iterable[int]], None] = lambda _: None
        self.unknown = registry.named_frame(PYTHON, "[python]")
        self._registry = registry
        self._frames: GenerationCache[int, bytes] = GenerationCache(MAX_IDS)

    def take(self, record: bytes) -> None:
        """Learn from a python_name of the ring buffer."""
        id64, name = decode_name(record)
        if name.function == "":
            self._count("python_unreadable")
            name = Name("[python]", name.file, name.line)
        if self._frames.is_full:
            self.rotate()
        self._frames.put(id64, self._registry.name_frame(PYTHON, name))

    def frame(self, id64: int) -> bytes:
        """The packed frame of a code object; `unknown`, counted, when its name did not come."""
        known = self._frames.get(id64)
        if known is None:
            self._count("python_unnamed")
            self.forget((id64,))
            return self.unknown
        return known

    def is_trampoline(self, frame: bytes, function: bytes) -> bool:
        """Whether `frame` is code that CPython made under `-X perf` to run `function` by: the perf
        map has it by the function's name and file."""
        if not (frame.startswith(_JIT_FRAME) and function.startswith(_PYTHON_FRAME)):
            return False
        jit, python = (
            self._registry.names.get(int.from_bytes(packed[8:], "little"))
            for packed in (frame, function)
        )
        return jit is not None and python is not None and is_same_function(jit, python)

    def rotate(self) -> None:
        """Forget what was not seen since the last call, and have sent again what the next call
        would forget: stacks that are known don't ask for their names, so these may be in use all
        the time. Stacks that are on their way without names still find them here."""
        self._frames.rotate()
        self.forget(self._frames.aged())

    def used(self) -> Iterable[bytes]:
        """The packed frames that are held here."""
        return (self.unknown, *self._frames.values())

    def __len__(self) -> int:
        return len(self._frames)

    def _count(self, reason: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1


def decode_name(record: bytes) -> tuple[int, Name]:
    """Id and name of a python_name; texts that could not be read are empty."""
    fields = PYTHON_NAME.unpack_from(record)
    id64, first_line, name_chars, file_chars, name_width, file_width, name, file = fields
    function = decode_text(name, name_chars, name_width)
    if name_chars * name_width > PYTHON_NAME_BYTES:
        function += CUT
    path = decode_text(file, file_chars, file_width)
    if file_chars * file_width > PYTHON_FILE_BYTES:
        path = CUT + path
    return id64, fit_name(Name(function, path, first_line))


def is_same_function(whole: Name, python: Name) -> bool:
    """Whether `python`, which may be cut, has the function and file of `whole`."""
    function, file = python.function, python.file
    is_function = function == whole.function or (
        function.endswith(CUT) and whole.function.startswith(function.removesuffix(CUT))
    )
    is_file = file == whole.file or (
        file.startswith(CUT) and whole.file.endswith(file.removeprefix(CUT))
    )
    return is_function and is_file


def decode_text(data: bytes, chars: int, width: int) -> str:
    """`chars` characters of `width` bytes as CPython stores them, as many as `data` holds."""
    if width not in _ENCODINGS:
        return ""
    whole = min(chars * width, len(data)) // width * width
    text = data[:whole].decode(_ENCODINGS[width], "replace")
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
