"""Runs the parser's child process and turns however it ends into an answer.

Input and outputs are unnamed files, not pipes: neither side can block the other, and the child's
file size limit bounds what it can answer.
"""

import os
import signal
import subprocess
import sys
import tempfile
from typing import IO, TypeVar

import msgspec

from aggregator.symbols.errors import RefusedExtractError
from wire.pprof import Line

MOST_MEMORY_BYTES = 3 << 30
MOST_CPU_S = 60
MOST_OUTPUT_BYTES = 512 << 20
_ARGUMENTS = ("-I", "-m", "aggregator.symbols.parser")
_WALL_TIME_S = 4 * MOST_CPU_S  # a busy machine may give the child a fraction of a core

UPLOAD = "--upload"
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


class Upload(msgspec.Struct):
    """What an uploaded file turned out to be."""

    refused: str = ""
    build_id: bytes = b""
    data: bytes = b""  # the form to keep
    has_lines: bool = False  # there is debug information: lines and inlined functions


class Response(msgspec.Struct):
    """Entry i of `places` is that of offset i; empty where no symbol covers it."""

    refused: str = ""
    data: bytes = b""  # the form to keep, unless the request's was that already
    places: list[Place] = []


Answer = TypeVar("Answer", Upload, Response)


def parse(request: Request) -> Response:
    """Answer of a fresh child process to `request`.

    Raises RefusedExtractError when the extract is refused, or when the child crashed, used up its
    limits or answered nonsense over it.
    """
    with tempfile.TemporaryFile() as question:
        question.write(msgspec.msgpack.encode(request))
        question.seek(0)
        reply = _run([], question, _WALL_TIME_S)
    response = _decode(reply, Response)
    if len(response.places) != len(request.offsets):
        raise RefusedExtractError("its parser answered for another number of frames")
    return response


def parse_upload(file: IO[bytes], size: int) -> Upload:
    """What is in the uploaded ELF file `file` (readable by everyone) of `size` bytes.

    Raises RefusedExtractError like `parse`. The child's limits grow with the file.
    """
    reply = _run([UPLOAD], file, 4 * upload_cpu_s(size))
    return _decode(reply, Upload)


def upload_cpu_s(size: int) -> int:
    """Seconds of CPU for a file of `size` bytes: debug information reads at 20 MB/s and more."""
    return MOST_CPU_S + (size >> 20) // 4


def upload_memory_bytes(size: int) -> int:
    """Address space for a file of `size` bytes, which is mapped and read in pieces."""
    return MOST_MEMORY_BYTES + 4 * size


def _run(flags: list[str], question: IO[bytes], wall_time_s: int) -> bytes:
    """The answer of a child with `question` as its standard input."""
    with tempfile.TemporaryFile() as reply, tempfile.TemporaryFile() as complaint:
        try:
            child = subprocess.run(
                [sys.executable, *_ARGUMENTS, *flags],
                stdin=question,
                stdout=reply,
                stderr=complaint,
                env={},
                timeout=wall_time_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RefusedExtractError(f"reading it took longer than {wall_time_s} s") from None
        if child.returncode != 0:
            complaint.seek(-min(complaint.seek(0, os.SEEK_END), 4096), os.SEEK_END)
            raise RefusedExtractError(_why(child.returncode, complaint.read()))
        reply.seek(0)
        return reply.read()


def _decode(reply: bytes, kind: type[Answer]) -> Answer:
    try:
        answer = msgspec.msgpack.decode(reply, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise RefusedExtractError(f"its parser answered nonsense: {error}") from error
    if answer.refused:
        raise RefusedExtractError(answer.refused)
    return answer


def _why(code: int, stderr: bytes) -> str:
    last_line = (stderr.decode(errors="replace").strip().split("\n") or [""])[-1][:200]
    if code == -signal.SIGXCPU or code == -signal.SIGKILL:
        return "reading it used too much CPU or was killed"
    if code < 0:
        return f"its parser crashed with {signal.Signals(-code).name} {last_line}".rstrip()
    return f"its parser failed: {last_line}"
