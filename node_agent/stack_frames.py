"""The frames of a whole stack, root first, of which the addresses may be hard to believe.

The exceptions to "return address" are a frame that a signal handler returns to, and the one that
it interrupted. A stack that the kernel program walked by frame pointers alone, for want of
mappings, may hold words that are no return addresses; at the first that lies in no mapping it has
gone astray, and what it found behind that is left out: it would only make the same stack look
different each time.
"""

from collections.abc import Callable, Sequence
from typing import cast

from node_agent.addresses import Addresses, ProcessFrames
from node_agent.collectors.stacks import ProcessKey, RawStack, StackEnd
from node_agent.cpython.merge import MARKS, leave_out_trampolines, merge, split_segments
from node_agent.cpython.names import PythonNames
from node_agent.symbols.modules import ModuleRegistry
from wire.limits import MAX_STACK_FRAMES

# How the stacks end that may have been walked by frame pointers alone.
_UNSURE = (StackEnd.NO_USER, StackEnd.NO_MAPPING)


class StackFrames:
    """`counts` is added to, by reason, in stacks or frames."""

    def __init__(
        self,
        registry: ModuleRegistry,
        addresses: Addresses,
        python: PythonNames,
        counts: dict[str, int],
    ) -> None:
        # Addresses that signal handlers of a process return to; the unwinder knows them.
        self.signals: Callable[[ProcessKey], frozenset[int]] = lambda _: frozenset()
        self._registry = registry
        self._addresses = addresses
        self._python = python
        self._counts = counts

    def of(self, raw: RawStack, process: ProcessFrames) -> list[bytes]:
        """The packed frames, root first."""
        parts: list[bytes] = []
        if raw.user_ips and not raw.is_kernel_thread:
            parts = (
                self._python_frames(raw, process) if raw.python else self._user_frames(raw, process)
            )
        if raw.kernel_ips:
            kernel = self._addresses.kernel_frames
            parts += [
                kernel.get(address) or self._addresses.kernel(address, False)
                for address in raw.kernel_ips[:0:-1]
            ]
            leaf = raw.kernel_ips[0]
            parts.append(
                self._addresses.kernel_leaves.get(leaf) or self._addresses.kernel(leaf, True)
            )
        if not parts:
            self._count("stack_empty")
            parts = [self._registry.unmapped]
        if not self._registry.markers.isdisjoint(parts):
            parts = self._collapse(parts)
        return parts[-MAX_STACK_FRAMES:]  # the leaf's side

    def _user_frames(self, raw: RawStack, process: ProcessFrames) -> list[bytes]:
        if not process.space.is_readable():
            self._count("process_gone" if process.space.gone else "mappings_denied")
            return [self._registry.unmapped]
        addresses = raw.user_ips
        leaf = addresses[0]
        last = process.leaves.get(leaf) or self._addresses.user(process, leaf, True)
        signals = self.signals(raw.process)
        if not signals or signals.isdisjoint(addresses):
            known = process.frames.get
            frames: list[bytes | None] = [known(address) for address in addresses[:0:-1]]
            if None not in frames:
                frames.append(last)
                return cast("list[bytes]", frames)
        callers = self._walk(raw, addresses[1:], process, signals, leaf in signals)
        callers.reverse()
        callers.append(last)
        return callers

    def _python_frames(self, raw: RawStack, process: ProcessFrames) -> list[bytes]:
        """Like `_user_frames`, with Python frames where the kernel program left marks."""
        is_readable = process.space.is_readable()
        native: list[bytes] = []
        if is_readable:
            native = self._walk(raw, raw.user_ips, process, self.signals(raw.process), True)
        else:
            self._count("process_gone" if process.space.gone else "mappings_denied")
        with self._python.spent:
            named = self._python.frame
            segments = [[named(id64) for id64 in ids] for ids in split_segments(raw.python)]
            if is_readable:
                frames = merge(raw.user_ips, native, segments, raw.end is StackEnd.COMPLETE)
                if process.perf_map is not None:
                    frames = leave_out_trampolines(frames, self._python.is_trampoline)
            else:
                frames = merge((), (), segments, False)
                frames.append(self._registry.unmapped)
        frames.reverse()
        return frames

    def _walk(
        self,
        raw: RawStack,
        addresses: Sequence[int],
        process: ProcessFrames,
        signals: frozenset[int],
        is_interrupted: bool,
    ) -> list[bytes]:
        """Frames of addresses and marks (of these: empty), leaf first, as far as they can be
        believed. `is_interrupted`: the first is where the thread was, and returns to nobody."""
        unmapped = self._registry.unmapped
        is_unsure = raw.end in _UNSURE
        frames = []
        for address in addresses:
            is_handler_end = address in signals
            is_exact = is_interrupted or is_handler_end
            is_interrupted = is_handler_end
            if address in MARKS:
                frames.append(b"")
                continue
            known = process.leaves if is_exact else process.frames
            frame = known.get(address) or self._addresses.user(process, address, is_exact)
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

    def _count(self, reason: str) -> None:
        self._counts[reason] = self._counts.get(reason, 0) + 1
