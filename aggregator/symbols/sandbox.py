"""Runs the parser's child process and turns however it ends into an answer.

Input and outputs are unnamed files, not pipes: neither side can block the other, and the child's
file size limit bounds what it can answer.
"""

import os
import signal
import subprocess
import sys
import tempfile

import msgspec

from aggregator.symbols.errors import RefusedExtractError
from wire.pprof import Line

MOST_MEMORY_BYTES = 3 << 30
MOST_CPU_S = 60
MOST_OUTPUT_BYTES = 512 << 20
_ARGUMENTS = ("-I", "-m", "aggregator.symbols.parser")
_WALL_TIME_S = 4 * MOST_CPU_S  # a busy machine may give the child a fraction of a core

Place = list[Line]  # what runs at a place, the innermost function first


class Request(msgspec.Struct):
    """Look `offsets` up in the symbols of one module.

    `data` is an encoded `wire.schema.SymbolExtract` or, if `ready`, what an earlier answer held.
    """

    module_kind: int
    build_id: bytes
    data: bytes
    ready: bool
    offsets: list[int]


class Response(msgspec.Struct):
    """Entry i of `places` is that of offset i; empty where no symbol covers it."""

    refused: str = ""
    data: bytes = b""  # the form to keep, unless the request's was that already
    places: list[Place] = []


def parse(request: Request) -> Response:
    """Answer of a fresh child process to `request`.

    Raises RefusedExtractError when the extract is refused, or when the child crashed, used up its
    limits or answered nonsense over it.
    """
    with (
        tempfile.TemporaryFile() as question,
        tempfile.TemporaryFile() as reply,
        tempfile.TemporaryFile() as complaint,
    ):
        question.write(msgspec.msgpack.encode(request))
        question.seek(0)
        try:
            child = subprocess.run(
                [sys.executable, *_ARGUMENTS],
                stdin=question,
                stdout=reply,
                stderr=complaint,
                env={},
                timeout=_WALL_TIME_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RefusedExtractError(f"reading it took longer than {_WALL_TIME_S} s") from None
        if child.returncode != 0:
            complaint.seek(-min(complaint.seek(0, os.SEEK_END), 4096), os.SEEK_END)
            raise RefusedExtractError(_why(child.returncode, complaint.read()))
        reply.seek(0)
        try:
            response = msgspec.msgpack.decode(reply.read(), type=Response)
        except msgspec.MsgspecError as error:
            raise RefusedExtractError(f"its parser answered nonsense: {error}") from error
    if response.refused:
        raise RefusedExtractError(response.refused)
    if len(response.places) != len(request.offsets):
        raise RefusedExtractError("its parser answered for another number of frames")
    return response


def _why(code: int, stderr: bytes) -> str:
    last_line = (stderr.decode(errors="replace").strip().splitlines() or [""])[-1][:200]
    if code == -signal.SIGXCPU or code == -signal.SIGKILL:
        return f"reading it used more than {MOST_CPU_S} s of CPU or was killed"
    if code < 0:
        return f"its parser crashed with {signal.Signals(-code).name} {last_line}".rstrip()
    return f"its parser failed: {last_line}"
