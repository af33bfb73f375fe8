"""The child process that reads symbol extracts: `python -I -m aggregator.symbols.parser`.

Extracts come from nodes and may be hostile. This process therefore takes one request on standard
input, answers on standard output and ends; before it reads anything it limits its own memory, CPU
time and output, and as root it becomes nobody. Its parent is `sandbox`.
"""

import os
import resource
import sys

import msgspec

from aggregator.symbols import native, table
from aggregator.symbols.demangle import kernel_name
from aggregator.symbols.errors import RefusedExtractError
from aggregator.symbols.sandbox import (
    MOST_CPU_S,
    MOST_MEMORY_BYTES,
    MOST_OUTPUT_BYTES,
    Request,
    Response,
)
from wire.codec import decode
from wire.errors import WireError
from wire.pprof import Line
from wire.schema import ModuleKind, SymbolExtract

_NOBODY = 65534


def answer(request: Request) -> Response:
    """Read the symbols and look the offsets up; a refusal is an answer too."""
    try:
        data = request.data if request.ready else _build(request)
        if request.module_kind == ModuleKind.NATIVE:
            places = native.lookup(data, request.offsets)
        else:
            opened = table.Table(data)
            found = [opened.lookup(offset) for offset in request.offsets]
            places = [[Line(kernel_name(name))] if name else [] for name in found]
    except RefusedExtractError as error:
        return Response(refused=error.message)
    except MemoryError:
        return Response(refused=f"reading it needs more than {MOST_MEMORY_BYTES} bytes of memory")
    return Response(data=b"" if request.ready else data, places=places)


def _build(request: Request) -> bytes:
    try:
        extract = decode(request.data, SymbolExtract)
    except WireError as error:
        raise RefusedExtractError(str(error)) from error
    if request.module_kind == ModuleKind.NATIVE:
        return native.build_symbols(extract.data, request.build_id)
    return table.pack(extract.data)


def _confine() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S, MOST_CPU_S))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_OUTPUT_BYTES, MOST_OUTPUT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def main() -> None:
    """Answer the request on standard input."""
    _confine()
    request = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Request)
    sys.stdout.buffer.write(msgspec.msgpack.encode(answer(request)))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
