"""Maps and instructions loaded one by one, for programs that libbpf did not relocate.

The maps are those that the compiled object declares, which libbpf can read on any kernel.
"""

import ctypes
import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from node_agent.kernel.errors import LoadError, MapError, ObjectError
from node_agent.kernel.libbpf import library

# of include/uapi/linux/bpf.h
_PERF_EVENT = 7  # BPF_PROG_TYPE_PERF_EVENT
_ARRAY = 2  # BPF_MAP_TYPE_ARRAY
_MMAPABLE = 1 << 10  # BPF_F_MMAPABLE
_INSTRUCTION_BYTES = 8
_LOG_BYTES = 1 << 20
_MAX_LOG_LINES = 8


@dataclass(frozen=True)
class Program:
    """What a collector wants loaded: an object of bpf/, its programs and maps, and its settings.

    `max_entries` are sizes of maps by name; `settings` is the object's whole `.rodata`. The maps
    of `core_maps` exist in mode CO-RE only: what uses them is left out of a build by bcc.
    """

    path: Path
    programs: tuple[str, ...]
    maps: tuple[str, ...]
    settings: ctypes.Structure
    max_entries: Mapping[str, int] = field(default_factory=dict)
    core_maps: tuple[str, ...] = ()


class _MapOptions(ctypes.Structure):
    """struct bpf_map_create_opts of libbpf 1.0."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("map_extra", ctypes.c_uint64),
        ("numa_node", ctypes.c_uint32),
        ("map_ifindex", ctypes.c_uint32),
    )


class _ProgramOptions(ctypes.Structure):
    """struct bpf_prog_load_opts of libbpf 1.0."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_int),
        ("prog_btf_fd", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_ifindex", ctypes.c_uint32),
        ("kern_version", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
        ("attach_prog_fd", ctypes.c_uint32),
        ("attach_btf_obj_fd", ctypes.c_uint32),
        ("fd_array", ctypes.c_void_p),
        ("func_info", ctypes.c_void_p),
        ("func_info_cnt", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("line_info", ctypes.c_void_p),
        ("line_info_cnt", ctypes.c_uint32),
        ("line_info_rec_size", ctypes.c_uint32),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_void_p),
    )


def create_maps(program: Program) -> dict[str, int]:
    """The program's maps by name, as new descriptors. Raises ObjectError, MapError, LibbpfError."""
    name = program.path.name
    if not program.path.exists():
        raise ObjectError(
            f"The BPF object {name} is missing", f"no file {program.path}", "Run `make bpf`."
        )
    lib = library()
    handle = lib.bpf_object__open_file(os.fsencode(program.path), None)
    if not handle:
        reason = os.strerror(ctypes.get_errno())
        raise ObjectError(f"Cannot open {name}", reason, "Run `make bpf` to build it again.")
    made: dict[str, int] = {}
    try:
        for map_name in program.maps:
            declared = lib.bpf_object__find_map_by_name(handle, map_name.encode())
            if not declared:
                raise ObjectError(
                    f"{name} does not fit this agent",
                    f"it has no map {map_name}",
                    "Run `make bpf`.",
                )
            entries = program.max_entries.get(map_name) or lib.bpf_map__max_entries(declared)
            made[map_name] = _create_map(map_name, declared, entries)
    except BaseException:
        for fd in made.values():
            os.close(fd)
        raise
    finally:
        lib.bpf_object__close(handle)
    return made


def create_array(name: str, value_bytes: int, entries: int) -> int:
    """An array whose values user space writes by mmap, as a new descriptor. Raises MapError."""
    options = _MapOptions(sz=ctypes.sizeof(_MapOptions), map_flags=_MMAPABLE)
    return _made(
        name,
        library().bpf_map_create(
            _ARRAY, name.encode()[:15], 4, value_bytes, entries, ctypes.byref(options)
        ),
    )


def _create_map(name: str, declared: int, entries: int) -> int:
    lib = library()
    options = _MapOptions(sz=ctypes.sizeof(_MapOptions), map_flags=lib.bpf_map__map_flags(declared))
    fd: int = lib.bpf_map_create(
        lib.bpf_map__type(declared),
        name.encode()[:15],
        lib.bpf_map__key_size(declared),
        lib.bpf_map__value_size(declared),
        entries,
        ctypes.byref(options),
    )
    return _made(name, fd)


def _made(name: str, fd: int) -> int:
    if fd < 0:
        remedy = (
            "Give the agent CAP_BPF." if fd == -errno.EPERM else "Linux 5.8 or newer is needed."
        )
        raise MapError(f"The kernel refused the map {name}", os.strerror(-fd), remedy)
    return fd


def load_instructions(name: str, instructions: bytes) -> int:
    """Load a sampling program; returns its descriptor. Raises LoadError with the verifier's words.

    The log is asked for only after a refusal: writing it makes verifying ten times slower.
    """
    lib = library()
    for log_bytes in (0, _LOG_BYTES):
        log = ctypes.create_string_buffer(log_bytes) if log_bytes else None
        options = _ProgramOptions(sz=ctypes.sizeof(_ProgramOptions))
        if log is not None:
            options.log_level, options.log_size = 1, log_bytes
            options.log_buf = ctypes.addressof(log)
        fd: int = lib.bpf_prog_load(
            _PERF_EVENT,
            name.encode()[:15],
            b"GPL",
            instructions,
            len(instructions) // _INSTRUCTION_BYTES,
            ctypes.byref(options),
        )
        if fd >= 0:
            return fd
    words = log.value.decode("utf-8", "replace").split("\n") if log is not None else []
    detail = " | ".join(line for line in words[-_MAX_LOG_LINES:] if line.strip())
    raise LoadError(
        f"The kernel refused {name}",
        f"{os.strerror(-fd)}{f' ({detail})' if detail else ''}",
        "Give the agent CAP_BPF and CAP_PERFMON."
        if fd == -errno.EPERM
        else "Run `flamefleet-agent check`: it says what this host lacks.",
        -fd,
    )
