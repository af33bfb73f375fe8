"""Executes a command so that it cannot outlive its parent, as another user where that is asked.

Run as a file by the supervisor (`python -I -S launch.py OPTIONS -- COMMAND`), so that no code runs
between fork and exec in the parent. Of the project it imports just what takes privileges away: it
has to start fast. All but the agent's sampler and its check lose every capability, for good.

The signal of a dead parent is set last, because the kernel forgets it when the user changes
(prctl(2), PR_SET_PDEATHSIG).

A server's account often may not enter the folders above its files (a checkout in /root, a private
temporary folder). Then the server gets a mount namespace of its own, in which the closed folder is
an empty one that holds just the server's folders, at the same paths. Nothing changes outside.
"""

import argparse
import ctypes
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from confinement.privileges import become, drop_bounding_set, drop_capabilities

_CLONE_NEWNS = 0x00020000
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None) -> None:
    arguments = [None if text is None else text.encode() for text in (source, target, kind)]
    _check(
        _libc.mount(*arguments, ctypes.c_ulong(flags), None if data is None else data.encode()),
        f"mount on {target}",
    )


def expose(folders: list[str], blocked: list[str]) -> None:
    """Cover each of `blocked` in a private mount namespace, leaving only `folders` visible."""
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE, None)
    opened = [(folder, os.open(folder, os.O_PATH)) for folder in folders]
    for folder in blocked:
        _mount("tmpfs", folder, "tmpfs", 0, "mode=0755,size=64k")
    for folder, descriptor in opened:
        Path(folder).mkdir(parents=True, exist_ok=True)
        _mount(f"/proc/self/fd/{descriptor}", folder, None, _MS_BIND | _MS_REC, None)
        os.close(descriptor)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--death-signal", type=int, default=signal.SIGTERM)
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    parser.add_argument("--group", type=int)
    parser.add_argument("--keep-capabilities", action="store_true")
    parser.add_argument("--expose", action="append", default=[])
    parser.add_argument("--blocked", action="append", default=[])
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)  # the supervisor blocks and a shell may ignore them
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    try:
        if options.blocked:
            os.umask(0o022)
            expose(options.expose, options.blocked)
        if options.group is not None:
            os.setgroups([options.group])
        if not options.keep_capabilities:
            drop_bounding_set()
        if options.uid is not None:
            become(options.uid, options.gid)
        if not options.keep_capabilities:
            drop_capabilities()
        _check(
            _libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(options.death_signal), 0, 0, 0), "prctl"
        )
        if os.getppid() != options.parent:
            return  # the parent died before the signal was set
        os.execv(options.command[0], options.command)
    except OSError as error:
        sys.exit(f"cannot start {options.command[0]}: {error}")


if __name__ == "__main__":
    main()
