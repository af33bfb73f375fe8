"""What a child that was taken over would try. `attempts.py agent|centre USER FILE [KILLER]`

Becomes the user, confines itself as the real children do, then parses the ELF file and tries every
call of the table. Prints JSON: the parsed answer, and the error number of each attempt. With
KILLER it makes one call that ends it, instead.
"""

import ctypes
import errno
import json
import mmap
import os
import struct
import sys

import msgspec

from aggregator.symbols import parser
from confinement.privileges import become
from node_agent.children.confine import confine
from node_agent.symbols.build_ids import read_build_id
from wire.schema import ModuleKind

libc = ctypes.CDLL(None, use_errno=True)
PARENT = os.getppid()
HERE = -100  # AT_FDCWD
READ_WRITE, READ_EXEC = 3, 5
# Call, number, arguments. Most would fail for other reasons, too, but none with EPERM alone.
ATTEMPTS = {
    "read the parent's environment": (2, f"/proc/{PARENT}/environ".encode(), 0),
    "open": (2, b"/etc/hostname", 0),
    "openat": (257, HERE, b"/etc/hostname", 0),
    "openat to write": (257, HERE, b"/tmp/new", os.O_WRONLY | os.O_CREAT, 0o600),
    "openat2": (437, HERE, b"/etc/hostname", b"\0" * 24, 24),
    "open_by_handle_at": (304, HERE, b"\0" * 64, 0),
    "name_to_handle_at": (303, HERE, b"/", b"\0" * 64, b"\0" * 8, 0),
    "creat": (85, b"/tmp/new", 0o600),
    "memfd_create": (319, b"x", 0),
    "stat": (4, b"/etc", b"\0" * 256),
    "newfstatat": (262, HERE, b"/etc", b"\0" * 256, 0),
    "statx": (332, HERE, b"/etc", 0, 0, b"\0" * 256),
    "readlink": (89, b"/proc/self/exe", b"\0" * 64, 64),
    "getdents64": (217, 0, b"\0" * 64, 64),
    "chdir": (80, b"/"),
    "unlink": (87, b"/tmp/new"),
    "rename": (82, b"/tmp/new", b"/tmp/newer"),
    "mkdir": (83, b"/tmp/new", 0o700),
    "chmod": (90, b"/tmp/new", 0o777),
    "symlink": (88, b"/etc", b"/tmp/new"),
    "link": (86, b"/etc/hostname", b"/tmp/new"),
    "truncate": (76, b"/tmp/new", 0),
    "socket": (41, 2, 1, 0),
    "socket of a packet kind": (41, 17, 3, 0),
    "socketpair": (53, 1, 1, 0, b"\0" * 8),
    "connect": (42, 0, b"\0" * 16, 16),
    "sendto": (44, 1, b"x", 1, 0, None, 0),
    "bind": (49, 0, b"\0" * 16, 16),
    "ptrace": (101, 16, PARENT, 0, 0),
    "process_vm_readv": (310, PARENT, None, 0, None, 0, 0),
    "process_vm_writev": (311, PARENT, None, 0, None, 0, 0),
    "kcmp": (312, PARENT, PARENT, 0, 0, 0),
    "pidfd_open": (434, PARENT, 0),
    "pidfd_getfd": (438, 0, 0, 0),
    "pidfd_send_signal": (424, 0, 0, None, 0),
    "kill": (62, PARENT, 0),
    "kill all": (62, -1, 0),
    "tkill": (200, PARENT, 0),
    "tgkill": (234, PARENT, PARENT, 0),
    "rt_sigqueueinfo": (129, PARENT, 0, None),
    "prlimit64 of the parent": (302, PARENT, 7, None, b"\0" * 16),
    "execve": (59, b"/bin/true", None, None),
    "execveat": (322, HERE, b"/bin/true", None, None, 0),
    "fork": (57,),
    "vfork": (58,),
    "clone": (56, 17, 0, 0, 0, 0),
    "clone of a thread": (56, 0x10F00, 0, 0, 0, 0),
    "clone3": (435, b"\0" * 64, 64),
    "unshare": (272, 0x10000000),
    "setns": (308, 0, 0),
    "mount": (165, b"x", b"/tmp", b"tmpfs", 0, None),
    "umount2": (166, b"/tmp", 0),
    "fsopen": (430, b"tmpfs", 0),
    "chroot": (161, b"/"),
    "pivot_root": (155, b"/", b"/"),
    "bpf": (321, 0, b"\0" * 64, 64),
    "perf_event_open": (298, b"\0" * 128, 0, -1, -1, 0),
    "io_uring_setup": (425, 1, b"\0" * 128),
    "userfaultfd": (323, 1),
    "keyctl": (250, 0, -3, 0),
    "add_key": (248, b"user", b"x", b"x", 1, -3),
    "request_key": (249, b"user", b"x", None, -3),
    "syslog": (103, 10, None, 0),
    "init_module": (175, None, 0, b""),
    "finit_module": (313, 0, b"", 0),
    "kexec_load": (246, 0, 0, None, 0),
    "reboot": (169, 0, 0, 0, None),
    "personality": (135, 0),
    "prctl": (157, 4, 1, 0, 0, 0),
    "seccomp": (317, 2, 0, None),
    "setuid": (105, 0),
    "setresuid": (117, 0, 0, 0),
    "setgroups": (116, 0, None),
    "capset": (126, b"\0" * 8, b"\0" * 24),
    "setpriority": (141, 0, 0, 0),
    "sched_setaffinity": (203, 0, 8, b"\xff" * 8),
    "ioctl that types into a terminal": (16, 0, 0x5412, b"x"),
    "fcntl that locks": (72, 0, 6, b"\0" * 32),
    "shmget": (29, 0, 4096, 0o1600),
    "msgget": (68, 0, 0o1600),
    "inotify_init1": (294, 0),
    "fanotify_init": (300, 0, 0),
    "splice": (275, 0, None, 1, None, 1, 0),
    "landlock_create_ruleset": (444, None, 0, 1),
    "a call of the future": (900,),
    "mmap of code": (9, 0, 4096, READ_EXEC, 0x22, -1, 0),
    "mprotect to code": (10, 0, 4096, READ_EXEC),
}


