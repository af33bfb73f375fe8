"""How long unwind rows of a large binary take, and what memory their child: one JSON line.

A process of its own, because the peak memory of children is known for all of them together only.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

from node_agent.symbols.build_ids import read_build_id
from node_agent.unwind.builder import RowBuilder

# LLVM comes with the compiler of the BPF programs.
CANDIDATES = ("usr/lib/*/libLLVM*.so*", "usr/lib/llvm-*/lib/libLLVM*.so*", "usr/bin/node")
MIN_BYTES = 80 << 20


def large_binary() -> Path | None:
    """The binary of this machine whose size is nearest to 100 MB, at least MIN_BYTES."""
    found = {path.resolve() for pattern in CANDIDATES for path in Path("/").glob(pattern)}
    large = [path for path in found if path.is_file() and path.stat().st_size >= MIN_BYTES]
    return min(large, key=lambda path: abs(path.stat().st_size - 100_000_000), default=None)


def main() -> None:
    """Build the rows of the file named by the first argument."""
    path = sys.argv[1]
    builder = RowBuilder(None)
    started = time.monotonic()
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    build_id = read_build_id(
        lambda offset, size: os.pread(descriptor, size, offset), os.fstat(descriptor).st_size
    )
    builder.request(build_id, descriptor)
    built = builder.step()
    while not built:
        time.sleep(0.01)
        built = builder.step()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    rows = built[0].rows
    document = {
        "file": Path(path).name,
        "file_mb": Path(path).stat().st_size / 1e6,
        "rows": rows.row_count if rows is not None else 0,
        "refused": built[0].refused,
        "wall_s": time.monotonic() - started,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_rss_mb": used.ru_maxrss * 1024 / 1e6,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
