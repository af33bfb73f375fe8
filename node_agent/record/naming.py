"""Names for the frames of a recording, by a child process that reads the symbol tables."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from node_agent.capabilities import KERNEL_SYMBOLS, OTHER_PROCESSES, using
from node_agent.processes.errors import FileUnavailableError
from node_agent.processes.files import open_mapped
from node_agent.record.name_children import ask_children, descriptors
from node_agent.record.progress import Progress
from node_agent.symbols.kallsyms import KALLSYMS, parse_modules
from node_agent.symbols.modules import ModuleRegistry
from wire.pprof import Frame, Line
from wire.schema import Module, ModuleKind

MAX_FILES = 400  # open at once; modules beyond this, by number of frames, stay without names
DEBUG_FOLDER = "/usr/lib/debug/.build-id"
_FRAME_BYTES = 16


def name_frames(
    packed_stacks: Iterable[bytes], registry: ModuleRegistry, progress: Progress
) -> dict[bytes, Frame]:
    """A Frame for every packed frame (16 bytes) in `packed_stacks`.

    What has no name reads `module+0xoffset`; trouble with symbols never loses samples.
    """
    offsets: dict[int, set[int]] = {}
    for packed in packed_stacks:
        for at in range(0, len(packed), _FRAME_BYTES):
            hash64 = int.from_bytes(packed[at : at + 8], "little")
            offsets.setdefault(hash64, set()).add(
                int.from_bytes(packed[at + 8 : at + 16], "little")
            )
    named = _names(offsets, registry, progress)
    frames = {}
    for hash64, places in offsets.items():
        module = registry.modules[hash64]
        for offset in places:
            if module.kind == ModuleKind.NAMED:
                name = registry.names[offset]
                frame = Frame(name.function, module.name, name.file, name.line)
            else:
                frame = _frame(module, offset, named.get((hash64, offset), []))
            frames[hash64.to_bytes(8, "little") + offset.to_bytes(8, "little")] = frame
    return frames


def _frame(module: Module, offset: int, lines: list[Line]) -> Frame:
    """The frame of what runs at `offset`, the innermost function first; nothing known: no lines."""
    function, file, line = lines[0] if lines else (f"{module.name}+0x{offset:x}", "", 0)
    callers = tuple(reversed(lines[1:]))
    return Frame(function, module.name, file, line, offset, module.id.hex(), callers)


def _names(
    offsets: dict[int, set[int]], registry: ModuleRegistry, progress: Progress
) -> dict[tuple[int, int], list[Line]]:
    hashes = sorted(offsets, key=lambda hash64: -len(offsets[hash64]))
    request: list[dict[str, Any]] = []
    asked = []
    with using(*KERNEL_SYMBOLS):
        loaded = _load_addresses()
    try:
        for hash64 in hashes[:MAX_FILES]:
            module = registry.modules[hash64]
            with using(*OTHER_PROCESSES, *KERNEL_SYMBOLS):
                descriptor = _open(hash64, module, registry)
            if descriptor is None:
                continue
            base, size = loaded.get(module.name, (0, 0))
            asked.append(hash64)
            request.append(
                {
                    "kind": int(module.kind),
                    "fd": descriptor,
                    "debug_fd": _open_debug(module),
                    "name": module.name,
                    "base": base,
                    "size": size,
                    "offsets": sorted(offsets[hash64]),
                }
            )
        answer = ask_children(request, progress)
    finally:
        for entry in request:
            for descriptor in descriptors(entry):
                os.close(descriptor)
    named = {}
    for hash64, entry, places in zip(asked, request, answer, strict=False):
        for offset, lines in zip(entry["offsets"], places, strict=False):
            if lines:
                named[hash64, offset] = lines
    return named


def _open_debug(module: Module) -> int | None:
    """The debug information that this host has of a build, as distributions install it."""
    if module.kind != ModuleKind.NATIVE:
        return None
    build_id = module.id.hex()
    try:
        return os.open(
            f"{DEBUG_FOLDER}/{build_id[:2]}/{build_id[2:]}.debug", os.O_RDONLY | os.O_CLOEXEC
        )
    except OSError:
        return None


def _open(hash64: int, module: Module, registry: ModuleRegistry) -> int | None:
    try:
        if module.kind == ModuleKind.NATIVE:
            source = registry.sources[hash64]
            return open_mapped(source.tgid, source.mapping)
        if module.kind in (ModuleKind.KERNEL, ModuleKind.KERNEL_MODULE):
            return os.open(KALLSYMS, os.O_RDONLY | os.O_CLOEXEC)
    except (FileUnavailableError, OSError, KeyError):
        pass
    return None


def _load_addresses() -> dict[str, tuple[int, int]]:
    try:
        text = Path("/proc/modules").read_text(errors="replace")
    except OSError:
        return {}
    return {module.name: (module.start, module.size) for module in parse_modules(text)}
