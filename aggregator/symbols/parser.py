"""The child process that reads symbols: `python -I -m aggregator.symbols.parser [--upload]`.

Extracts come from nodes and may be hostile, uploads may be damaged. This process therefore takes
one request (or the uploaded file) as its standard input, answers on standard output and ends.
Before it reads anything it limits its own memory, CPU time and output, as root it becomes nobody,
and gives up every system call but those of a process that computes: it can open nothing, start
nothing and talk to nobody. Its parent is `sandbox`.
"""

import mmap
import os
import resource
import sys

import msgspec

from aggregator.symbols import elf, native, table
from aggregator.symbols.demangle import kernel_name
from aggregator.symbols.errors import RefusedExtractError
from aggregator.symbols.sandbox import (
    MOST_CPU_S,
    MOST_MEMORY_BYTES,
    MOST_OUTPUT_BYTES,
    UPLOAD,
    Request,
    Response,
    Upload,
    upload_cpu_s,
    upload_memory_bytes,
)
from confinement.privileges import NOBODY, become, drop_bounding_set, drop_capabilities, limit
from confinement.seccomp import computing_filter, install
from wire.codec import decode
from wire.errors import WireError
from wire.pprof import Line
from wire.schema import ModuleKind, SymbolExtract

_FILES = 4  # descriptors: those of standard input and output, and one to map the file


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


def read_upload(descriptor: int) -> Upload:
    """What the ELF file behind `descriptor` holds; a refusal is an answer too."""
    try:
        data = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)  # until this process ends
        build_id = elf.build_id(data)
        stored, has_debug = native.store_symbols(data)
    except RefusedExtractError as error:
        return Upload(refused=error.message)
    except MemoryError:
        return Upload(refused="reading it needs more memory than it may take")
    except (ValueError, OSError) as error:  # an empty file cannot be mapped
        return Upload(refused=f"it cannot be read: {error}")
    return Upload(build_id=build_id, data=stored, has_lines=has_debug)


def _confine(memory_bytes: int, cpu_s: int) -> None:
    limit(
        {
            resource.RLIMIT_AS: memory_bytes,
            resource.RLIMIT_CPU: cpu_s,
            resource.RLIMIT_FSIZE: MOST_OUTPUT_BYTES,
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_NOFILE: _FILES,
            resource.RLIMIT_NPROC: 0,
        }
    )
    drop_bounding_set()
    if os.geteuid() == 0:
        become(NOBODY, NOBODY)
    drop_capabilities()
    install(computing_filter())


def main() -> None:
    """Answer the request on standard input."""
    reply: Response | Upload
    if sys.argv[1:] == [UPLOAD]:
        size = os.fstat(0).st_size
        _confine(upload_memory_bytes(size), upload_cpu_s(size))
        reply = read_upload(0)
    else:
        _confine(MOST_MEMORY_BYTES, MOST_CPU_S)
        reply = answer(msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Request))
    sys.stdout.buffer.write(msgspec.msgpack.encode(reply))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
