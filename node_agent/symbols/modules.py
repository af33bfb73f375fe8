"""The modules that this run has seen: their identity, and where a file can be opened again.

Frames travel in the packed form of `wire.hashes.pack_frame` (16 bytes: module hash, then offset or
name hash), so a stack is one `bytes` object and nothing has to be kept beside it.
"""

import os
import struct
from collections.abc import Collection, Iterable
from typing import NamedTuple

from node_agent.faults import Faults
from node_agent.generations import GenerationCache
from node_agent.processes.errors import FileUnavailableError
from node_agent.processes.files import FileKey, find_mapped, key_of, may_read_memory
from node_agent.processes.lookup import open_found
from node_agent.processes.mappings import Mapping, file_bytes_at
from node_agent.symbols.build_ids import read_build_id, read_note_build_id
from node_agent.symbols.elf import file_reader
from node_agent.symbols.errors import ElfError
from node_agent.symbols.settled import SettledFiles, SettledKey, settled_key
from wire.fit import fit_module, fit_name, text_bytes
from wire.hashes import module_hash, name_hash, pack_frame
from wire.schema import Module, ModuleKind, Name

UNKNOWN = Module(ModuleKind.NAMED, b"[unknown]", "[unknown]")
BPF = Module(ModuleKind.NAMED, b"bpf", "bpf")
JIT = Module(ModuleKind.NAMED, b"jit", "[jit]")  # names from perf maps; without one: UNKNOWN
MAX_MODULES = 5_000  # 0.7 KB each
MAX_NAMES = 20_000  # 0.2 KB each
SWEPT_AFTER = 500  # new modules and names: less is not worth looking for those of no use
_FILE_CACHE = 2_000


class Source(NamedTuple):
    """Where a native module was seen last: enough to open its file again."""

    tgid: int
    mapping: Mapping


