"""A sampler on a kernel as Debian sets it, and then on one that warns of perf; prints JSON.

Only for a machine of one's own: run inside an emulated one. The warning is a real one and harmless:
perf's buffer for the record of a tracepoint has 2 KB (8 KB from Linux 5.16 on), and the kernel
warns once of a record that is larger (`perf_trace_buf_alloc` in kernel/trace/trace_event_perf.c).
"""

import ctypes
import json
import os
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from node_agent.kernel.log import read_kernel_log

TRACING = Path("/sys/kernel/tracing")
PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
PERF_EVENT_OPEN = 298  # x86-64
TRACEPOINT, ATTR_BYTES = 2, 112
LONG_PATH = "/tmp/" + "/".join(["x" * 250] * 15)  # PATH_MAX is 4096
libc = ctypes.CDLL(None, use_errno=True)


def sample_own_thread(event: str) -> None:
    """Have perf take every occurrence of a trace event in this thread."""
    number = int((TRACING / "events" / event / "id").read_text())
    attr = struct.pack("=IIQQQQQ", TRACEPOINT, ATTR_BYTES, number, 1, 0, 0, 0)
    if libc.syscall(PERF_EVENT_OPEN, attr.ljust(ATTR_BYTES, b"\0"), 0, -1, -1, 0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), event)


def make_the_kernel_warn() -> None:
    """A record that holds a path of almost 4 KB three times."""
    fields = " ".join(f"{name}=+0($arg2):ustring" for name in ("first", "second", "third"))
    (TRACING / "kprobe_events").write_text(f"p:long_names do_sys_openat2 {fields}\n")
    sample_own_thread("kprobes/long_names")
    with suppress(FileNotFoundError):
        os.open(LONG_PATH, os.O_RDONLY)


def start() -> "subprocess.Popen[str]":
    command = [sys.executable, "-B", "-m", "node_agent", "run", "--spool-dir", "/tmp/spool"]
    return subprocess.Popen(
        [*command, "--interval", "1"], stderr=subprocess.PIPE, text=True, cwd="/opt"
    )


level = PARANOID.read_text().strip()
denied = start()
refusal = denied.communicate()[1]
PARANOID.write_text("2")
sampler = start()
assert sampler.stderr is not None
said = ""
while "sampling at" not in said:
    line = sampler.stderr.readline()
    assert line, said
    said += line
before = len(read_kernel_log())
make_the_kernel_warn()
words = sampler.communicate()[1]
found = {
    "release": os.uname().release,
    "level": level,
    "denied": [denied.returncode, refusal],
    "log": read_kernel_log()[before:].decode(),
    "detached": [sampler.returncode, words],
}
print(json.dumps(found))
