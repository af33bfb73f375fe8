"""Frames of single addresses: each is (module, offset), found once for each process.

All addresses but the leaf of a stack are return addresses, which point behind the call, possibly
into the next function; one is subtracted from them here, once, so that they resolve to the call.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Protocol

from node_agent.collectors.stacks import ProcessKey
from node_agent.generations import GenerationCache
from node_agent.processes.address_space import AddressSpace
from node_agent.processes.mappings import Mapping
from node_agent.symbols.modules import UNKNOWN, ModuleRegistry
from node_agent.symbols.perf_map import PerfMap, PerfMaps
from wire.hashes import pack_frame

MAX_PROCESSES = 4_000
MAX_MAPPINGS = 100_000  # of all processes, 24 bytes each
_64_BITS = (1 << 64) - 1  # a process may map a file at an offset just below its end
MAX_CACHED_FRAMES = 20_000  # about 150 bytes each


class KernelFrameSource(Protocol):
    """Packed frames of kernel addresses (see node_agent.symbols.kallsyms.KernelFrames)."""

    def frame(self, address: int) -> bytes: ...


class ProcessFrames:
    """Frames found in one process, by address. `token` makes the keys of its stacks differ from
    those of before its mappings, or names of its JIT code, changed."""

    __slots__ = ("bases", "frames", "leaves", "perf_map", "space", "token", "version")

    def __init__(
        self, key: ProcessKey, token: int, is_excluded: Callable[[int], bool] | None
    ) -> None:
        self.space = AddressSpace(key.tgid, key.start_ns, is_excluded)
        self.token = token
        self.version = 0
        self.frames: dict[int, bytes] = {}  # by return address
        self.leaves: dict[int, bytes] = {}  # by exact address
        self.bases: dict[int, tuple[int, int] | bytes] = {}  # by start of mapping
        self.perf_map: PerfMap | None = None  # since JIT code was seen

    def forget(self, token: int) -> None:
        self.token = token
        self.version = self.space.version
        self.frames.clear()
        self.leaves.clear()
        self.bases.clear()


class Addresses:
    """Frames of the kernel's addresses and of every process's. A look-up in the dicts comes first,
    by the caller: `kernel_frames` and `kernel_leaves`, and those of ProcessFrames."""

    def __init__(
        self, registry: ModuleRegistry, kernel: KernelFrameSource, perf_maps: PerfMaps
    ) -> None:
        # Whether a process, by its tgid, is one by now that must not be read.
        self.is_excluded: Callable[[int], bool] | None = None
        self.processes: GenerationCache[tuple[int, int, int], ProcessFrames] = GenerationCache(
            MAX_PROCESSES
        )
        self.kernel_frames: dict[int, bytes] = {}
        self.kernel_leaves: dict[int, bytes] = {}
        self._registry = registry
        self._kernel = kernel
        self._perf_maps = perf_maps
        self._cached_frames = 0
        self._tokens = 0

    def process(self, key: ProcessKey) -> ProcessFrames:
        """What is known of a process, from now on if not before."""
        process = self.processes.get(key)
        if process is None:
            process = ProcessFrames(key, self.next_token(), self.is_excluded)
            self.processes.put(key, process)
        return process

    def next_token(self) -> int:
        """One that no process has had yet."""
        self._tokens += 1
        return self._tokens

    def kernel(self, address: int, is_leaf: bool) -> bytes:
        """The frame of a kernel address that is not in the dict of its kind yet."""
        frame = self._kernel.frame(address if is_leaf else address - 1)
        if frame != self._registry.unmapped:
            self._note_cached()
            (self.kernel_leaves if is_leaf else self.kernel_frames)[address] = frame
        return frame

    def user(self, process: ProcessFrames, address: int, is_exact: bool) -> bytes:
        """The frame of an address of `process` that is not in the dict of its kind yet: exact is
        that of a leaf, and what a signal handler returns to."""
        exact = address if is_exact else address - 1
        mapping = process.space.find(exact)
        if process.version != process.space.version:
            process.forget(self.next_token())
        if mapping is None:
            return self._registry.unmapped
        base = process.bases.get(mapping.start)
        if base is None:
            base = process.bases[mapping.start] = self.base(process.space.tgid, mapping)
        if base is self._registry.jit:
            frame = self._jit_frame(process, exact)
        else:
            frame = (
                base if isinstance(base, bytes) else pack_frame(base[0], exact - base[1] & _64_BITS)
            )
        self._note_cached()
        (process.leaves if is_exact else process.frames)[address] = frame
        return frame

    def base(self, tgid: int, mapping: Mapping) -> tuple[int, int] | bytes:
        """(module hash, address of the file's offset 0), or a marker."""
        registry = self._registry
        path = mapping.path
        if path in (b"[vdso]", b"[vsyscall]"):
            return registry.vdso
        if not mapping.has_file:
            return registry.jit
        hash64 = registry.native_module(tgid, mapping)
        if hash64 is None:
            # Its content can't be told any more; its name is better than nothing.
            name = path.removesuffix(b" (deleted)").rsplit(b"/", 1)[-1]
            return registry.named_frame(UNKNOWN, f"[{name.decode('utf-8', 'replace')}]")
        return hash64, mapping.start - mapping.offset

    def rotate(self) -> None:
        """Forget processes that were not seen since the last call."""
        self.processes.rotate()
        self._perf_maps.rotate()

    def forget_frames(self) -> None:
        """Forget the frames of all addresses: rare, and cheaper than keeping an order of use."""
        self._cached_frames = 0
        self.kernel_frames.clear()
        self.kernel_leaves.clear()
        for process in self.processes.values():
            process.frames.clear()
            process.leaves.clear()

    def forget_ended(self, ended: Collection[int]) -> None:
        """Forget the processes of these ids; and where all together have too many mappings, those
        that were not seen since the last rotation."""
        self.processes.forget(lambda key: key[0] in ended)
        if self.mappings > MAX_MAPPINGS:
            self.processes.rotate()
        self._cached_frames = self.cached_frames

    @property
    def mappings(self) -> int:
        """Of all processes, as far as they were read."""
        spaces = (process.space.mappings for process in self.processes.values())
        return sum(len(mappings) for mappings in spaces if mappings is not None)

    @property
    def cached_frames(self) -> int:
        """Addresses whose frames are known."""
        kernel = len(self.kernel_frames) + len(self.kernel_leaves)
        return kernel + sum(len(p.frames) + len(p.leaves) for p in self.processes.values())

    def used(self) -> Iterator[bytes]:
        """The packed frames that are held here; of modules, a frame of each."""
        yield from self.kernel_frames.values()
        yield from self.kernel_leaves.values()
        for process in self.processes.values():
            yield from process.frames.values()
            yield from process.leaves.values()
            for base in process.bases.values():
                yield base if isinstance(base, bytes) else pack_frame(base[0], 0)
            if process.perf_map is not None:
                yield from process.perf_map.frames()

    def _jit_frame(self, process: ProcessFrames, address: int) -> bytes:
        if process.perf_map is None:
            process.perf_map = self._perf_maps.of(process.space.tgid, process.space.start_ns)
            process.perf_map.follow()
        return process.perf_map.frame(address) or self._registry.jit

    def _note_cached(self) -> None:
        self._cached_frames += 1
        if self._cached_frames > MAX_CACHED_FRAMES:
            self.forget_frames()
