"""libbpf.so.1 through ctypes: load an object, keep its descriptors, drop everything else.

After loading, only descriptors stay: the object with its copy of the kernel's type information
(10 to 20 MB while it loads) is closed.
"""

import ctypes
import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from node_agent.kernel.errors import LibbpfError, LoadError, ObjectError

BUNDLED_FOLDERS = (Path(__file__).parent / "lib", Path("/opt/flamefleet/lib"))
OBJECTS = Path(__file__).parent / "objects"
_DEPENDENCIES = ("libz.so.1", "libzstd.so.1", "libelf.so.1")  # before libbpf, in this order
_MAX_LOG_LINES = 200
_MAX_LOG_BYTES = 1 << 20  # the reason of a refusal is at the end of a long log

_pointer = ctypes.c_void_p
_int = ctypes.c_int
_bytes = ctypes.c_char_p
# name: (result, arguments)
_FUNCTIONS = {
    "libbpf_set_print": (_pointer, (_pointer,)),
    "bpf_object__open_file": (_pointer, (_bytes, _pointer)),
    "bpf_object__find_map_by_name": (_pointer, (_pointer, _bytes)),
    "bpf_object__find_program_by_name": (_pointer, (_pointer, _bytes)),
    "bpf_object__load": (_int, (_pointer,)),
    "bpf_object__close": (None, (_pointer,)),
    "bpf_map__set_max_entries": (_int, (_pointer, ctypes.c_uint32)),
    "bpf_map__set_initial_value": (_int, (_pointer, _pointer, ctypes.c_size_t)),
    "bpf_map__fd": (_int, (_pointer,)),
    "bpf_map__type": (_int, (_pointer,)),
    "bpf_map__key_size": (ctypes.c_uint32, (_pointer,)),
    "bpf_map__value_size": (ctypes.c_uint32, (_pointer,)),
    "bpf_map__max_entries": (ctypes.c_uint32, (_pointer,)),
    "bpf_map__map_flags": (ctypes.c_uint32, (_pointer,)),
    "bpf_map_create": (
        _int,
        (_int, _bytes, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32, _pointer),
    ),
    "bpf_prog_load": (_int, (_int, _bytes, _bytes, _bytes, ctypes.c_size_t, _pointer)),
    "bpf_program__fd": (_int, (_pointer,)),
    "bpf_prog_get_next_id": (_int, (ctypes.c_uint32, _pointer)),
    "bpf_map_get_next_id": (_int, (ctypes.c_uint32, _pointer)),
    "bpf_prog_get_fd_by_id": (_int, (ctypes.c_uint32,)),
    "bpf_map_get_fd_by_id": (_int, (ctypes.c_uint32,)),
    "bpf_obj_get_info_by_fd": (_int, (_int, _pointer, _pointer)),
    "bpf_map_lookup_elem": (_int, (_int, _pointer, _pointer)),
    "bpf_map_update_elem": (_int, (_int, _pointer, _pointer, ctypes.c_uint64)),
    "bpf_map_delete_elem": (_int, (_int, _pointer)),
    "bpf_map_get_next_key": (_int, (_int, _pointer, _pointer)),
    "bpf_map_lookup_and_delete_batch": (
        _int,
        (_int, _pointer, _pointer, _pointer, _pointer, _pointer, _pointer),
    ),
}


class LoadedObject(NamedTuple):
    """Descriptors of a loaded object, owned by the caller."""

    programs: dict[str, int]
    maps: dict[str, int]

    def close(self) -> None:
        for fd in (*self.programs.values(), *self.maps.values()):
            os.close(fd)
        self.programs.clear()
        self.maps.clear()


_library: ctypes.CDLL | None = None


def library() -> ctypes.CDLL:
    """libbpf, loaded once: a bundled copy where there is one, else the system's.

    Raises LibbpfError when there is none.
    """
    global _library  # noqa: PLW0603 - one library a process
    if _library is None:
        _library = _open_library()
    return _library


def _open_library() -> ctypes.CDLL:
    name = "libbpf.so.1"
    folder = next((folder for folder in BUNDLED_FOLDERS if (folder / name).exists()), None)
    try:
        if folder is not None:
            # By absolute path and globally: LD_LIBRARY_PATH is ignored for a file with
            # capabilities, and libbpf then finds its dependencies already loaded.
            for dependency in _DEPENDENCIES:
                if (folder / dependency).exists():
                    ctypes.CDLL(str(folder / dependency), mode=ctypes.RTLD_GLOBAL)
            name = str(folder / name)
        lib = ctypes.CDLL(name, use_errno=True)
        for function, (result, arguments) in _FUNCTIONS.items():
            entry = getattr(lib, function)
            entry.restype, entry.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise LibbpfError(
            "Cannot use libbpf",
            str(error),
            "Install libbpf 1.0 or newer (Debian and Ubuntu 24.04: `apt install libbpf1`), "
            f"or put libbpf.so.1 into {BUNDLED_FOLDERS[1]}.",
        ) from error
    return lib


