import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wire.schema import Batch, Definitions, Module, ModuleKind, Overhead, Series

NO_OVERHEAD = Overhead(0, 0, 0, 0, 0, 0, 0.0, 0.0)


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    def make(sequence: int = 1, run: bytes = b"r" * 16, rows: int = 2) -> Batch:
        return Batch(
            node="web-1",
            run=run,
            sequence=sequence,
            start_ns=1_700_000_000_000_000_000,
            duration_ns=10_000_000_000,
            rate_millihertz=19_000,
            collector="cpu",
            online_cpus=2,
            series=[Series({"service": "nginx"})],
            stack_hashes=os.urandom(16 * rows),
            series_index=bytes(4 * rows),
            counts=b"\1\0\0\0" * rows,
            lost={},
            overhead=NO_OVERHEAD,
            agent_version="0.1.0",
        )

    return make


@pytest.fixture
def make_definitions() -> Callable[..., Definitions]:
    def make(run: bytes = b"r" * 16) -> Definitions:
        return Definitions(
            node="web-1",
            run=run,
            modules=[Module(ModuleKind.NATIVE, b"\1" * 20, "libc.so.6")],
            names=[],
            frame_module=bytes(4),
            frame_offset=bytes(8),
            stack_hashes=b"h" * 16,
            stack_lengths=b"\1\0",
            stack_frames=bytes(4),
        )

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs (CAP_SYS_ADMIN)")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
