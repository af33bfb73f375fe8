"""The children that read symbol tables for a recording, one after the other."""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from node_agent.capabilities import using
from node_agent.children.command import child_command
from node_agent.record.progress import Progress
from wire.fit import fit_name
from wire.pprof import Line
from wire.schema import Name

LIMIT_S = 120.0  # of all together
MAX_CHILDREN = 5
MAX_ANSWER_BYTES = 64 << 20  # of one module
# Root's child is nobody, whom root without capabilities may not end.
ENDING = ("CAP_KILL",)
_CHILD = "node_agent.symbols.local"
_LOOK_S = 0.2
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Names = list[list[Line]]  # for each offset of a module, the functions there


def ask_children(request: list[dict[str, Any]], progress: Progress) -> list[Names]:
    """Names for each module of `request`, or for its first ones: SIGINT or SIGTERM (which are
    blocked) ends the naming, and so does LIMIT_S. A file that ends its reader costs only its own
    names: the modules behind it get another child."""
    total = len(request)
    deadline = time.monotonic() + LIMIT_S
    ended_by = ""

    def goes_on() -> bool:
        nonlocal ended_by
        if signal.sigtimedwait(_SIGNALS, 0) is not None:
            ended_by = "a signal"
        elif time.monotonic() > deadline:
            ended_by = f"its limit of {LIMIT_S:.0f} s"
        return not ended_by

    answers: list[Names] = []
    progress.begin(f"naming the functions of {total} files; Ctrl-C writes what is named by then")
    for _ in range(MAX_CHILDREN):
        for names in _run_child(request[len(answers) :], goes_on):
            answers.append(names)
            progress.show(f"naming: {len(answers)} of {total} files")
        if ended_by or len(answers) == total:
            break
        progress.say(f"no names in {request[len(answers)]['name']}: its reader failed")
        answers.append([])
    if len(answers) < total:
        why = f"ended by {ended_by}" if ended_by else f"{MAX_CHILDREN} readers failed"
        progress.say(
            f"naming {why}: {total - len(answers)} of {total} files have no names, "
            "their frames read file+0xoffset"
        )
    progress.end()
    return answers


def _run_child(request: list[dict[str, Any]], goes_on: Callable[[], bool]) -> Iterator[Names]:
    """The answers in their order, until the child ends or `goes_on` says no."""
    if not request or not goes_on():
        return
    question = os.memfd_create("names")
    try:
        with os.fdopen(os.dup(question), "w") as file:
            json.dump(request, file)
        os.lseek(question, 0, os.SEEK_SET)
        child = subprocess.Popen(
            child_command(_CHILD, []),
            stdin=question,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[fd for entry in request for fd in descriptors(entry)],
            env={},
        )
    except OSError:  # no process, no memory: no names
        return
    finally:
        os.close(question)
    assert child.stdout is not None
    try:
        rest, asked = b"", list(request)
        while goes_on():
            if not select.select([child.stdout], [], [], _LOOK_S)[0]:
                continue
            chunk = os.read(child.stdout.fileno(), 1 << 16)
            if not chunk:
                break
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                names = parse_answer(line, len(asked[0]["offsets"]) if asked else 0)
                if names is None:
                    return  # a child that writes anything else is not asked further
                del asked[0]
                yield names
            if len(rest) > MAX_ANSWER_BYTES:
                return
    finally:
        child.stdout.close()
        with using(*ENDING), suppress(PermissionError):
            child.kill()
        child.wait()


def descriptors(entry: dict[str, Any]) -> list[int]:
    """The files of a module of the request."""
    return [entry[name] for name in ("fd", "debug_fd") if entry[name] is not None]


def parse_answer(line: bytes, offsets: int) -> list[list[Line]] | None:
    """The names for so many offsets in a line of the child; None for anything else: the child has
    read a file of anybody's, and may say anything."""
    try:
        names = [
            [_line(function, file, number) for function, file, number in lines]
            for lines in json.loads(line)
        ]
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    return names if 0 < offsets == len(names) else None


def _line(function: Any, file: Any, number: Any) -> Line:
    name = fit_name(Name(str(function), str(file), int(number)))
    return Line(name.function, name.file, name.line)
