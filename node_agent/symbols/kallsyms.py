"""Kernel addresses: to (kernel or module, offset) in the sampler, to tables of names in a child.

Resident here are only the ranges of the kernel image, of its modules and of BPF programs. The
symbol table itself (5 MB of text) is read once through for the image's bounds, and again only by
the child that makes an extract.
"""

import os
import re
import time
from _blake2 import blake2b
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from node_agent.capabilities import KERNEL_SYMBOLS, using
from node_agent.symbols.build_ids import find_build_id
from node_agent.symbols.elf import parse_notes
from node_agent.symbols.errors import KernelSymbolsError
from node_agent.symbols.modules import BPF, ModuleRegistry
from wire.hashes import pack_frame
from wire.schema import Module, ModuleKind

KALLSYMS = "/proc/kallsyms"
_ADDRESS = re.compile(rb"[0-9a-f]{1,16}")
# Name, size, users, who they are, state, address.
_MODULE_LINE = re.compile(r"^(\S+) (\d{1,18}) \S+ \S+ \S+ 0x([0-9a-f]{1,16})(?: .*)?$", re.M | re.A)
# One pass over kallsyms costs 0.1 s of CPU, so the wait doubles when it did not help.
RELOAD_S = 60.0
MAX_RELOAD_S = 3_840.0


class Symbol(NamedTuple):
    """A line of kallsyms; `module` is empty for the kernel image, `bpf` for BPF programs."""

    address: int
    type: str
    name: str
    module: str


class KernelRanges(NamedTuple):
    """What kallsyms says of the image and of BPF programs. `bpf` is sorted by address."""

    stext: int
    etext: int
    bpf: tuple[Symbol, ...]


def read_ranges(chunks: Iterable[bytes]) -> KernelRanges:
    """The bounds of the kernel's text, and the BPF programs.

    Only the few lines that matter are taken apart. Raises KernelSymbolsError when addresses are
    hidden from this process.
    """
    stext = etext = 0
    bpf = []
    rest = b""
    for chunk in chunks:
        text = rest + chunk
        end = text.rfind(b"\n") + 1
        rest = text[end:]
        if (b" _stext\n" not in text and b" _etext\n" not in text) and b"\t[bpf]" not in text:
            continue
        for line in text[:end].split(b"\n"):
            if line.endswith((b" _stext", b" _etext")):
                symbol = _parse_line(line)
                if symbol is not None and symbol.name == "_stext":
                    stext = symbol.address
                elif symbol is not None and symbol.name == "_etext":
                    etext = symbol.address
            elif line.endswith(b"\t[bpf]"):
                symbol = _parse_line(line)
                if symbol is not None:
                    bpf.append(symbol)
    if not 0 < stext < etext:
        raise KernelSymbolsError(
            "the kernel hides its addresses from this process",
            "give the sampler CAP_SYSLOG, or set kernel.kptr_restrict to 0",
        )
    return KernelRanges(stext, etext, tuple(sorted(bpf)))


def read_chunks(descriptor: int) -> Iterator[bytes]:
    """The content of kallsyms from an open descriptor."""
    while chunk := os.read(descriptor, 1 << 16):
        yield chunk


def kernel_build_id() -> bytes:
    """GNU build id of the running kernel; without one, BLAKE2b-160 of release and version."""
    try:
        found = find_build_id(parse_notes(Path("/sys/kernel/notes").read_bytes()))
    except OSError:
        found = None
    if found is None:
        text = f"{os.uname().release} {os.uname().version}".encode()
        found = blake2b(text, digest_size=20, person=b"ff-kernel").digest()
    return found


def module_build_id(name: str) -> bytes | None:
    """GNU build id of a loaded kernel module."""
    try:
        return find_build_id(
            parse_notes(Path(f"/sys/module/{name}/notes/.note.gnu.build-id").read_bytes())
        )
    except OSError:
        return None


class LoadedModule(NamedTuple):
    """A line of /proc/modules."""

    start: int
    size: int
    name: str


