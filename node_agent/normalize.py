"""From raw addresses to content: each stack becomes frames of (module, offset) and their hash.

A stack runs from the root to the leaf: the user part, then the kernel part. All addresses but the
leaf of each part are return addresses, which point behind the call, possibly into the next
function; one is subtracted from them here, once, so that they resolve to the call.

The exceptions are a frame that a signal handler returns to, and the one it interrupted.

A stack that is known costs one look-up. One that the kernel program walked by rows is taken as it
is. One that it walked by frame pointers alone, for want of mappings, may hold words that are no
return addresses; at the first that lies in no mapping it has gone astray, and what it found behind
that is left out: it would only make the same stack look different each time.
"""

import os
import time
from collections.abc import Callable
from typing import Protocol, cast

from node_agent.collectors.stacks import ProcessKey, RawStack, SampleKey, StackEnd
from node_agent.cpython.merge import MARKS, leave_out_trampolines, merge, split_segments
from node_agent.cpython.names import PythonNames
from node_agent.generations import GenerationCache
from node_agent.processes.address_space import AddressSpace
from node_agent.processes.mappings import Mapping
from node_agent.symbols.modules import UNKNOWN, ModuleRegistry
from node_agent.symbols.perf_map import BURST_BYTES, PerfMap, PerfMaps
from wire.hashes import pack_frame, stack_hash
from wire.limits import MAX_STACK_FRAMES

MAX_PROCESSES = 4_000
MAX_CACHED_FRAMES = 60_000  # about 150 bytes each
MAX_CACHED_STACKS = 50_000
UNSETTLED_S = 60.0  # how long a stack that leads into no mapping stays as it is
# How the stacks end that may have been walked by frame pointers alone.
_UNSURE = (StackEnd.NO_USER, StackEnd.NO_MAPPING)


class KernelFrameSource(Protocol):
    """Packed frames of kernel addresses (see node_agent.symbols.kallsyms.KernelFrames)."""

    def frame(self, address: int) -> bytes: ...


class DefinitionSink(Protocol):
    """Where stacks that the centre may not know yet are left."""

    def knows(self, stack_hash: bytes) -> bool: ...
    def add(self, stack_hash: bytes, packed: bytes) -> None: ...


class _Process:
    """Frames found in one process. `token` makes its stack keys differ from those of before its
    mappings, or names of its JIT code, changed."""

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


