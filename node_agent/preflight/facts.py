"""What the checks judge: read from the host, or really tried on it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from node_agent.capabilities import CapabilitySets, raise_permitted

_TRIED_RATE_HZ = 19


class Failure(NamedTuple):
    """Something that was tried and did not work, in the words of what tried it."""

    why: str
    remedy: str


@dataclass(frozen=True)
class Facts:
    """A host and the process that looks at it. None: it could not be read, or is not there."""

    machine: str
    kernel_release: str
    btf_bytes: int | None
    user_id: int
    capabilities: CapabilitySets
    perf_event_paranoid: int | None
    kptr_restrict: int | None
    kernel_symbols_visible: bool
    lockdown: str | None  # "none", "integrity" or "confidentiality"
    command_line: str
    tracefs_mounted: bool
    nested_pid_namespace: bool
    libbpf: Failure | None  # of loading the library
    perf_event: Failure | None  # of opening a system-wide sampling event
    collector: Failure | None  # of loading and attaching the program for a moment


def read_facts() -> Facts:
    """Look at this host. Raises permitted capabilities first, as `run` does."""
    capabilities = raise_permitted()
    system = os.uname()
    libbpf = _try_libbpf()
    return Facts(
        machine=system.machine,
        kernel_release=system.release,
        btf_bytes=_size(Path("/sys/kernel/btf/vmlinux")),
        user_id=os.geteuid(),
        capabilities=capabilities,
        perf_event_paranoid=_integer(Path("/proc/sys/kernel/perf_event_paranoid")),
        kptr_restrict=_integer(Path("/proc/sys/kernel/kptr_restrict")),
        kernel_symbols_visible=parse_visible(_head(Path("/proc/kallsyms"))),
        lockdown=parse_lockdown(_head(Path("/sys/kernel/security/lockdown"))),
        command_line=_head(Path("/proc/cmdline")),
        tracefs_mounted=parse_mounts(_head(Path("/proc/self/mounts"), 1 << 20), "tracefs"),
        nested_pid_namespace=_is_nested(),
        libbpf=libbpf,
        perf_event=_try_perf_event(),
        collector=libbpf or _try_collector(),
    )


def parse_lockdown(text: str) -> str | None:
    """The mode in brackets of `none [integrity] confidentiality`; None when there is none."""
    _, opened, rest = text.partition("[")
    mode, closed, _ = rest.partition("]")
    return mode if opened and closed else None


def parse_visible(text: str) -> bool:
    """Whether the text of /proc/kallsyms has addresses that are not zeroed."""
    return any(line.split(" ", 1)[0].strip("0") for line in text.splitlines())


def parse_mounts(text: str, kind: str) -> bool:
    """Whether a file system of `kind` is in the text of /proc/self/mounts."""
    return any(line.split(" ")[2:3] == [kind] for line in text.splitlines())


def _try_libbpf() -> Failure | None:
    from node_agent.kernel.errors import KernelError
    from node_agent.kernel.libbpf import library

    try:
        library()
    except KernelError as error:
        return Failure(error.why, error.remedy)
    return None


def _try_perf_event() -> Failure | None:
    from node_agent.kernel.cpus import online_cpus
    from node_agent.kernel.errors import KernelError
    from node_agent.kernel.perf_event import open_cpu_clock

    try:
        os.close(open_cpu_clock(_TRIED_RATE_HZ, online_cpus()[0]))
    except KernelError as error:
        return Failure(error.why, error.remedy)
    return None


def _try_collector() -> Failure | None:
    from node_agent.collectors.cpu import CpuCollector
    from node_agent.kernel.errors import KernelError

    collector = CpuCollector(_TRIED_RATE_HZ, 1000, 1.0)
    try:
        collector.start()
    except KernelError as error:
        return Failure(str(error), error.remedy)
    collector.stop()
    return None


def _is_nested() -> bool:
    from node_agent.kernel.errors import KernelError
    from node_agent.kernel.namespaces import pid_namespace_setting

    try:
        return pid_namespace_setting() != 0
    except KernelError:
        return True


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _head(path: Path, limit_bytes: int = 4096) -> str:
    try:
        with path.open("rb") as file:
            return file.read(limit_bytes).decode("utf-8", "replace")
    except OSError:
        return ""


def _integer(path: Path) -> int | None:
    try:
        return int(_head(path))
    except ValueError:
        return None
