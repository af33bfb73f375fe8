"""`.gnu_debugdata`: the symbol table that distributions leave in stripped files, an ELF file of its
own inside, compressed with xz.

Format: https://sourceware.org/gdb/current/onlinedocs/gdb.html/MiniDebugInfo.html. Runs only in the
parser's child process.
"""

import lzma

from aggregator.symbols.errors import RefusedExtractError

MOST_BYTES = 256 << 20
_MOST_DECODER_BYTES = 256 << 20


def unpack(packed: bytes) -> bytes:
    """The ELF file inside. Raises RefusedExtractError when it is damaged or beyond MOST_BYTES."""
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_DECODER_BYTES)
    try:
        elf = unpacker.decompress(packed, MOST_BYTES)
    except lzma.LZMAError as error:
        raise RefusedExtractError(f".gnu_debugdata cannot be unpacked: {error}") from error
    if not unpacker.eof:
        raise RefusedExtractError(f".gnu_debugdata is cut off or above {MOST_BYTES} bytes")
    return elf