class Normalizer:
    """Turns RawStacks into stack hashes. `counts` tells what could not be placed, by reason, in
    stacks or frames (not samples)."""

    def __init__(
        self,
        registry: ModuleRegistry,
        kernel: KernelFrameSource,
        definitions: DefinitionSink,
        max_samples: int,
        perf_map_burst_bytes: int = BURST_BYTES,
    ) -> None:
        self.counts: dict[str, int] = {}
        # Addresses that signal handlers of a process return to; the unwinder knows them.
        self.signals: Callable[[ProcessKey], frozenset[int]] = lambda _: frozenset()
        # Whether a process, by its tgid, is one by now that must not be read.
        self.is_excluded: Callable[[int], bool] | None = None
        self.python = PythonNames(registry, self.counts)
        self._perf_maps = PerfMaps(registry, self.counts, perf_map_burst_bytes)
        self._registry = registry
        self._kernel = kernel
        self._definitions = definitions
        self._stacks: GenerationCache[int, bytes] = GenerationCache(
            min(max_samples, MAX_CACHED_STACKS)
        )
        self._processes: GenerationCache[tuple[int, int, int], _Process] = GenerationCache(
            MAX_PROCESSES
        )
        self._kernel_frames: dict[int, bytes] = {}
        self._kernel_leaves: dict[int, bytes] = {}
        self._cached_frames = 0
        self._tokens = 0
        self._interval: dict[int, bytes] = {}
        self._unsettled: dict[int, bytes] = {}
        self._unsettled_since = time.monotonic()
        self._lost_hash = stack_hash(registry.stack_lost)

    def add(self, raw: RawStack) -> bytes:
        """The hash of a stack; its frames go to the definitions when they are not known there."""
        for record in raw.python_names:
            self.python.take(record)
        process = self._process(raw.process)
        if process.perf_map is not None and process.perf_map.follow():
            process.forget(self._next_token())
        key = process.token << 64 | raw.stack_key
        known = self._stacks.get(key) or self._unsettled.get(key)
        if known is None or not self._definitions.knows(known):
            parts = self._frames(raw, process)
            packed = b"".join(parts)
            known = stack_hash(packed)
            # The token may have changed while the mappings were read.
            key = process.token << 64 | raw.stack_key
            if self._registry.unmapped in parts and not process.space.gone:
                self._unsettled[key] = known
            elif self.python.unknown not in parts:  # or the missing name may still come
                self._stacks.put(key, known)
            if not self._definitions.knows(known):
                self._definitions.add(known, packed)
        self._interval[raw.stack_key] = known
        return known

    def find(self, key: SampleKey) -> bytes:
        """The hash of a stack that was added in this interval (or lately), else that of
        `[stack lost]`, counted."""
        # The key is a hash over the process too, so it is enough by itself.
        known = self._interval.get(key.stack_key)
        if known is not None:
            return known
        process = self._processes.get((key.tgid, key.start_ns, key.exec_id))
        if process is not None:
            known = self._stacks.get(process.token << 64 | key.stack_key)
            if known is not None:
                return known
        return self.lost()

    def space(self, key: ProcessKey) -> AddressSpace:
        """The mappings of a process, which are read once for all."""
        return self._process(key).space

    def main_build_id(self, key: tuple[int, int, int]) -> str:
        """Build id (hex) of the program that a process runs; "" when it can't be told."""
        process = self._process(ProcessKey(*key))
        try:
            program = os.readlink(b"/proc/%d/exe" % key[0])  # noqa: PTH115 (bytes, not followed)
        except OSError:
            return ""
        if not process.space.is_readable() or process.space.mappings is None:
            return ""
        for mapping in process.space.mappings.entries:
            if mapping.path == program:
                base = self._base(key[0], mapping)
                return "" if isinstance(base, bytes) else self._registry.modules[base[0]].id.hex()
        return ""

    def end_interval(self) -> None:
        """Forget which stacks this interval had, and now and then those that may turn out
        better: a library may have been loaded where there was no mapping."""
        self._interval.clear()
        now = time.monotonic()
        if now - self._unsettled_since > UNSETTLED_S or len(self._unsettled) > MAX_CACHED_STACKS:
            self._unsettled_since = now
            self._unsettled.clear()

    def lost(self) -> bytes:
        """The hash of the stack of one frame, `[stack lost]`."""
        self._count("stack_lost")
        if not self._definitions.knows(self._lost_hash):
            self._definitions.add(self._lost_hash, self._registry.stack_lost)
        return self._lost_hash

    def rotate(self) -> None:
        """Forget processes and stacks that were not seen since the last call."""
        self._processes.rotate()
        self._stacks.rotate()
        self._perf_maps.rotate()
        self.python.rotate()

    def _frames(self, raw: RawStack, process: _Process) -> list[bytes]:
        """The packed frames, root first."""
        parts: list[bytes] = []
        if raw.user_ips and not raw.is_kernel_thread:
            parts = (
                self._python_frames(raw, process) if raw.python else self._user_frames(raw, process)
            )
        if raw.kernel_ips:
            kernel = self._kernel_frames
            parts += [
                kernel.get(address) or self._resolve_kernel(address, False)
                for address in raw.kernel_ips[:0:-1]
            ]
            leaf = raw.kernel_ips[0]
            parts.append(self._kernel_leaves.get(leaf) or self._resolve_kernel(leaf, True))
        if not parts:
            self._count("stack_empty")
            parts = [self._registry.unmapped]
        if not self._registry.markers.isdisjoint(parts):
            parts = self._collapse(parts)
        return parts[-MAX_STACK_FRAMES:]  # the leaf's side

    def _user_frames(self, raw: RawStack, process: _Process) -> list[bytes]:
        if not process.space.is_readable():
            self._count("process_gone" if process.space.gone else "mappings_denied")
            return [self._registry.unmapped]
        addresses = raw.user_ips
        leaf = addresses[0]
        last = process.leaves.get(leaf) or self._resolve_user(process, leaf, True)
        signals = self.signals(raw.process)
        if signals and not signals.isdisjoint(addresses):
            return [*self._walk(raw, process, signals), last]
        known = process.frames.get
        frames: list[bytes | None] = [known(address) for address in addresses[:0:-1]]
        if None in frames:
            return [*self._walk(raw, process, signals), last]
        frames.append(last)
        return cast("list[bytes]", frames)

    def _walk(self, raw: RawStack, process: _Process, signals: frozenset[int]) -> list[bytes]:
        """The callers of the leaf, root first, as far as they can be believed."""
        unmapped = self._registry.unmapped
        is_unsure = raw.end in _UNSURE
        frames = []
        is_interrupted = raw.user_ips[0] in signals
        for address in raw.user_ips[1:]:
            is_handler_end = address in signals
            is_exact = is_interrupted or is_handler_end
            is_interrupted = is_handler_end
            known = process.leaves if is_exact else process.frames
            frame = known.get(address) or self._resolve_user(process, address, is_exact)
            frames.append(frame)
            if frame is unmapped and is_unsure:
                self._count("stack_astray")
                break
        frames.reverse()
        return frames

    def _python_frames(self, raw: RawStack, process: _Process) -> list[bytes]:
        """Like `_user_frames`, with Python frames where the kernel program left marks."""
        segments = [
            [self.python.frame(id64) for id64 in segment] for segment in split_segments(raw.python)
        ]
        if process.space.is_readable():
            signals = self.signals(raw.process)
            native = self._walk_marked(raw, process, signals)
            frames = merge(raw.user_ips, native, segments, raw.end is StackEnd.COMPLETE)
            if process.perf_map is not None:
                frames = leave_out_trampolines(frames, self.python.is_trampoline)
        else:
            self._count("process_gone" if process.space.gone else "mappings_denied")
            frames = merge((), (), segments, False)
            frames.append(self._registry.unmapped)
        frames.reverse()
        return frames

    def _walk_marked(
        self, raw: RawStack, process: _Process, signals: frozenset[int]
    ) -> list[bytes]:
        """Frames of addresses and marks (of these: empty), leaf first, as far as they can be
        believed."""
        unmapped = self._registry.unmapped
        is_unsure = raw.end in _UNSURE
        frames = []
        is_interrupted = True  # the leaf
        for address in raw.user_ips:
            is_handler_end = address in signals
            is_exact = is_interrupted or is_handler_end
            is_interrupted = is_handler_end
            if address in MARKS:
                frames.append(b"")
                continue
            known = process.leaves if is_exact else process.frames
            frame = known.get(address) or self._resolve_user(process, address, is_exact)
            frames.append(frame)
            if frame is unmapped and is_unsure:
                self._count("stack_astray")
                break
        return frames

    def _collapse(self, parts: list[bytes]) -> list[bytes]:
        """Runs of the same marker become one: their addresses say nothing, and their number would
        only make more distinct stacks."""
        markers = self._registry.markers
        kept = parts[:1]
        for part in parts[1:]:
            if part != kept[-1] or part not in markers:
                kept.append(part)
        return kept

    def _resolve_kernel(self, address: int, is_leaf: bool) -> bytes:
        frame = self._kernel.frame(address if is_leaf else address - 1)
        if frame != self._registry.unmapped:
            self._note_cached()
            (self._kernel_leaves if is_leaf else self._kernel_frames)[address] = frame
        return frame

    def _resolve_user(self, process: _Process, address: int, is_exact: bool) -> bytes:
        exact = address if is_exact else address - 1
        mapping = process.space.find(exact)
        if process.version != process.space.version:
            process.forget(self._next_token())
        if mapping is None:
            return self._registry.unmapped
        base = process.bases.get(mapping.start)
        if base is None:
            base = process.bases[mapping.start] = self._base(process.space.tgid, mapping)
        if base is self._registry.jit:
            frame = self._jit_frame(process, exact)
        else:
            frame = base if isinstance(base, bytes) else pack_frame(base[0], exact - base[1])
        self._note_cached()
        (process.leaves if is_exact else process.frames)[address] = frame
        return frame

    def _jit_frame(self, process: _Process, address: int) -> bytes:
        if process.perf_map is None:
            process.perf_map = self._perf_maps.of(process.space.tgid, process.space.start_ns)
            process.perf_map.follow()
        return process.perf_map.frame(address) or self._registry.jit

    def _base(self, tgid: int, mapping: Mapping) -> tuple[int, int] | bytes:
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

    def _process(self, key: ProcessKey) -> _Process:
        process = self._processes.get(key)
        if process is None:
            process = _Process(key, self._next_token(), self.is_excluded)
            self._processes.put(key, process)
        return process

    def _next_token(self) -> int:
        self._tokens += 1
        return self._tokens

    def _note_cached(self) -> None:
        self._cached_frames += 1
        if self._cached_frames > MAX_CACHED_FRAMES:
            # Forgetting everything is rare, and cheaper than keeping an order of use.
            self._cached_frames = 0
            self._kernel_frames.clear()
            self._kernel_leaves.clear()
            for process in self._processes.values():
                process.frames.clear()
                process.leaves.clear()

    def _count(self, reason: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
