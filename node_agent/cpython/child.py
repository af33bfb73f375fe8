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
from node_agent.cpython.interpreter import MAX_RANGES, Interpreter, read_interpreter
from node_agent.cpython.offsets import MAX_DEBUG_OFFSETS_BYTES
from node_agent.symbols.elf import MAX_SEGMENTS, file_reader
from node_agent.symbols.errors import ElfError
from wire.fit import fit_text

CPU_S = 20
WALL_S = 60
MEMORY_BYTES = 1 << 30
MAX_ANSWER_BYTES = 64 << 10
MAX_REFUSED_BYTES = 500


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
    try:
        found = read_interpreter(*file_reader(descriptor), name)
    except (UnknownLayoutError, ElfError, OSError, MemoryError) as error:
        return {"refused": str(error) or type(error).__name__}
    return {**found._asdict(), "debug_offsets": found.debug_offsets.hex()}


def parse_answer(line: bytes) -> Interpreter | str:
    """The interpreter that a line of the child tells, or why there is none. Raises ValueError: the
    child has read a file of anybody's, and may say anything."""
    try:
        said = json.loads(line)
        if "refused" in said:
            return fit_text(str(said["refused"]), MAX_REFUSED_BYTES)
        return Interpreter(
            fit_text(str(said["version"]), MAX_REFUSED_BYTES),
            _address(said["runtime"]),
            bytes.fromhex(said["debug_offsets"])[:MAX_DEBUG_OFFSETS_BYTES],
            tuple(
                (_address(start), _address(end)) for start, end in said["evaluator"][:MAX_RANGES]
            ),
            tuple((_address(start), _address(end)) for start, end in said["glue"][:MAX_RANGES]),
            tuple(
                (_address(offset), _address(at), _address(size))
                for offset, at, size in said["segments"][:MAX_SEGMENTS]
            ),
        )
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not an answer: {line[:80]!r}") from error


def _address(number: Any) -> int:
    if type(number) is not int or not 0 <= number < 1 << 64:
        raise ValueError(f"{number!r:.40} is no address")
    return number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
