"""Real addresses of this process, and parts of the sampler around them."""

import ctypes
import os
from typing import NamedTuple

import pytest

from node_agent.collectors.stacks import ProcessKey, RawStack
from node_agent.normalize import Normalizer
from node_agent.processes.mappings import Mappings, read_mappings, read_start_ticks
from node_agent.sampler.definitions import DefinitionBook
from node_agent.symbols.modules import ModuleRegistry
from wire.hashes import pack_frame
from wire.schema import Module, ModuleKind

TICK_NS = 10_000_000
KERNEL_BASE = 0xFFFFFFFF81000000


class KernelOffsets:
    """Kernel frames as offsets from KERNEL_BASE, in a module that is plain to see."""

    def __init__(self, registry: ModuleRegistry) -> None:
        self.module = registry.add(Module(ModuleKind.KERNEL, b"k" * 20, "vmlinux"))

    def frame(self, address: int) -> bytes:
        assert self.module is not None
        return pack_frame(self.module, address - KERNEL_BASE)


class Bench(NamedTuple):
    """A normalizer with what it fills."""

    registry: ModuleRegistry
    definitions: DefinitionBook
    normalizer: Normalizer

    def frames(self, stack_hash: bytes) -> list[tuple[str, int | str]]:
        """(module, offset or name) of a stack that is due to be defined, root first."""
        packed = self.definitions._pending[stack_hash]
        frames: list[tuple[str, int | str]] = []
        for at in range(0, len(packed), 16):
            module = self.registry.modules[int.from_bytes(packed[at : at + 8], "little")]
            offset = int.from_bytes(packed[at + 8 : at + 16], "little")
            is_named = module.name in ("[unknown]", "bpf")
            frames.append(
                (module.name, self.registry.names[offset].function if is_named else offset)
            )
        return frames


@pytest.fixture
def bench() -> Bench:
    registry = ModuleRegistry()
    definitions = DefinitionBook(1000)
    return Bench(
        registry,
        definitions,
        Normalizer(registry, KernelOffsets(registry), definitions, 1000),
    )


class Own(NamedTuple):
    """This process: its key, its mappings, and addresses in its C library."""

    key: ProcessKey
    mappings: Mappings
    addresses: tuple[int, ...]

    def raw(self, *user_ips: int, kernel: tuple[int, ...] = (), key: int = 1) -> RawStack:
        return RawStack(key, self.key, "python", 1, kernel, user_ips, False)

    def offset(self, address: int) -> int:
        mapping = self.mappings.find(address)
        assert mapping is not None
        return address - mapping.start + mapping.offset

    @property
    def libc(self) -> str:
        mapping = self.mappings.find(self.addresses[0])
        assert mapping is not None
        return os.fsdecode(mapping.path.rsplit(b"/", 1)[-1])


@pytest.fixture
def own() -> Own:
    start_ns = read_start_ticks(os.getpid()) * TICK_NS
    libc = ctypes.CDLL(None)
    addresses = []
    for name in ("qsort", "printf", "atoi", "strtoul"):
        address = ctypes.cast(getattr(libc, name), ctypes.c_void_p).value
        assert address is not None
        addresses.append(address)
    mappings = read_mappings(os.getpid(), start_ns)
    return Own(ProcessKey(os.getpid(), start_ns, 0), mappings, tuple(addresses))
