"""Contents of an ELF file's sections, decompressed where the linker compressed them.

Format: System V gABI, chapter 4, "Compressed Sections"; `ELFCOMPRESS_ZLIB` and `ELFCOMPRESS_ZSTD`.
"""

import zlib

from node_agent.symbols.elf import SHT_NOBITS, ReadAt, Section

MAX_SECTION_BYTES = 128 << 20
SHF_COMPRESSED = 1 << 11
_ZLIB, _ZSTD = 1, 2
_HEADER_BYTES = 24
_ZSTD_WINDOW_BYTES = 64 << 20


def read_contents(
    read: ReadAt, sections: list[Section], names: tuple[str, ...]
) -> dict[str, bytes]:
    """The contents of the sections of these names; of several of one name the last one's."""
    return {
        section.name: content
        for section in sections
        if section.name in names and (content := read_content(read, section))
    }


def read_content(read: ReadAt, section: Section, limit: int = MAX_SECTION_BYTES) -> bytes:
    """What a section holds: `limit` bytes of it where it unpacks to more; nothing where it has
    more than `limit` in the file, is not in the file, or can't be unpacked."""
    if section.type == SHT_NOBITS or section.size > limit:
        return b""
    content = read(section.offset, section.size)
    if not section.flags & SHF_COMPRESSED:
        return content
    kind, packed = int.from_bytes(content[:4], "little"), content[_HEADER_BYTES:]
    if kind == _ZLIB:
        return _inflate(packed, limit)
    return _unpack_zstd(packed, limit) if kind == _ZSTD else b""


def _inflate(packed: bytes, limit: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, limit)
    except zlib.error:
        return b""


def _unpack_zstd(packed: bytes, limit: int) -> bytes:
    import zstandard  # only where it is needed: most files are not packed by it

    unpacker = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    try:
        with unpacker.stream_reader(packed) as reader:
            return bytes(reader.read(limit))
    except zstandard.ZstdError:
        return b""
