"""Child process of `record`: names of frames, from the files of this host.

Standard input is a JSON list of {"kind", "fd", "debug_fd", "name", "base", "size", "offsets"}, one
a module; standard output a line for each module as soon as it is done: a JSON list with, for each
offset, the functions there, the innermost first, each [name, file, line]. A module that cannot be
read has no names; the others still do.
"""

import json
import sys
from bisect import bisect_right
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from node_agent.children.confine import confine
from node_agent.symbols.demangle import demangle, load_runtime
from node_agent.symbols.elf import MAX_STRING_BYTES, file_reader
from node_agent.symbols.errors import SymbolError
from node_agent.symbols.functions import read_functions
from node_agent.symbols.kallsyms import read_chunks
from node_agent.symbols.kernel_table import kernel_table, module_table
from wire.pprof import Line
from wire.schema import ModuleKind

CPU_S = 120
MEMORY_BYTES = 3 << 30


def main(_arguments: list[str]) -> int:
    """Answer the request on standard input."""
    # What is loaded only where it is needed: once confined it can't be.
    import_module("zstandard")
    load_runtime()
    confine(CPU_S, MEMORY_BYTES, 0, 0)
    for names in name_offsets(json.load(sys.stdin)):
        print(json.dumps(names), flush=True)
    return 0


def name_offsets(request: list[dict[str, Any]]) -> Iterator[list[list[Line]]]:
    """Names for the offsets of each module of the request."""
    kernel = b""
    for module in request:
        try:
            if module["kind"] == ModuleKind.NATIVE:
                yield _name_native(module)
                continue
            kernel = kernel or b"".join(read_chunks(module["fd"]))
            yield _name_kernel(module, kernel)
        except (SymbolError, OSError, MemoryError) as error:
            print(f"no symbols of {module['name']}: {error}", file=sys.stderr)
            yield [[]] * len(module["offsets"])


def _name_native(module: dict[str, Any]) -> list[list[Line]]:
    debug = module.get("debug_fd")
    functions = read_functions(
        *file_reader(module["fd"]), None if debug is None else file_reader(debug)
    )
    # A mangled name of a few hundred bytes can stand for megabytes.
    return [
        [line._replace(function=demangle(line.function)[:MAX_STRING_BYTES]) for line in lines]
        for lines in functions.lines_at(module["offsets"])
    ]


def _name_kernel(module: dict[str, Any], text: bytes) -> list[list[Line]]:
    if module["kind"] == ModuleKind.KERNEL:
        table = kernel_table(text)
    else:
        table = module_table(text, module["name"], module["base"], module["size"])
    starts = [offset for offset, _ in table]
    names = []
    for offset in module["offsets"]:
        index = bisect_right(starts, offset) - 1
        names.append([Line(table[index][1].decode("utf-8", "replace"))] if index >= 0 else [])
    return names


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