def attempt(call: tuple[object, ...]) -> int:
    ctypes.set_errno(0)
    arguments = [ctypes.c_long(each) if isinstance(each, int) else each for each in call]
    result = libc.syscall(*arguments)
    if result == 0 and call[0] in (56, 57, 58):
        os._exit(0)  # the child that should not be
    return ctypes.get_errno() if result < 0 else 0


def foreign_call() -> None:
    """getpid of the 32-bit architecture, whose number is that of another call here."""
    run()


code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov $20, %eax; int $0x80; ret
run = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
killers = {"int80": foreign_call, "x32": lambda: libc.syscall(ctypes.c_long(0x40000000 | 39))}

side, user, file, *killer = sys.argv[1:]
program = 0  # as the centre's child has it
os.dup2(opened := os.open(file, os.O_RDONLY), program)
os.close(opened)
if int(user):
    become(int(user), int(user))
if side == "agent":
    confine(60, 2 << 30, 1 << 20, 0, 120)
else:
    parser._confine(3 << 30, 60)
if killer:
    killers[killer[0]]()
    sys.exit("it was not ended")
if side == "agent":
    size = os.fstat(program).st_size
    parsed = read_build_id(lambda at, length: os.pread(program, length, at), size).hex()
else:
    upload = parser.read_upload(program)
    places = parser.answer(parser.Request(ModuleKind.NATIVE, b"", upload.data, True, [0])).places
    parsed = upload.build_id.hex() if len(places) == 1 else upload.refused
found = {name: attempt(call) for name, call in ATTEMPTS.items()}
status = struct.calcsize("P")  # struct is used: pointers of 8 bytes are what the table is for
assert status == 8 and msgspec.json.encode(found)
print(json.dumps({"parsed": parsed, "errors": found, "denied": errno.EPERM, "uid": os.getuid()}))
