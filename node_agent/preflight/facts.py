"""What the checks judge: read from the host, or really tried on it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from node_agent.capabilities import CapabilitySets, raise_permitted
from node_agent.kernel.lockdown import parse_lockdown

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
    mode: str | None = "core"  # the one in which it was loaded
    mode_reasons: Mapping[str, str] = field(default_factory=dict)  # why better ones were not
    bcc: Failure | None = None  # what bcc lacks; where it was not needed nothing was compiled
    cgroups: str = "v2"  # "v2", "hybrid", "v1" or "none"


def read_facts(mode: str = "auto") -> Facts:
    """Look at this host, and try the collector in `mode`. Raises permitted capabilities first, as
    `run` does."""
    capabilities = raise_permitted()
    system = os.uname()
    libbpf = _try_libbpf()
    tried = _Tried(libbpf, None, {}) if libbpf else _try_collector(mode)
    mounts = _head(Path("/proc/self/mounts"), 1 << 20)
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
        tracefs_mounted=parse_mounts(mounts, "tracefs"),
        nested_pid_namespace=_is_nested(),
        libbpf=libbpf,
        perf_event=_try_perf_event(),
        collector=tried.failure,
        mode=tried.mode,
        mode_reasons=tried.reasons,
        bcc=_look_for_bcc(),
        cgroups=parse_cgroups(mounts),
    )


def parse_visible(text: str) -> bool:
    """Whether the text of /proc/kallsyms has addresses that are not zeroed."""
    return any(line.split(" ", 1)[0].strip("0") for line in text.split("\n"))


def parse_mounts(text: str, kind: str) -> bool:
    """Whether a file system of `kind` is in the text of /proc/self/mounts."""
    return any(line.split(" ")[2:3] == [kind] for line in text.split("\n"))


def parse_cgroups(text: str) -> str:
    """Which versions of cgroups the text of /proc/self/mounts has."""
    first, second = parse_mounts(text, "cgroup"), parse_mounts(text, "cgroup2")
    if first and second:
        return "hybrid"
    return "v2" if second else "v1" if first else "none"


def _look_for_bcc() -> Failure | None:
    from node_agent.kernel import bcc
    from node_agent.kernel.errors import KernelError

    try:
        bcc.find_missing()
    except KernelError as error:
        return Failure(error.why, error.remedy)
    return None


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


class _Tried(NamedTuple):
    failure: Failure | None
    mode: str | None
    reasons: dict[str, str]


def _try_collector(mode: str) -> _Tried:
    from node_agent.collectors.cpu import CpuCollector
    from node_agent.kernel.errors import KernelError

    collector = CpuCollector(_TRIED_RATE_HZ, 1000, 1.0, mode=mode)
    try:
        collector.start()
    except KernelError as error:
        return _Tried(Failure(str(error), error.remedy), None, {})
    collector.stop()
    return _Tried(None, collector.mode, collector.mode_reasons)


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
