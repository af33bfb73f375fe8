"""Child process of the sampler: reads interpreters, confined.

A job is an inherited file: its number `fd` and `name`. The inherited file `output` gets a line: a
JSON object of the fields of Interpreter (`debug_offsets` as hex), or {"refused": reason}.
"""

import json
import os
import sys
from typing import Any

from node_agent.children.confine import RATIONED_NICENESS, confine
from node_agent.children.jobs import read_request
from node_agent.cpython.errors import UnknownLayoutError
from node_agent.cpython.interpreter import Interpreter, read_interpreter
from node_agent.symbols.errors import ElfError

CPU_S = 20
WALL_S = 60
MEMORY_BYTES = 1 << 30
MAX_ANSWER_BYTES = 64 << 10


def main(arguments: list[str]) -> int:
    """Answer the request."""
    request = read_request(arguments)
    confine(CPU_S, MEMORY_BYTES, MAX_ANSWER_BYTES, RATIONED_NICENESS, WALL_S)
    for job in request.rationed():
        answer = json.dumps(describe(job["fd"], job["name"])).encode()
        os.write(job["output"], answer + b"\n")
    return 0


def describe(descriptor: int, name: str) -> dict[str, Any]:
    """The answer about one open file."""
    size = os.fstat(descriptor).st_size

    def read(offset: int, length: int) -> bytes:
        return os.pread(descriptor, min(length, size - offset), offset) if offset < size else b""

    try:
        found = read_interpreter(read, size, name)
    except (UnknownLayoutError, ElfError, OSError, MemoryError) as error:
        return {"refused": str(error) or type(error).__name__}
    return {**found._asdict(), "debug_offsets": found.debug_offsets.hex()}


def parse_answer(line: bytes) -> Interpreter | str:
    """The interpreter that a line of the child tells, or why there is none. Raises ValueError."""
    said = json.loads(line)
    try:
        if "refused" in said:
            return str(said["refused"])
        return Interpreter(
            str(said["version"]),
            int(said["runtime"]),
            bytes.fromhex(said["debug_offsets"]),
            tuple((int(start), int(end)) for start, end in said["evaluator"]),
            tuple((int(start), int(end)) for start, end in said["glue"]),
            tuple((int(offset), int(at), int(size)) for offset, at, size in said["segments"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an answer: {line[:80]!r}") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
