"""Child process of the sampler: reads interpreters, confined.

Its argument is a JSON list of {"fd", "name"}, one a file; standard output gets a line for each: a
JSON object of the fields of Interpreter (`debug_offsets` as hex), or {"refused": reason}.
"""

import json
import os
import sys
from typing import Any

from node_agent.cpython.errors import UnknownLayoutError
from node_agent.cpython.interpreter import Interpreter, read_interpreter
from node_agent.symbols.confine import confine
from node_agent.symbols.errors import ElfError

CPU_S = 20
WALL_S = 60
MEMORY_BYTES = 1 << 30
NICENESS = 5  # a tenth of a second, once for each build: a busy host must not put it off


def main(arguments: list[str]) -> int:
    """Answer the request in `arguments[0]`."""
    confine(CPU_S, MEMORY_BYTES, 0, NICENESS, WALL_S)
    for entry in json.loads(arguments[0]):
        print(json.dumps(describe(entry["fd"], entry["name"])), flush=True)
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
