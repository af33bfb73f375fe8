"""Child process of `record`: names of frames, from the files of this host.

Standard input is a JSON list of {"kind", "fd", "name", "base", "size", "offsets"}, one a module;
standard output a JSON list of lists of names, null where there is none. A module that cannot be
read has no names; the others still do.
"""

import json
import os
import sys
from bisect import bisect_right
from typing import Any

from node_agent.symbols.confine import confine
from node_agent.symbols.demangle import demangle
from node_agent.symbols.errors import SymbolError
from node_agent.symbols.functions import read_functions
from node_agent.symbols.kallsyms import read_chunks
from node_agent.symbols.kernel_table import kernel_table, module_table
from wire.schema import ModuleKind

CPU_S = 120
MEMORY_BYTES = 3 << 30


def main(_arguments: list[str]) -> int:
    """Answer the request on standard input."""
    confine(CPU_S, MEMORY_BYTES, 0, 0)
    json.dump(name_offsets(json.load(sys.stdin)), sys.stdout)
    return 0


def name_offsets(request: list[dict[str, Any]]) -> list[list[str | None]]:
    """Names for the offsets of each module of the request."""
    kernel = b""
    answer = []
    for module in request:
        try:
            if module["kind"] == ModuleKind.NATIVE:
                answer.append(_name_native(module))
                continue
            kernel = kernel or b"".join(read_chunks(module["fd"]))
            answer.append(_name_kernel(module, kernel))
        except (SymbolError, OSError, MemoryError) as error:
            print(f"no symbols of {module['name']}: {error}", file=sys.stderr)
            answer.append([None] * len(module["offsets"]))
    return answer


def _name_native(module: dict[str, Any]) -> list[str | None]:
    descriptor = module["fd"]
    size = os.fstat(descriptor).st_size

    def read(offset: int, length: int) -> bytes:
        return os.pread(descriptor, min(length, size - offset), offset) if offset < size else b""

    functions = read_functions(read, size)
    names = (functions.name_at(offset) for offset in module["offsets"])
    return [None if name is None else demangle(name) for name in names]


def _name_kernel(module: dict[str, Any], text: bytes) -> list[str | None]:
    if module["kind"] == ModuleKind.KERNEL:
        table = kernel_table(text)
    else:
        table = module_table(text, module["name"], module["base"], module["size"])
    starts = [offset for offset, _ in table]
    names: list[str | None] = []
    for offset in module["offsets"]:
        index = bisect_right(starts, offset) - 1
        names.append(table[index][1].decode("utf-8", "replace") if index >= 0 else None)
    return names


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
