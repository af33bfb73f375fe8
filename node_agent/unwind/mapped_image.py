"""What a process has mapped of a file that can't be opened any more: deleted, or replaced.

Only what it can't have written to and what isn't code: there lie the headers and `.eh_frame`. The
symbol table is not mapped and is lost.
"""

import os
import re

from node_agent.processes.errors import FileUnavailableError
from node_agent.processes.files import may_read_memory, open_mapped
from node_agent.processes.mappings import Mapping, read_maps
from node_agent.symbols.modules import Source

MAX_IMAGE_BYTES = 64 << 20
_CHUNK = 1 << 20
_ANY = re.compile(
    rb"^([0-9a-f]{1,16})-([0-9a-f]{1,16}) (\S+) ([0-9a-f]{1,16}) "
    rb"([0-9a-f]{1,8}):([0-9a-f]{1,8}) (\d{1,20})",
    re.M,
)


def open_source(source: Source) -> tuple[int, bool]:
    """A descriptor of a file, or of what is mapped of it where it is gone, and whether it is that;
    the caller closes it. Raises FileUnavailableError."""
    try:
        return open_mapped(source.tgid, source.mapping), False
    except FileUnavailableError:
        return open_mapped_image(source.tgid, source.mapping), True


def open_mapped_image(tgid: int, mapping: Mapping) -> int:
    """A descriptor of a file that holds the image, its lowest mapping at offset 0 and holes where
    nothing was read; the caller closes it. Raises FileUnavailableError."""
    what = f"the memory of process {tgid} at {mapping.start:x}"
    if not may_read_memory(tgid, mapping):
        # It would be for a server to bring the pages, whenever it likes.
        raise FileUnavailableError(f"{what} is of a file system that may never answer")
    pieces = _pieces(tgid, mapping)
    if not pieces:
        raise FileUnavailableError(f"{what} has no headers beside its code")
    base = pieces[0][0]
    if sum(end - start for start, end in pieces) > MAX_IMAGE_BYTES:
        raise FileUnavailableError(f"{what} is of more than {MAX_IMAGE_BYTES} bytes")
    image = os.memfd_create("image", os.MFD_CLOEXEC)
    try:
        memory = os.open(f"/proc/{tgid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for start, end in pieces:
                for at in range(start, end, _CHUNK):
                    data = os.pread(memory, min(_CHUNK, end - at), at)
                    os.pwrite(image, data, at - base)
        finally:
            os.close(memory)
    except (OSError, OverflowError) as error:
        os.close(image)
        raise FileUnavailableError(f"{what} cannot be read: {error}") from error
    return image


def _pieces(tgid: int, mapping: Mapping) -> list[tuple[int, int]]:
    """The read-only mappings of the same load of the file, sorted; none without its first page."""
    try:
        text = read_maps(tgid)
    except OSError:
        return []
    file = mapping.major, mapping.minor, mapping.inode
    run: list[tuple[int, int, bytes, int]] = []
    runs = [run]
    for match in _ANY.finditer(text):
        start, end, rights, offset, major, minor, inode = match.groups()
        if (int(major, 16), int(minor, 16), int(inode)) != file:
            continue
        found = int(start, 16), int(end, 16), rights, int(offset, 16)
        if run and found[3] == 0:  # the same file once more
            run = []
            runs.append(run)
        run.append(found)
    for run in runs:
        held = run and run[0][0] <= mapping.start < run[-1][1] and run[0][3] == 0
        if held:
            return [(start, end) for start, end, rights, _ in run if rights[:3] == b"r--"]
    return []
