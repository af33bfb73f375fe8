"""The file that a recording becomes; its name decides the format."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from node_agent.record.errors import RecordError
from wire.folded import encode_folded
from wire.pprof import Frame, encode_profile


class Stack(NamedTuple):
    """Samples of one process and thread name with the same frames (root first)."""

    process: str
    thread: str
    frames: Sequence[Frame]
    samples: int


class Times(NamedTuple):
    """When the recording was made: Unix time, monotonic duration, CPU time of a sample."""

    start_ns: int
    duration_ns: int
    period_ns: int


Encoder = Callable[[Sequence[Stack], Times], bytes]


def choose_encoder(path: Path) -> Encoder:
    """The encoder for the name of `path`. Raises RecordError for a name without a format."""
    for suffix, encoder in _ENCODERS.items():
        if path.name.endswith(suffix):
            return encoder
    raise RecordError(
        f"{path.name!r} names no known format",
        "End it in .folded (collapsed stacks) or .pb.gz (pprof).",
    )


def prepare(path: Path) -> Path:
    """An empty file beside `path` that will become it, so that a full or closed folder is noticed
    before the recording, and a file of before survives a failed one. Raises RecordError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(b"")
    except OSError as error:
        raise RecordError(
            f"{path} cannot be written: {error.strerror}", "Choose another folder with -o."
        ) from error
    return draft


def encode_as_folded(stacks: Sequence[Stack], _times: Times) -> bytes:
    """Folded stacks, the process as the root frame."""
    return encode_folded(
        ((Frame(stack.process), *stack.frames), stack.samples, {}) for stack in stacks
    ).encode()


def encode_as_pprof(stacks: Sequence[Stack], times: Times) -> bytes:
    """pprof, process and thread as labels."""
    return encode_profile(
        (
            (stack.frames, stack.samples, {"process": stack.process, "thread": stack.thread})
            for stack in stacks
        ),
        times.period_ns,
        times.start_ns,
        times.duration_ns,
    )


_ENCODERS: dict[str, Encoder] = {".folded": encode_as_folded, ".pb.gz": encode_as_pprof}
