"""Sampling events on the software CPU clock, one a CPU, with a BPF program on each.

The program is attached by ioctl: perf links exist only from Linux 5.15 on. Layout and numbers are
those of include/uapi/linux/perf_event.h; see perf_event_open(2).
"""

import ctypes
import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from node_agent.kernel.errors import PerfEventError

_SYSCALL_NUMBERS = {"x86_64": 298, "aarch64": 241}
_ATTR = struct.Struct("=IIQQQQQ")  # type, size, config, sample_freq, sample_type, read_format, bits
_ATTR_BYTES = 112  # PERF_ATTR_SIZE_VER5: known to every kernel that can run the programs
_TYPE_SOFTWARE = 1
_CPU_CLOCK = 0
_BIT_DISABLED = 1 << 0
_BIT_FREQ = 1 << 10
_FLAG_CLOEXEC = 8
_IOC_ENABLE = 0x2400
_IOC_DISABLE = 0x2401
_IOC_SET_BPF = 0x40042408
_SYSCTL = Path("/proc/sys/kernel")
# kernel.perf_event_paranoid from which Debian's (default 3) and Ubuntu's (4) kernels deny every
# event to whoever lacks CAP_SYS_ADMIN; CAP_PERFMON does not count. Upstream's highest level is 2.
PARANOID_DENIES = 3

_libc = ctypes.CDLL(None, use_errno=True)


def _sysctl(name: str) -> str:
    try:
        return (_SYSCTL / name).read_text().strip()
    except OSError:
        return "unreadable"


def _explain(code: int, rate_hz: int) -> tuple[str, str]:
    """Why the kernel refused, and the remedy."""
    reason = os.strerror(code)
    if code in (errno.EACCES, errno.EPERM):
        level = _sysctl("perf_event_paranoid")
        if level.isdigit() and int(level) >= PARANOID_DENIES:
            return (
                f"{reason}; kernel.perf_event_paranoid is {level}, at which this distribution's "
                "kernel wants CAP_SYS_ADMIN, which the agent never takes",
                "Run `sysctl -w kernel.perf_event_paranoid=2`, the kernel's own default; a file in "
                "/etc/sysctl.d keeps it over a reboot.",
            )
        return f"{reason}; perf_event_paranoid is {level}", "Give the agent CAP_PERFMON."
    if code == errno.EINVAL:
        limit = _sysctl("perf_event_max_sample_rate")
        return (
            f"{reason}; kernel.perf_event_max_sample_rate is {limit}, {rate_hz} Hz were asked for",
            "Choose a lower rate, or raise that sysctl.",
        )
    if code == errno.ENOSYS:
        return f"{reason}", "The kernel was built without perf events, or a filter denies them."
    return reason, "See perf_event_open(2) for this error."


def open_cpu_clock(rate_hz: int, cpu: int, pid: int = -1) -> int:
    """Open a disabled event that fires `rate_hz` times a second; returns its descriptor.

    `cpu` >= 0 with `pid` -1 is everything on that CPU; `pid` 0 with `cpu` -1 is the calling thread.
    Raises PerfEventError.
    """
    what = f"Cannot open a sampling event on CPU {cpu}" if cpu >= 0 else "Cannot open an event"
    number = _SYSCALL_NUMBERS.get(os.uname().machine)
    if number is None:
        raise PerfEventError(what, f"unknown machine {os.uname().machine}", "Use x86-64.")
    bits = _BIT_DISABLED | _BIT_FREQ
    attr = _ATTR.pack(_TYPE_SOFTWARE, _ATTR_BYTES, _CPU_CLOCK, rate_hz, 0, 0, bits)
    fd: int = _libc.syscall(number, attr.ljust(_ATTR_BYTES, b"\0"), pid, cpu, -1, _FLAG_CLOEXEC)
    if fd < 0:
        code = ctypes.get_errno()
        raise PerfEventError(what, *_explain(code, rate_hz), code)
    return fd


def enable(fd: int) -> None:
    fcntl.ioctl(fd, _IOC_ENABLE, 0)


def disable(fd: int) -> None:
    fcntl.ioctl(fd, _IOC_DISABLE, 0)


class CpuClock:
    """The running sampling events of one program. Closing an event detaches the program."""

    def __init__(self, program_fd: int) -> None:
        self._program_fd = program_fd
        self._fds: dict[int, int] = {}

    @property
    def cpus(self) -> frozenset[int]:
        return frozenset(self._fds)

    @property
    def fds(self) -> Mapping[int, int]:
        """The events' descriptors by CPU."""
        return self._fds

    def start(self, cpus: Iterable[int], rate_hz: int) -> None:
        """Sample these CPUs, none before; takes one sampling period.

        The events are enabled one after the other over a period: CPUs that are sampled at the
        same moment would contend for the maps, and would see each other's sampling as work.
        Raises PerfEventError, with nothing left open.
        """
        try:
            for cpu in cpus:
                self._attach(cpu, rate_hz)
            pause_s = 1 / rate_hz / max(len(self._fds), 1)
            for fd in self._fds.values():
                enable(fd)
                time.sleep(pause_s)
        except OSError as error:
            self.stop()
            raise PerfEventError(
                "Cannot attach the program to a sampling event",
                error.strerror or str(error),
                "Give the agent CAP_BPF and CAP_PERFMON.",
            ) from error
        except PerfEventError:
            self.stop()
            raise

    def follow(self, cpus: Iterable[int], rate_hz: int) -> bool:
        """Close the events of CPUs that went away, sample those that came; whether any did.

        Raises PerfEventError when a CPU that came cannot be sampled; the others go on.
        """
        wanted = frozenset(cpus)
        gone, come = self.cpus - wanted, wanted - self.cpus
        for cpu in gone:
            os.close(self._fds.pop(cpu))
        for cpu in sorted(come):
            self._attach(cpu, rate_hz)
            if cpu in self._fds:
                enable(self._fds[cpu])
        return bool(gone or come)

    def adopt(self, fds: Mapping[int, int]) -> None:
        """Go on with events (by CPU) that another process started with this program."""
        self._fds.update(fds)

    def _attach(self, cpu: int, rate_hz: int) -> None:
        try:
            fd = open_cpu_clock(rate_hz, cpu)
        except PerfEventError as error:
            if error.code == errno.ENODEV:  # went offline since the list was read
                return
            raise
        self._fds[cpu] = fd
        fcntl.ioctl(fd, _IOC_SET_BPF, self._program_fd)

    def stop(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