class ModuleRegistry:
    """Modules and names by their 64-bit hashes: those that frames are made of, until `sweep`. Has
    limits; beyond them frames become `[unmapped]`, counted in `lost`, and so are files that could
    not be read. `faults` is the boundary around each of them, for others to use too."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.modules: dict[int, Module] = {}
        self.names: dict[int, Name] = {}
        self.names_bytes = 0  # of their texts
        self.sources: dict[int, Source] = {}
        self.lost: dict[str, int] = {}
        self._files: GenerationCache[FileKey, int] = GenerationCache(_FILE_CACHE)
        self._settled = SettledFiles()
        self._paths: dict[str, str] = {}  # of source files, each once: they have many functions
        self._swept = 0  # modules and names that the last sweep left
        self.unmapped = self.named_frame(UNKNOWN, "[unmapped]")
        self.jit = self.named_frame(UNKNOWN, "[jit]")
        self.vdso = self.named_frame(UNKNOWN, "[vdso]")
        self.stack_lost = self.named_frame(UNKNOWN, "[stack lost]")
        self.kernel_hidden = self.named_frame(UNKNOWN, "[kernel]")
        self.markers = frozenset((self.unmapped, self.jit, self.kernel_hidden))
        self._constant = (*self.markers, self.vdso, self.stack_lost)

    def add(self, module: Module) -> int | None:
        """The hash of `module`, remembered from now on; None when there is no room."""
        hash64 = module_hash(module)
        if hash64 not in self.modules:
            if len(self.modules) >= MAX_MODULES:
                self._count("modules_full")
                return None
            self.modules[hash64] = fit_module(module)
        return hash64

    def named_frame(self, module: Module, function: str) -> bytes:
        """The packed frame of `function` in a NAMED module."""
        return self.name_frame(module, Name(function))

    def name_frame(self, module: Module, name: Name) -> bytes:
        """The packed frame of `name`, made to fit the wire, in a NAMED module."""
        name = fit_name(name)
        hash64 = name_hash(name)
        module_hash64 = self.add(module)
        if module_hash64 is None or (hash64 not in self.names and len(self.names) >= MAX_NAMES):
            self._count("names_full")
            return self.unmapped
        if hash64 not in self.names:
            self.names[hash64] = Name(
                name.function, self._paths.setdefault(name.file, name.file), name.line
            )
            self.names_bytes += text_bytes(name)
        return pack_frame(module_hash64, hash64)

    def native_module(self, tgid: int, mapping: Mapping) -> int | None:
        """The hash of the ELF file (or whatever it is) behind `mapping`, which must have a path
        or an inode. None when nothing identifies it, counted."""
        key = (tgid, *mapping[3:])  # not only the file: what fails may be this process's own
        return self.faults.contain("file", key, lambda: self._find_native(tgid, mapping))

    def _find_native(self, tgid: int, mapping: Mapping) -> int | None:
        settled = settled_key(tgid, mapping)
        hash64 = self._settled.get(settled) if settled is not None else None
        if hash64 not in self.modules:
            hash64 = self._identify(tgid, mapping, settled)
        if hash64 is not None:
            self.sources[hash64] = Source(tgid, mapping)
        return hash64

    def find(self, kind: int, build_id: bytes) -> int | None:
        """The hash of a module that has been seen in this run, else None."""
        hash64 = module_hash(Module(kind, build_id, ""))
        return hash64 if hash64 in self.modules else None

    @property
    def is_to_sweep(self) -> bool:
        """Whether so much came since the last sweep that it is worth one."""
        return len(self.modules) + len(self.names) > self._swept + SWEPT_AFTER

    def sweep(self, frames: Iterable[bytes], modules: Collection[int]) -> None:
        """Forget files and names that are in none of the packed `frames` that somebody still has,
        and files that are not among `modules` either. The kernel's own modules stay."""
        used = {struct.unpack("<QQ", frame) for frame in {*frames, *self._constant}}
        used_modules = {module for module, _ in used}.union(modules)
        used_names = {offset for _, offset in used}
        self.modules = {
            hash64: module
            for hash64, module in self.modules.items()
            if hash64 in used_modules or module.kind != ModuleKind.NATIVE
        }
        self.sources = {m: source for m, source in self.sources.items() if m in self.modules}
        self.names = {hash64: name for hash64, name in self.names.items() if hash64 in used_names}
        self.names_bytes = sum(map(text_bytes, self.names.values()))
        self._paths = {name.file: name.file for name in self.names.values()}
        self._files.rotate()
        self._settled.sweep()
        self._swept = len(self.modules) + len(self.names)

    def _identify(self, tgid: int, mapping: Mapping, settled: SettledKey | None) -> int | None:
        try:
            found = find_mapped(tgid, mapping)
        except FileUnavailableError as error:
            self._count(error.reason)
            key = build_id = None
        else:
            # The key is of the very file that is read: another's can't be remembered for it.
            try:
                key = key_of(found)
                known = self._files.get(key)
                if known in self.modules:
                    return known
                build_id = self._read_build_id(found, key.size)
            finally:
                os.close(found)
        if build_id is None:
            # The process may have written to its memory: what is there is of no other's file.
            key = None
            build_id = _read_mapped_build_id(tgid, mapping)
        if build_id is None:
            return None
        hash64 = self.add(Module(ModuleKind.NATIVE, build_id, _base_name(mapping)))
        if hash64 is not None and key is not None:
            self._files.put(key, hash64)
            if settled is not None:
                self._settled.put(settled, hash64)
        return hash64

    def _read_build_id(self, found: int, size: int) -> bytes | None:
        try:
            descriptor = open_found(found)
        except OSError:
            self._count("file_unavailable")
            return None
        try:
            return read_build_id(*file_reader(descriptor), lambda: self._count("file_malformed"))
        except OSError:
            self._count("file_unavailable")
            return None
        finally:
            os.close(descriptor)

    def _count(self, reason: str) -> None:
        self.lost[reason] = self.lost.get(reason, 0) + 1


def _read_mapped_build_id(tgid: int, mapping: Mapping) -> bytes | None:
    """The build id in the process's memory, where the linker put the file's first page just
    before the code. The last resort for deleted and replaced files."""
    base = mapping.start - mapping.offset
    # Behind other addresses may be memory that its process serves itself (userfaultfd, FUSE) and
    # that would never come.
    limit = file_bytes_at(tgid, base, mapping) if may_read_memory(tgid, mapping) else 0
    if limit == 0:
        return None
    try:
        memory = os.open(f"/proc/{tgid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:

        def read(offset: int, size: int) -> bytes:
            inside = offset + size <= limit
            return os.pread(memory, size, base + offset) if inside else b""

        return read_note_build_id(read)
    except (OSError, ElfError, OverflowError):
        return None
    finally:
        os.close(memory)


def _base_name(mapping: Mapping) -> str:
    path = mapping.path.removesuffix(b" (deleted)")
    return path.rsplit(b"/", 1)[-1].decode("utf-8", "replace") or "[unknown]"
