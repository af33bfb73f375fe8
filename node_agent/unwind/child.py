"""Child process: unwind rows of files, each from one open file to another.

A job has build_id (hex), the numbers of the inherited descriptors `input` and `output`, and
`is_image`: the input holds the file as it lies in memory. The output is a file of rows, or
b"refused: " and a line of text that says why there are none.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from node_agent.children.confine import RATIONED_NICENESS, confine
from node_agent.children.jobs import read_request
from node_agent.symbols.build_ids import read_build_id
from node_agent.symbols.elf import ReadAt, file_reader
from node_agent.unwind.errors import NoRowsError, RowFileError
from node_agent.unwind.row_file import MAX_FILE_BYTES, decode_rows, encode_rows
from node_agent.unwind.rows import PackedRows, Rows

CPU_S = 20  # a file: the largest here takes less than one
WALL_S = 120  # a file
MEMORY_BYTES = 384 << 20  # of address space
_REFUSED = b"refused: "
_MAX_REASON_BYTES = 500


def main(arguments: list[str]) -> int:
    """Make the rows that are asked for."""
    request = read_request(arguments)
    # What is loaded only where it is needed: once confined it can't be.
    _builders()
    import_module("zstandard")
    confine(CPU_S * len(request.jobs), MEMORY_BYTES, MAX_FILE_BYTES, RATIONED_NICENESS, WALL_S)
    for job in request.rationed():
        _limit_time()
        view = memoryview(make(job))
        while view:
            view = view[os.write(job["output"], view) :]
    return 0


def make(job: dict[str, Any]) -> bytes:
    """What is written for one job."""
    try:
        rows = _read_rows(job)
    except NoRowsError as error:
        reason = str(error)
    except MemoryError:
        reason = f"too large: its rows take more than {MEMORY_BYTES} bytes of memory"
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    else:
        return encode_rows(bytes.fromhex(job["build_id"]), rows)
    return _REFUSED + reason.encode()[:_MAX_REASON_BYTES] + b"\n"


def read_result(build_id: bytes, output: bytes) -> PackedRows | str | None:
    """What a child has written: rows, or why there are none; None when it is incomplete."""
    if output.startswith(_REFUSED) and output.endswith(b"\n"):
        return output.removeprefix(_REFUSED).decode("utf-8", "replace").strip()
    try:
        return decode_rows(build_id, output)
    except RowFileError:
        return None


def _read_rows(job: dict[str, Any]) -> PackedRows:
    descriptor = job["input"]
    read, size = file_reader(descriptor)
    # The note that holds the id of a file in memory need not have been copied.
    if not job["is_image"] and read_build_id(read, size).hex() != job["build_id"]:
        raise NoRowsError("the file has been replaced by another build")
    build_rows, pack_rows = _builders()
    return pack_rows(build_rows(read, size, job["is_image"]))


def _builders() -> tuple[Callable[[ReadAt, int, bool], Rows], Callable[[Rows], PackedRows]]:
    """Imported only here: the sampler too imports this module, for what is answered."""
    from node_agent.unwind.elf_rows import build_rows
    from node_agent.unwind.packing import pack_rows

    return build_rows, pack_rows


def _limit_time() -> None:
    """Each file has its own limits; the signals end this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(used.ru_utime + used.ru_stime) + CPU_S + 1
    if hard == resource.RLIM_INFINITY or soft < hard:
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
    signal.alarm(WALL_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
