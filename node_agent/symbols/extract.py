"""Child process: symbol extracts, each from one open file to another.

A job has node, module_kind, build_id (hex), name, the numbers of the inherited descriptors `input`
and `output`, and for kernel modules base and size. The input is the ELF file, or /proc/kallsyms
opened by the parent (the kernel decides at the opening whether addresses are shown). What cannot be
extracted is an extract with `refused`.
"""

import os
import sys
from typing import Any

from node_agent.children.confine import RATIONED_NICENESS, confine
from node_agent.children.jobs import read_request
from node_agent.symbols.build_ids import read_build_id
from node_agent.symbols.elf import file_reader
from node_agent.symbols.errors import SymbolError
from node_agent.symbols.kallsyms import read_chunks
from node_agent.symbols.kernel_table import encode_table, kernel_table, module_table
from node_agent.symbols.reduced_elf import reduce_elf
from wire.codec import encode
from wire.limits import MAX_EXTRACT_BYTES, MAX_EXTRACT_DECODED_BYTES
from wire.schema import ModuleKind, SymbolExtract

CPU_S = 60
MEMORY_BYTES = 1 << 30
# Symbol tables compress to about a third; the limit of that is checked again below.
MAX_SYMBOL_BYTES = MAX_EXTRACT_DECODED_BYTES - (64 << 10)  # beside it are some words


def main(arguments: list[str]) -> int:
    """Make the extracts that are asked for."""
    request = read_request(arguments)
    confine(CPU_S, MEMORY_BYTES, MAX_EXTRACT_BYTES, RATIONED_NICENESS)
    for job in request.rationed():
        view = memoryview(encode_extract(job, job["input"]))
        while view:
            view = view[os.write(job["output"], view) :]
    return 0


def encode_extract(request: dict[str, Any], descriptor: int) -> bytes:
    """The encoded SymbolExtract for `request`, read from `descriptor`."""
    try:
        encoded = encode(_extract(request, _read_symbols(request, descriptor), ""))
        if len(encoded) <= MAX_EXTRACT_BYTES:
            return encoded
        reason = f"too large: {len(encoded)} bytes compressed"
    except SymbolError as error:
        reason = str(error)
    except MemoryError:
        reason = f"too large: reading it needs more than {MEMORY_BYTES} bytes of memory"
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    return encode(_extract(request, b"", reason))


def refusal(request: dict[str, Any], reason: str) -> bytes:
    """The encoded SymbolExtract that says why there is none."""
    return encode(_extract(request, b"", reason))


def _extract(request: dict[str, Any], data: bytes, refused: str) -> SymbolExtract:
    return SymbolExtract(
        request["node"],
        request["module_kind"],
        bytes.fromhex(request["build_id"]),
        request["name"],
        data,
        refused,
    )


def _read_symbols(request: dict[str, Any], descriptor: int) -> bytes:
    kind = request["module_kind"]
    if kind == ModuleKind.KERNEL:
        return encode_table(kernel_table(b"".join(read_chunks(descriptor))))
    if kind == ModuleKind.KERNEL_MODULE:
        text = b"".join(read_chunks(descriptor))
        return encode_table(module_table(text, request["name"], request["base"], request["size"]))
    read, size = file_reader(descriptor)
    if read_build_id(read, size).hex() != request["build_id"]:
        raise SymbolError("gone: the file has been replaced by another build")
    return reduce_elf(read, size, MAX_SYMBOL_BYTES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
