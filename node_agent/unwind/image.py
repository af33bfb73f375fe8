"""Where an ELF file's code and unwind information lie, in a file or in a process's memory."""

import struct
from typing import NamedTuple

from node_agent.symbols.debug_sections import SHF_COMPRESSED, read_content
from node_agent.symbols.elf import (
    PT_LOAD,
    SHT_NOBITS,
    Header,
    ReadAt,
    Segment,
    read_header,
    read_sections,
    read_segments,
)
from node_agent.symbols.elf import Section as ElfSection
from node_agent.symbols.errors import ElfError
from node_agent.unwind.cfi import MAX_SECTION_BYTES, Section
from node_agent.unwind.cies import read_address

_X86_64 = 62
_PT_GNU_EH_FRAME = 0x6474E550
_EXECUTABLE = 1
_PAGE = 4096
_SHF_EXECINSTR = 4
_MAX_UNPACKED_BYTES = 64 << 20  # of memory, where other sections are read in pieces


class Image(NamedTuple):
    """An ELF file to make rows of.

    `base`: address of the lowest segment's page; `span`: bytes from there to the end of the last
    code; `code`: its executable segments; `sections`: unwind information, the best first;
    `elf_sections` are empty where there are no section headers; `has_code`: the code can be read.
    """

    read: ReadAt
    base: int
    span: int
    entry: int
    code: tuple[Segment, ...]
    sections: tuple[Section, ...]
    elf_sections: tuple[ElfSection, ...]
    has_code: bool

    @property
    def is_go(self) -> bool:
        """Whether Go's linker made it: its code keeps frame pointers."""
        return any(section.name == ".note.go.buildid" for section in self.elf_sections)

    def code_ranges(self) -> list[tuple[int, int]]:
        """Start (less the base) and size of what is code: of sections, else of segments."""
        parts = [
            (section.addr, section.size)
            for section in self.elf_sections
            if section.flags & _SHF_EXECINSTR and section.type != SHT_NOBITS
        ] or [(segment.vaddr, segment.filesz) for segment in self.code]
        ranges = sorted((start - self.base, size) for start, size in parts if size)
        end = 0
        checked = []
        for start, size in ranges:
            if end <= start and start + size <= self.span:
                checked.append((start, size))
                end = start + size
        return checked

    def read_code(self, start: int, size: int) -> bytes:
        """Code from `start` (less the base) on; fewer bytes where the file has no more."""
        for segment in self.code:
            skipped = start + self.base - segment.vaddr
            if 0 <= skipped < segment.filesz:
                return self.read(segment.offset + skipped, min(size, segment.filesz - skipped))
        return b""


def open_image(read: ReadAt, file_size: int, is_image: bool) -> Image:
    """The image of `file_size` bytes behind `read`. `is_image`: offsets are addresses less the
    base, as in memory. Raises ElfError."""
    header = read_header(read)
    if header.machine != _X86_64:
        raise ElfError(f"an ELF file of machine {header.machine}, not of x86-64")
    segments = read_segments(read, header)
    loads = [segment for segment in segments if segment.type == PT_LOAD]
    code = tuple(segment for segment in loads if segment.flags & _EXECUTABLE and segment.memsz)
    if not code:
        raise ElfError("an ELF file without executable segments")
    base = min(segment.vaddr for segment in loads) & -_PAGE
    span = max(segment.vaddr + segment.memsz for segment in code) - base
    if span > 1 << 32:
        raise ElfError("an ELF file with code more than 4 GiB apart")
    placed = [s._replace(offset=s.vaddr - base) for s in segments] if is_image else segments
    elf_sections = [] if is_image else _sections(read, header, file_size)
    sections = _named(read, elf_sections, ".eh_frame", False) or eh_frame_by_header(read, placed)
    sections += _named(read, elf_sections, ".debug_frame", True)
    (entry,) = struct.unpack_from("<Q", header.raw, 24)
    return Image(read, base, span, entry, code, tuple(sections), tuple(elf_sections), not is_image)


def _sections(read: ReadAt, header: Header, file_size: int) -> list[ElfSection]:
    try:
        return read_sections(read, header, file_size)
    except ElfError:
        return []  # cut off or nonsense: the kernel loads such a file too, and so do we


def _named(read: ReadAt, sections: list[ElfSection], name: str, is_debug: bool) -> list[Section]:
    found = []
    for s in sections:
        if s.name != name or s.type == SHT_NOBITS or not s.size:
            continue
        if not s.flags & SHF_COMPRESSED:
            found.append(Section(s.offset, min(s.size, MAX_SECTION_BYTES), s.addr, is_debug))
        elif unpacked := read_content(read, s, _MAX_UNPACKED_BYTES):
            found.append(Section(0, len(unpacked), s.addr, is_debug, unpacked=unpacked))
    return found


def eh_frame_by_header(read: ReadAt, segments: list[Segment]) -> list[Section]:
    """`.eh_frame` by way of its header (Linux Standard Base, section 10.6.2)."""
    for segment in segments:
        if segment.type != _PT_GNU_EH_FRAME or segment.offset < 0:  # in memory: below the base
            continue
        head = read(segment.offset, 12)
        if len(head) < 12 or head[0] != 1:
            continue
        address, _ = read_address(head, 4, head[1], segment.vaddr + 4)
        for holder in segments:
            if address is None or holder.type != PT_LOAD:
                continue
            skipped = address - holder.vaddr
            if 0 <= skipped < holder.filesz:
                size = min(holder.filesz - skipped, MAX_SECTION_BYTES)
                return [Section(holder.offset + skipped, size, address, ends_at_zero=True)]
    return []
