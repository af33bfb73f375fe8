"""Rows from what a process has mapped of a file that is gone."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node_agent.processes.errors import FileUnavailableError
from node_agent.processes.mappings import Mapping, read_mappings, read_start_ticks
from node_agent.unwind.elf_rows import build_rows
from node_agent.unwind.mapped_image import open_mapped_image
from node_agent.unwind.rows import Rows

PROJECT = Path(__file__).parents[3]
TICK_NS = 10_000_000


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A process that runs a copy of `sleep`."""
    program = tmp_path / "sleeper"
    shutil.copy("/bin/sleep", program)
    process = subprocess.Popen([program, "600"])
    maps = Path(f"/proc/{process.pid}/maps")
    # The program's mappings come one after the other, the code's not first.
    while not any(
        "r-xp" in line and str(program) in line for line in maps.read_text().splitlines()
    ):
        time.sleep(0.01)
    yield process, program
    process.kill()
    process.wait()


def program_mapping(pid: int, name: str) -> Mapping:
    mappings = read_mappings(pid, read_start_ticks(pid) * TICK_NS)
    return next(entry for entry in mappings.entries if name in os.fsdecode(entry.path))


def rows_of(descriptor: int, is_image: bool) -> Rows:
    size = os.fstat(descriptor).st_size
    try:
        return build_rows(lambda at, length: os.pread(descriptor, length, at), size, is_image)
    finally:
        os.close(descriptor)


def test_a_deleted_file_has_the_rows_that_it_had(
    sleeper: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, program = sleeper
    expected = rows_of(os.open(program, os.O_RDONLY), False)
    program.unlink()
    mapping = program_mapping(process.pid, "sleeper")
    assert mapping.deleted

    found = rows_of(open_mapped_image(process.pid, mapping), True)

    described = {row for row in memoryview(found.rows).cast("Q") if row >> 56}
    assert len(described) > 20
    # Rows of code that nothing describes come from its instructions, which are not copied.
    assert described <= set(memoryview(expected.rows).cast("Q"))
    assert (found.base, found.segments) == (expected.base, expected.segments)


def test_code_and_writable_memory_are_not_copied(
    sleeper: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, _ = sleeper
    mapping = program_mapping(process.pid, "sleeper")
    descriptor = open_mapped_image(process.pid, mapping)
    code_at = mapping.start - (mapping.start - mapping.offset)
    try:
        assert os.pread(descriptor, 4, 0) == b"\x7fELF"
        assert not any(os.pread(descriptor, mapping.end - mapping.start, code_at))
    finally:
        os.close(descriptor)


def test_memory_that_is_of_no_file_is_refused() -> None:
    mapping = program_mapping(os.getpid(), "libc")._replace(inode=1)
    with pytest.raises(FileUnavailableError):
        open_mapped_image(os.getpid(), mapping)


def test_a_process_that_has_ended_is_refused(
    sleeper: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, _ = sleeper
    mapping = program_mapping(process.pid, "sleeper")
    process.kill()
    process.wait()
    with pytest.raises(FileUnavailableError):
        open_mapped_image(process.pid, mapping)


BUILD = """
import sys, time
from node_agent.capabilities import OTHER_PROCESSES, using
from node_agent.processes.errors import FileUnavailableError
from node_agent.processes.files import open_mapped
from node_agent.processes.mappings import read_mappings, read_start_ticks
from node_agent.symbols.modules import Source
from node_agent.unwind.builder import RowBuilder
pid = int(sys.argv[1])
mappings = read_mappings(pid, read_start_ticks(pid) * 10_000_000)
mapping = next(entry for entry in mappings.entries if entry.deleted)
try:
    with using(*OTHER_PROCESSES):
        open_mapped(pid, mapping)
except FileUnavailableError:
    print("unavailable")
builder, built = RowBuilder(), []
builder.request(b"id", Source(pid, mapping))
while not built:
    built = builder.step()
    time.sleep(0.02)
print(built[0].rows.row_count, built[0].refused)
"""


def test_rows_are_made_of_it_with_no_more_than_the_agents_capabilities(
    sleeper: tuple[subprocess.Popen[bytes], Path],
) -> None:
    """A deleted file is opened by CAP_CHECKPOINT_RESTORE alone."""
    process, program = sleeper
    expected = rows_of(os.open(program, os.O_RDONLY), False)
    program.unlink()
    names = ("sys_ptrace", "dac_read_search", "setuid", "setgid")
    kept = ",".join(f"+{name}" for name in names)
    setpriv = ("setpriv", f"--bounding-set=-all,{kept}", "--inh-caps=-all")
    said = subprocess.check_output(
        [*setpriv, sys.executable, "-c", BUILD, str(process.pid)], text=True, cwd=PROJECT
    )
    opened, count = said.split()
    assert opened == "unavailable"
    # Without the code there is nothing to follow where unwind information is missing.
    assert 0.9 * len(expected.rows) < 8 * int(count) <= len(expected.rows)
