"""From raw addresses to content: each stack becomes frames of (module, offset) and their hash.

A stack runs from the root to the leaf: the user part, then the kernel part. All addresses but the
leaf of each part are return addresses, which point behind the call, possibly into the next
function; one is subtracted from them here, once, so that they resolve to the call.

A stack that is known costs one look-up. What a process maps is read when an address of it is first
needed, and again when an address is in no known mapping (at most every REFRESH_S; without frame
pointers many "return addresses" are no addresses at all).
"""

import time
from typing import Protocol

from node_agent.collectors.stacks import ProcessKey, RawStack, SampleKey
from node_agent.generations import GenerationCache
from node_agent.processes.errors import ProcessError, ProcessGoneError
from node_agent.processes.mappings import Mapping, Mappings, read_mappings
from node_agent.symbols.modules import UNKNOWN, ModuleRegistry
from wire.hashes import pack_frame, stack_hash
from wire.limits import MAX_STACK_FRAMES

REFRESH_S = 2.0  # doubled, up to MAX_REFRESH_S, each time that nothing had changed
MAX_REFRESH_S = 60.0
STALE_S = 300.0  # a mapping replaced by another at the same address is noticed after this time
MAX_PROCESSES = 4_000
MAX_CACHED_FRAMES = 60_000  # about 150 bytes each
MAX_CACHED_STACKS = 50_000
# Shared memory and JIT pages that have an inode but no file that anybody could symbolize.
_NO_FILE = (b"/memfd:", b"/dev/", b"/SYSV", b"/anon_hugepage")
_NEVER = float("-inf")


class KernelFrameSource(Protocol):
    """Packed frames of kernel addresses (see node_agent.symbols.kallsyms.KernelFrames)."""

    def frame(self, address: int) -> bytes: ...


class DefinitionSink(Protocol):
    """Where stacks that the centre may not know yet are left."""

    def knows(self, stack_hash: bytes) -> bool: ...
    def add(self, stack_hash: bytes, packed: bytes) -> None: ...


class _Process:
    """What is known of one process: its mappings, and frames already found."""

    __slots__ = (
        "bases",
        "frames",
        "gone",
        "key",
        "leaves",
        "mappings",
        "read_at",
        "refresh_s",
        "token",
    )

    def __init__(self, key: ProcessKey, token: int) -> None:
        self.key = key
        self.token = token
        self.mappings: Mappings | None = None
        self.read_at = _NEVER
        self.refresh_s = REFRESH_S
        self.gone = False
        self.frames: dict[int, bytes] = {}  # by return address
        self.leaves: dict[int, bytes] = {}  # by exact address
        self.bases: dict[int, tuple[int, int] | bytes] = {}  # by start of mapping

    def forget(self, token: int) -> None:
        self.token = token
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
    ) -> None:
        self.counts: dict[str, int] = {}
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
        self._lost_hash = stack_hash(registry.stack_lost)

    def add(self, raw: RawStack) -> bytes:
        """The hash of a stack; its frames go to the definitions when they are not known there."""
        process = self._process(raw.process)
        key = process.token << 64 | raw.stack_key
        known = self._stacks.get(key)
        if known is not None and self._definitions.knows(known):
            self._interval[raw.stack_key] = known
            return known
        packed, settled = self._pack(raw, process)
        known = self._interval[raw.stack_key] = stack_hash(packed)
        if settled:
            # The token may have changed while its mappings were read.
            self._stacks.put(process.token << 64 | raw.stack_key, known)
        if not self._definitions.knows(known):
            self._definitions.add(known, packed)
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

    def end_interval(self) -> None:
        """Forget which stacks this interval had: those not settled are looked at again."""
        self._interval.clear()

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

    def _pack(self, raw: RawStack, process: _Process) -> tuple[bytes, bool]:
        """The packed frames, and whether they will stay the same."""
        parts: list[bytes] = []
        started = time.monotonic()
        if raw.user_ips and not raw.is_kernel_thread and self._is_readable(process):
            frames = process.frames
            resolve = self._resolve_user
            parts = [
                frames.get(address) or resolve(process, address, False)
                for address in raw.user_ips[:0:-1]
            ]
            leaf = raw.user_ips[0]
            parts.append(process.leaves.get(leaf) or resolve(process, leaf, True))
        elif raw.user_ips:
            self._count("process_gone" if process.gone else "mappings_denied")
            parts = [self._registry.unmapped]
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
        settled = True
        if not self._registry.markers.isdisjoint(parts):
            settled = (
                process.gone
                or self._registry.unmapped not in parts
                or process.read_at >= started  # no later look could tell more
            )
            parts = self._collapse(parts)
        return b"".join(parts[:MAX_STACK_FRAMES]), settled

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

    def _resolve_user(self, process: _Process, address: int, is_leaf: bool) -> bytes:
        exact = address if is_leaf else address - 1
        mapping = self._find_mapping(process, exact)
        if mapping is None:
            self._count("address_unmapped")
            return self._registry.unmapped
        base = process.bases.get(mapping.start)
        if base is None:
            base = process.bases[mapping.start] = self._base(process, mapping)
        frame = base if isinstance(base, bytes) else pack_frame(base[0], exact - base[1])
        self._note_cached()
        (process.leaves if is_leaf else process.frames)[address] = frame
        return frame

    def _base(self, process: _Process, mapping: Mapping) -> tuple[int, int] | bytes:
        """(module hash, address of the file's offset 0), or a marker."""
        registry = self._registry
        path = mapping.path
        if path in (b"[vdso]", b"[vsyscall]"):
            return registry.vdso
        if not path or path.startswith((b"[", *_NO_FILE)) or not path.startswith(b"/"):
            return registry.jit
        hash64 = registry.native_module(process.key.tgid, mapping)
        if hash64 is None:
            # Its content can't be told any more; its name is better than nothing.
            name = path.removesuffix(b" (deleted)").rsplit(b"/", 1)[-1]
            return registry.named_frame(UNKNOWN, f"[{name.decode('utf-8', 'replace')}]")
        return hash64, mapping.start - mapping.offset

    def _is_readable(self, process: _Process) -> bool:
        if process.mappings is None:
            self._refresh(process, time.monotonic())
        return process.mappings is not None

    def _find_mapping(self, process: _Process, address: int) -> Mapping | None:
        now = time.monotonic()
        if now - process.read_at > STALE_S:
            self._refresh(process, now)
        found = process.mappings.find(address) if process.mappings is not None else None
        if found is None and now - process.read_at > process.refresh_s:
            self._refresh(process, now)
            found = process.mappings.find(address) if process.mappings is not None else None
        return found

    def _refresh(self, process: _Process, now: float) -> None:
        if process.gone or (process.mappings is None and now - process.read_at <= REFRESH_S):
            return
        process.read_at = now
        try:
            fresh = read_mappings(process.key.tgid, process.key.start_ns)
        except ProcessGoneError:
            process.gone = True  # what was read before still holds
            return
        except ProcessError:
            return
        old, process.mappings = process.mappings, fresh
        if old is None:
            return
        if old.entries == fresh.entries:
            process.refresh_s = min(2 * process.refresh_s, MAX_REFRESH_S)
            return
        process.refresh_s = REFRESH_S
        if not set(old.entries) <= set(fresh.entries):
            process.forget(self._next_token())

    def _process(self, key: ProcessKey) -> _Process:
        process = self._processes.get(key)
        if process is None:
            process = _Process(key, self._next_token())
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
