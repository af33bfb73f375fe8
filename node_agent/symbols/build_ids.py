"""What identifies a module everywhere: its build id.

In this order: the GNU build id; BLAKE2b-160 of Go's build id (its text is longer than the wire
allows); BLAKE2b-160 over the file's size, its first and its last 4 KiB.
"""

from collections.abc import Callable, Iterable

from node_agent.symbols.elf import (
    PT_NOTE,
    Note,
    ReadAt,
    parse_notes,
    read_header,
    read_segments,
)
from node_agent.symbols.errors import ElfError, OtherFormatError
from wire.build_ids import FILE_ENDS_BYTES, file_build_id, go_build_id

_NT_GNU_BUILD_ID = 3
_NT_GO_BUILD_ID = 4
# This runs in the sampler itself. Real note segments have some hundred bytes together; a thousand
# of a megabyte each would keep it busy for a minute.
_MAX_NOTES_BYTES = 64 << 10


def find_build_id(notes: Iterable[Note]) -> bytes | None:
    """The build id that `notes` hold: 1 to 64 bytes, or None."""
    go = None
    for note in notes:
        if note.owner == b"GNU" and note.type == _NT_GNU_BUILD_ID:
            # All zeros is what a linker leaves that was told to reserve room only.
            if 1 <= len(note.content) <= 64 and any(note.content):
                return note.content
        elif note.owner == b"Go" and note.type == _NT_GO_BUILD_ID and note.content:
            go = go_build_id(note.content)
    return go


def read_note_build_id(read: ReadAt) -> bytes | None:
    """The build id in the note segments of an ELF file; None when there is none.

    Raises ElfError when the file cannot be read as ELF, or has a part only of its notes.
    """
    header = read_header(read)
    left = _MAX_NOTES_BYTES
    is_cut = False
    for segment in read_segments(read, header):
        if segment.type == PT_NOTE and segment.filesz <= left:
            left -= segment.filesz
            notes = read(segment.offset, segment.filesz)
            found = find_build_id(parse_notes(notes))
            if found is not None:
                return found
            is_cut |= len(notes) < segment.filesz
    if is_cut:
        raise ElfError("the notes reach beyond the end of the file")
    return None


def read_build_id(
    read: ReadAt, size: int, is_malformed: Callable[[], None] = lambda: None
) -> bytes:
    """The build id of a file of `size` bytes, whatever it is; `is_malformed` is called of an ELF
    file whose headers or notes contradict the file. Raises OSError from `read`."""
    try:
        found = read_note_build_id(read)
    except OtherFormatError:
        found = None
    except ElfError:
        is_malformed()
        found = None
    return found if found is not None else hash_file_ends(read, size)


def hash_file_ends(read: ReadAt, size: int) -> bytes:
    """20 bytes that identify a file without a build id."""
    head = read(0, FILE_ENDS_BYTES)
    return file_build_id(size, head, read(max(0, size - FILE_ENDS_BYTES), FILE_ENDS_BYTES))
