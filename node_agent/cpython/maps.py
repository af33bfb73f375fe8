"""The maps of bpf/python.h, written by descriptor."""

import ctypes
import errno
import os
from collections.abc import Iterable

from node_agent.capabilities import KERNEL_PROGRAMS, using
from node_agent.cpython.errors import PythonError
from node_agent.cpython.structs import MAX_PYTHON_NAMES, PythonLayoutC, PythonProcessC
from node_agent.kernel.libbpf import library


class PythonMaps:
    """The descriptors stay the caller's."""

    def __init__(self, processes_fd: int, layouts_fd: int, names_fd: int) -> None:
        self._processes_fd = processes_fd
        self._layouts_fd = layouts_fd
        self._names_fd = names_fd
        self._lib = library()

    def put_layout(self, number: int, layout: PythonLayoutC) -> None:
        """Write a layout that no process has yet. Raises PythonError."""
        self._put(self._layouts_fd, number, layout)

    def put_process(self, tgid: int, process: PythonProcessC) -> bool:
        """Make a process known, or change its record. False when the map is full. Raises
        PythonError."""
        return self._put(self._processes_fd, tgid, process)

    def process(self, tgid: int) -> PythonProcessC | None:
        """The record of a process, with what the kernel program wrote into it."""
        record = PythonProcessC()
        key = ctypes.c_uint32(tgid)
        failed = self._lib.bpf_map_lookup_elem(
            self._processes_fd, ctypes.byref(key), ctypes.byref(record)
        )
        return None if failed else record

    def drop_process(self, tgid: int) -> None:
        """Forget a process."""
        self._lib.bpf_map_delete_elem(self._processes_fd, ctypes.byref(ctypes.c_uint32(tgid)))

    def forget_names(self, ids: Iterable[int]) -> None:
        """Have the names of code objects sent again."""
        with using(*KERNEL_PROGRAMS):  # rare, so not raised by the caller
            for id64 in ids:
                self._drop_name(id64)

    def _drop_name(self, id64: int) -> None:
        self._lib.bpf_map_delete_elem(self._names_fd, ctypes.byref(ctypes.c_uint64(id64)))

    def clear(self) -> None:
        """Forget all processes, whose layouts were numbered by an agent before this one, and have
        every name sent again."""
        for tgid in self._keys(self._processes_fd, ctypes.c_uint32):
            self.drop_process(tgid)
        for id64 in self._keys(self._names_fd, ctypes.c_uint64):
            self._drop_name(id64)

    def _keys(self, fd: int, kind: type[ctypes.c_uint32] | type[ctypes.c_uint64]) -> list[int]:
        found: list[int] = []
        key, following = None, kind()
        while not self._lib.bpf_map_get_next_key(fd, key, ctypes.byref(following)):
            if len(found) >= MAX_PYTHON_NAMES:  # the programs may add more meanwhile
                break
            found.append(following.value)
            key = ctypes.byref(kind(following.value))
        return found

    def _put(self, fd: int, number: int, value: ctypes.Structure) -> bool:
        key = ctypes.c_uint32(number)
        if not self._lib.bpf_map_update_elem(fd, ctypes.byref(key), ctypes.byref(value), 0):
            return True
        code = ctypes.get_errno()
        if code == errno.E2BIG:
            return False
        raise PythonError(
            f"What is known of a Python program cannot be written: {os.strerror(code)}",
            "Start the agent again.",
        )
