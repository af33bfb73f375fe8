"""The kernel's own messages: has it complained about BPF or perf, has it killed a process?

Read by syslog(2), not from /dev/kmsg, which a unit with PrivateDevices does not have. Reading takes
nothing away from others. Wants CAP_SYSLOG where kernel.dmesg_restrict is set.
"""

import ctypes
import os
import re
from typing import NamedTuple

from node_agent.kernel.errors import KernelLogError

_READ_ALL = 3  # SYSLOG_ACTION_READ_ALL: the newest messages, as many as fit
_READ_BYTES = 64 << 10
_MAX_REPORT_LINES = 80
_LINE = re.compile(r"^<(\d+)>\[\s*(\d+\.\d+)\](?:\[[^\]]*\])? ?(.*)$")
_BEGINS = re.compile(
    r"^(WARNING:|BUG:|kernel BUG at|Oops|Internal error|general protection fault|"
    r"(?:unable|Unable) to handle|watchdog: BUG|rcu: INFO: \S+ (?:self-)?detected stall|"
    r"INFO: rcu)"
)
_ENDS = re.compile(r"---\[ end ")
# Functions, files and programs; not a module's name in a list, not a frame that may be left over.
_NAMES = re.compile(r"\b(?:bpf_|__bpf|perf_|__perf|kernel/bpf/|kernel/events/|net/core/filter)")
_KILLED = re.compile(r"\b[Oo]ut of memory: Killed process (\d+) \(")
_IGNORED = re.compile(r"^\s*\? |Modules linked in|Comm: ")

_libc = ctypes.CDLL(None, use_errno=True)


class Message(NamedTuple):
    """One line of the kernel itself; `at` is seconds on its own clock."""

    at: float
    text: str


def read_kernel_log() -> bytes:
    """The newest 64 KB of messages, for `parse_messages`. Raises KernelLogError."""
    buffer = ctypes.create_string_buffer(_READ_BYTES)
    size = _libc.klogctl(_READ_ALL, buffer, _READ_BYTES)
    if size < 0:
        raise KernelLogError(
            "The kernel's log cannot be read",
            os.strerror(ctypes.get_errno()),
            "Give the agent CAP_SYSLOG.",
        )
    return buffer.raw[:size]


def parse_messages(log: bytes) -> list[Message]:
    """Lines as syslog(2) gives them, `<4>[   12.345678] words`. What programs wrote into the log
    is left out, and so are lines without a time (printk.time=0)."""
    messages = []
    for line in log.decode("utf-8", "replace").split("\n"):
        found = _LINE.match(line)
        if found and int(found[1]) >> 3 == 0:  # the facility: 0 is the kernel
            messages.append(Message(float(found[2]), found[3]))
    return messages


def newest(messages: list[Message]) -> float:
    """The time of the last message; 0 when there is none."""
    return max((message.at for message in messages), default=0.0)


def find_complaint(messages: list[Message], after: float) -> str:
    """The first line of the first warning or oops later than `after` whose report names BPF or
    perf, and the line that does; empty when there is none.

    A report goes from its first line to its end mark. `perf: interrupt took too long` is none.
    """
    first = ""
    lines_left = 0
    for message in messages:
        if message.at <= after:
            continue
        if _BEGINS.match(message.text):
            if not lines_left:
                first = message.text
            lines_left = _MAX_REPORT_LINES
        if lines_left:
            lines_left -= 1
            if _ENDS.search(message.text):
                lines_left = 0
            elif _NAMES.search(message.text) and not _IGNORED.search(message.text):
                return first if message.text == first else f"{first} ({message.text.strip()})"
    return ""


def was_killed(messages: list[Message], pid: int, after: float) -> bool:
    """Whether process `pid` was killed for want of memory later than `after`."""
    found = (_KILLED.search(message.text) for message in messages if message.at > after)
    return any(kill is not None and int(kill[1]) == pid for kill in found)
