"""The programs whose stacks are compared: compiled, started, ended."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

SOURCES = Path(__file__).parent.parent / "tests" / "data" / "programs" / "unwind"
SETTLE_S = 1.0
NICENESS = -15
DEBIAN_PYTHON = "/usr/bin/python3"


class Program(NamedTuple):
    """A program of the comparison; `needs` is the compiler that makes it, or the interpreter."""

    name: str
    words: str
    needs: str
    is_python: bool = False


PROGRAMS = (
    Program("python", "Debian's python3", DEBIAN_PYTHON, True),
    Program("omit", "C, -O2 -fomit-frame-pointer", "gcc"),
    Program("shapes", "C++, exceptions and templates", "g++"),
    Program("traits", "Rust", "rustc"),
    Program("routines", "Go", "go"),
    Program("libraries", "C, 3 threads, 60 shared libraries", "gcc"),
)


def build(program: Program, folder: Path) -> list[str]:
    """Compile `program` into `folder`; the command that runs it."""
    if program.is_python:
        return [DEBIAN_PYTHON, str(SOURCES / "work.py")]
    subprocess.run([str(SOURCES / "build.sh"), str(folder), program.name], check=True)
    return [str(folder / program.name)]


@contextmanager
def running(command: list[str]) -> Iterator[int]:
    """Run `command` while the context is open; yields its process id once it is at its work."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        # More samples where the machine has other work too (man 7 sched: the session's share).
        with suppress(OSError):
            Path(f"/proc/{process.pid}/autogroup").write_text(str(NICENESS))
        try:
            process.wait(SETTLE_S)
        except subprocess.TimeoutExpired:
            yield process.pid
        else:
            raise SystemExit(f"{command[0]} ended with status {process.returncode}")
    finally:
        process.kill()
        process.wait()
