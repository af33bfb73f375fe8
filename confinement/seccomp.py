"""A filter of system calls for processes that only compute: they read and write what they have
open, and ask for memory and the time.

Everything else fails with EPERM: to open, list or change files, to start, signal or look into
processes, to talk to anybody, to map code, and whatever the kernel learns later. Calls of another
architecture or of the x32 ABI end the process. See seccomp(2), and struct seccomp_data there.
"""

import ctypes
import os
import platform
import struct
from collections.abc import Iterable
from typing import NamedTuple

# Numbers of arch/x86/entry/syscalls/syscall_64.tbl.
_COMPUTING = """
read 0 write 1 close 3 fstat 5 lseek 8 munmap 11 brk 12 rt_sigaction 13 rt_sigprocmask 14
rt_sigreturn 15 pread64 17 pwrite64 18 readv 19 writev 20 sched_yield 24 mremap 25 madvise 28
nanosleep 35 alarm 37 getpid 39 exit 60 ftruncate 77 gettimeofday 96 getrlimit 97 getrusage 98
sysinfo 99 times 100 getuid 102 getgid 104 geteuid 107 getegid 108 getppid 110 sigaltstack 131
gettid 186 time 201 futex 202 restart_syscall 219 clock_gettime 228 clock_getres 229
clock_nanosleep 230 exit_group 231 set_robust_list 273 getrandom 318 membarrier 324 rseq 334
"""
# For a compiler: it loads libraries and reads headers. Nothing of what it reads is foreign.
_READING = """
stat 4 lstat 6 mmap 9 mprotect 10 access 21 dup 32 dup2 33 uname 63 fcntl 72 getdents 78 getcwd 79
chdir 80 fchdir 81 readlink 89 statfs 137 fstatfs 138 sched_getaffinity 204 getdents64 217
newfstatat 262 readlinkat 267 faccessat 269 dup3 292 statx 332 faccessat2 439
"""
_ARCHITECTURE = 0xC000003E  # AUDIT_ARCH_X86_64
_X32 = 0x40000000
_LOAD, _AND = 0x20, 0x54  # BPF_LD|BPF_W|BPF_ABS, BPF_ALU|BPF_AND|BPF_K
_IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x15, 0x35, 0x06  # BPF_JMP|BPF_JEQ|BPF_K, ...|BPF_JGE, BPF_RET
_ALLOW, _KILL, _DENY = 0x7FFF0000, 0x80000000, 0x00050000 | 1  # SECCOMP_RET_ERRNO | EPERM
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_PROT_EXEC, _AT_EMPTY_PATH = 4, 0x1000
_NOT_READ_ONLY = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_F_GETFL, _F_DUPFD_CLOEXEC = 3, 1030


class Rule(NamedTuple):
    """Allows call `number` where the low 32 bits of an argument, `mask` of them, are `value`."""

    number: int
    argument: int
    mask: int
    value: int


def computing_filter() -> bytes:
    """For a process that has everything open that it needs."""
    return assemble(
        _numbers(_COMPUTING),
        [
            Rule(9, 2, _PROT_EXEC, 0),  # mmap
            Rule(10, 2, _PROT_EXEC, 0),  # mprotect
            Rule(72, 1, 0xFFFFFFFF & ~_F_GETFL, 0),  # fcntl: F_DUPFD and the flags, no locks
            Rule(72, 1, 0xFFFFFFFF, _F_DUPFD_CLOEXEC),
            Rule(234, 0, 0xFFFFFFFF, os.getpid()),  # tgkill: abort() ends with a signal
            Rule(262, 3, 0xFFFFFFFF, _AT_EMPTY_PATH),  # newfstatat: of what is open
            Rule(302, 0, 0xFFFFFFFF, 0),  # prlimit64: of itself
        ],
    )


def reading_filter() -> bytes:
    """For a compiler, which opens files to read them."""
    return assemble(
        _numbers(_COMPUTING + _READING),
        [
            Rule(2, 1, _NOT_READ_ONLY, 0),  # open
            Rule(257, 2, _NOT_READ_ONLY, 0),  # openat
            Rule(234, 0, 0xFFFFFFFF, os.getpid()),
            Rule(302, 0, 0xFFFFFFFF, 0),
        ],
    )


def assemble(allowed: Iterable[int], rules: Iterable[Rule]) -> bytes:
    """The program: an array of struct sock_filter."""
    program = [
        _instruction(_LOAD, _ARCHITECTURE_AT),
        _instruction(_IF_EQUAL, _ARCHITECTURE, 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER_AT),
        _instruction(_IF_AT_LEAST, _X32, 0, 1),
        _instruction(_RETURN, _KILL),
    ]
    for number in allowed:
        program += [_instruction(_IF_EQUAL, number, 0, 1), _instruction(_RETURN, _ALLOW)]
    for rule in rules:
        program += [
            _instruction(_IF_EQUAL, rule.number, 0, 5),
            _instruction(_LOAD, _ARGUMENTS_AT + 8 * rule.argument),
            _instruction(_AND, rule.mask),
            _instruction(_IF_EQUAL, rule.value & rule.mask, 0, 1),
            _instruction(_RETURN, _ALLOW),
            _instruction(_LOAD, _NUMBER_AT),  # for the next rule
        ]
    program.append(_instruction(_RETURN, _DENY))
    return b"".join(program)


def install(program: bytes) -> None:
    """Put the calling thread, for good, under a filter. Raises OSError."""
    if platform.machine() != "x86_64":
        raise OSError(f"there is no filter of system calls for {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("<H6xQ", len(program) // 8, ctypes.addressof(code))  # struct sock_fprog
    if (
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
        or libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, head, 0, 0) != 0
    ):
        number = ctypes.get_errno()
        raise OSError(number, f"system calls cannot be filtered: {os.strerror(number)}")


def _numbers(table: str) -> list[int]:
    return [int(number) for number in table.split()[1::2]]


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)