class _Log:
    """libbpf's messages while it loads an object, kept instead of printed."""

    def __init__(self, lib: ctypes.CDLL) -> None:
        self.lines: list[str] = []
        self._lib = lib
        self._libc = ctypes.CDLL(None)
        self._libc.vsnprintf.argtypes = (_pointer, ctypes.c_size_t, _pointer, _pointer)
        prototype = ctypes.CFUNCTYPE(_int, _int, _pointer, _pointer)
        self._callback = prototype(self._take)  # kept: the library holds only its address
        self._previous: int | None = None

    def _take(self, level: int, text: int, arguments: int) -> int:
        # 0 is a warning; more is chatter. A va_list is a pointer on x86-64.
        if level == 0:
            buffer = ctypes.create_string_buffer(_MAX_LOG_BYTES)
            self._libc.vsnprintf(buffer, len(buffer), text, arguments)
            self.lines.extend(buffer.value.decode("utf-8", "replace").split("\n"))
            del self.lines[:-_MAX_LOG_LINES]
        return 0

    def __enter__(self) -> "_Log":
        self._previous = self._lib.libbpf_set_print(ctypes.cast(self._callback, _pointer))
        return self

    def __exit__(self, *_: object) -> None:
        self._lib.libbpf_set_print(self._previous)

    def summary(self) -> str:
        """The last lines, which name the cause."""
        lines = [line.removeprefix("libbpf: ") for line in self.lines if line.strip()]
        return " | ".join(lines[-8:])


def load_object(
    path: Path,
    programs: Iterable[str],
    maps: Iterable[str],
    max_entries: Mapping[str, int],
    settings: ctypes.Structure,
) -> LoadedObject:
    """Load the compiled object at `path` into the kernel.

    `max_entries` are sizes of maps by name; `settings` is the object's whole `.rodata`. Returns
    the descriptors of the named programs and maps. Raises LibbpfError, ObjectError, LoadError.
    """
    if not path.exists():
        raise ObjectError(
            f"The BPF object {path.name} is missing", f"no file {path}", "Run `make bpf`."
        )
    lib = library()
    with _Log(lib) as log:
        handle = lib.bpf_object__open_file(os.fsencode(path), None)
        if not handle:
            raise ObjectError(
                f"Cannot open {path.name}", _reason(log), "Run `make bpf` to build it again."
            )
        try:
            _prepare(lib, handle, path.name, max_entries, settings)
            result = lib.bpf_object__load(handle)
            if result < 0:
                raise _load_error(path.name, -result, log)
            return _take_descriptors(lib, handle, path.name, programs, maps)
        finally:
            lib.bpf_object__close(handle)
            # Type information of the kernel was in thousands of small blocks: give them back.
            ctypes.CDLL(None).malloc_trim(0)


def _prepare(
    lib: ctypes.CDLL,
    handle: int,
    name: str,
    max_entries: Mapping[str, int],
    settings: ctypes.Structure,
) -> None:
    for map_name, entries in max_entries.items():
        if lib.bpf_map__set_max_entries(_find_map(lib, handle, name, map_name), entries) < 0:
            raise ObjectError(
                f"Cannot size map {map_name} of {name} to {entries}",
                os.strerror(ctypes.get_errno()),
                "Lower max_samples.",
            )
    rodata = _find_map(lib, handle, name, ".rodata")
    size = ctypes.sizeof(settings)
    if lib.bpf_map__set_initial_value(rodata, ctypes.byref(settings), size) < 0:
        raise ObjectError(
            f"{name} does not fit this agent",
            f"its settings are not {size} bytes",
            "Run `make bpf` to build it again.",
        )


def _find_map(lib: ctypes.CDLL, handle: int, name: str, map_name: str) -> int:
    found: int | None = lib.bpf_object__find_map_by_name(handle, map_name.encode())
    if not found:
        raise ObjectError(
            f"{name} does not fit this agent", f"it has no map {map_name}", "Run `make bpf`."
        )
    return found


def _take_descriptors(
    lib: ctypes.CDLL, handle: int, name: str, programs: Iterable[str], maps: Iterable[str]
) -> LoadedObject:
    loaded = LoadedObject({}, {})
    try:
        for program in programs:
            found = lib.bpf_object__find_program_by_name(handle, program.encode())
            if not found:
                raise ObjectError(
                    f"{name} does not fit this agent", f"no program {program}", "Run `make bpf`."
                )
            loaded.programs[program] = os.dup(lib.bpf_program__fd(found))
        for map_name in maps:
            map_fd = lib.bpf_map__fd(_find_map(lib, handle, name, map_name))
            loaded.maps[map_name] = os.dup(map_fd)
    except (ObjectError, OSError):
        loaded.close()
        raise
    return loaded


def _reason(log: _Log) -> str:
    return log.summary() or os.strerror(ctypes.get_errno())


def _load_error(name: str, code: int, log: _Log) -> LoadError:
    remedy = "Run `flamefleet-agent check`: it says what this host lacks."
    if not Path("/sys/kernel/btf/vmlinux").exists():
        remedy = "This kernel has no type information (CONFIG_DEBUG_INFO_BTF); use one that has."
    elif code == errno.EPERM:  # the verifier's own refusals are EACCES and EINVAL
        remedy = "Give the agent CAP_BPF and CAP_PERFMON."
    detail = log.summary()
    why = f"{os.strerror(code)}{f' ({detail})' if detail else ''}"
    return LoadError(f"The kernel refused {name}", why, remedy, code)