def parse_modules(text: str) -> list[LoadedModule]:
    """The modules of the text of /proc/modules with a known address, sorted by it. Lines of another
    shape are left out."""
    modules = (
        LoadedModule(int(address, 16), int(size), name)
        for name, size, address in _MODULE_LINE.findall(text)
    )
    return sorted(module for module in modules if module.start)


class KernelFrames:
    """Packed frames of kernel addresses. Raises nothing: what cannot be told apart becomes the
    marker `[kernel]` (addresses hidden) or `[unmapped]`."""

    def __init__(self, registry: ModuleRegistry) -> None:
        self._registry = registry
        self._ranges: KernelRanges | None = None
        self._modules: list[LoadedModule] = []
        self._starts: list[int] = []
        self._image_hash = registry.add(Module(ModuleKind.KERNEL, kernel_build_id(), "vmlinux"))
        self._module_hashes: dict[str, int | None] = {}
        self._loaded_at = 0.0
        self._reload_s = RELOAD_S
        self._load()

    def frame(self, address: int) -> bytes:
        """The packed frame of `address`."""
        ranges = self._ranges
        if ranges is None or self._image_hash is None:
            return self._registry.kernel_hidden
        if ranges.stext <= address < ranges.etext:
            return pack_frame(self._image_hash, address - ranges.stext)
        found = self._find_outside_image(address)
        if found is None and time.monotonic() - self._loaded_at > self._reload_s:
            # Perhaps a module or a BPF program that was loaded after us.
            self._load()
            found = self._find_outside_image(address)
            if found is None:
                self._reload_s = min(2 * self._reload_s, MAX_RELOAD_S)
            else:
                self._reload_s = RELOAD_S
        return found if found is not None else self._registry.unmapped

    def _find_outside_image(self, address: int) -> bytes | None:
        index = bisect_right(self._starts, address) - 1
        if index >= 0:
            module = self._modules[index]
            if address < module.start + module.size:
                hash64 = self._module_hash(module.name)
                if hash64 is None:
                    return self._registry.unmapped
                return pack_frame(hash64, address - module.start)
        programs = self._ranges.bpf if self._ranges is not None else ()
        index = bisect_right(programs, address, key=lambda symbol: symbol.address) - 1
        # The end of a BPF program is not told; none is longer than this when compiled.
        if index >= 0 and address - programs[index].address < 1 << 20:
            name = programs[index].name
            # Trampolines carry a number of this boot in their name: only their kind settles.
            return self._registry.named_frame(
                BPF, name if name.startswith("bpf_prog_") else "bpf_trampoline"
            )
        return None

    def _module_hash(self, name: str) -> int | None:
        if name not in self._module_hashes:
            build_id = module_build_id(name)
            self._module_hashes[name] = (
                None
                if build_id is None
                else self._registry.add(Module(ModuleKind.KERNEL_MODULE, build_id, name))
            )
        return self._module_hashes[name]

    def _load(self) -> None:
        with using(*KERNEL_SYMBOLS):
            self._read()

    def _read(self) -> None:
        self._loaded_at = time.monotonic()
        self._module_hashes.clear()
        try:
            self._modules = parse_modules(Path("/proc/modules").read_text(errors="replace"))
        except OSError:  # a kernel without loadable modules
            self._modules = []
        self._starts = [module.start for module in self._modules]
        try:
            descriptor = os.open(KALLSYMS, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            self._ranges = read_ranges(read_chunks(descriptor))
        except KernelSymbolsError:
            self._ranges = None
        finally:
            os.close(descriptor)


def _parse_line(line: bytes) -> Symbol | None:
    fields = line.split(None, 3)
    if len(fields) < 3 or not _ADDRESS.fullmatch(fields[0]):
        return None
    module = fields[3].strip(b"[] \t").decode("utf-8", "replace") if len(fields) == 4 else ""
    return Symbol(
        int(fields[0], 16),
        fields[1].decode("ascii", "replace"),
        fields[2].decode("utf-8", "replace"),
        module,
    )
