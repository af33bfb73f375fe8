import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from node_agent.processes import mappings
from node_agent.processes.errors import ProcessGoneError
from node_agent.processes.mappings import (
    Mapping,
    Mappings,
    check_start,
    file_bytes_at,
    parse_maps,
    read_mappings,
    read_start_ticks,
)

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
MAPS = b"""\
55bfb8dd9000-55bfb8dde000 r-xp 00002000 fe:00 247026                     /usr/bin/cat
55bfb8dde000-55bfb8de0000 r--p 00007000 fe:00 247026                     /usr/bin/cat
7f0000000000-7f0000001000 rwxp 00000000 00:00 0
7f4a76d84000-7f4a76d86000 r-xp 00000000 00:00 0                          [vdso]
7f5000000000-7f5000002000 r-xs 00001000 103:1f 99 /tmp/with space\\012and break (deleted)
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""


def test_only_executable_entries_are_parsed() -> None:
    assert parse_maps(MAPS).entries == (
        Mapping(0x55BFB8DD9000, 0x55BFB8DDE000, 0x2000, 0xFE, 0, 247026, b"/usr/bin/cat"),
        Mapping(0x7F0000000000, 0x7F0000001000, 0, 0, 0, 0, b""),
        Mapping(0x7F4A76D84000, 0x7F4A76D86000, 0, 0, 0, 0, b"[vdso]"),
        Mapping(
            0x7F5000000000,
            0x7F5000002000,
            0x1000,
            0x103,
            0x1F,
            99,
            b"/tmp/with space\nand break (deleted)",
        ),
        Mapping(0xFFFFFFFFFF600000, 0xFFFFFFFFFF601000, 0, 0, 0, 0, b"[vsyscall]"),
    )


@pytest.mark.parametrize(
    "text", [b"", b"\n\n", b"garbage\n", b"1-2 r-x", b"zz-yy r-xp 0 0:0 0 x\n"]
)
def test_what_is_no_maps_file_has_no_entries(text: bytes) -> None:
    assert parse_maps(text).entries == ()


def test_find_looks_at_both_ends() -> None:
    mappings = parse_maps(MAPS)
    first = mappings.entries[0]
    assert mappings.find(first.start) == first
    assert mappings.find(first.end - 1) == first
    assert mappings.find(first.end) is None
    assert mappings.find(first.start - 1) is None
    assert mappings.find(0) is None
    assert mappings.find(-1) is None
    assert mappings.find(1 << 64) is None


def test_mappings_are_the_same_when_every_entry_is() -> None:
    mappings = parse_maps(MAPS)
    assert len(mappings) == len(mappings.entries)
    assert mappings.is_same(parse_maps(MAPS))
    assert mappings.is_same(Mappings.of(mappings.entries))
    assert mappings.number != parse_maps(MAPS).number
    for index, entry in enumerate(mappings.entries):
        for other in (entry._replace(end=entry.end + 4096), entry._replace(inode=entry.inode + 1)):
            entries = list(mappings.entries)
            entries[index] = other
            assert not mappings.is_same(Mappings.of(entries))
    assert not mappings.is_same(Mappings.of(mappings.entries[:-1]))


def test_own_functions_are_in_the_library_that_holds_them() -> None:
    start_ns = read_start_ticks(os.getpid()) * TICK_NS
    address = ctypes.cast(ctypes.CDLL(None).qsort, ctypes.c_void_p).value
    assert address is not None
    found = read_mappings(os.getpid(), start_ns).find(address)
    assert found is not None
    assert b"libc" in found.path


def test_a_process_with_a_confusing_name_has_a_start_time(sleeper) -> None:
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    started_s = read_start_ticks(sleeper.process.pid) * TICK_NS / 1e9
    # After the tests themselves. (`ps -o etimes` is no judge: it can be negative, shown unsigned.)
    assert read_start_ticks(os.getpid()) * TICK_NS / 1e9 < started_s <= uptime_s
    assert sleeper.mapping().path == os.fsencode(sleeper.path)


@pytest.mark.parametrize("shift_ticks", [-1, 0, 1])
def test_start_times_compare_to_a_tick(shift_ticks: int) -> None:
    ticks = read_start_ticks(os.getpid()) + shift_ticks
    check_start(os.getpid(), ticks * TICK_NS + TICK_NS // 2)


@pytest.mark.parametrize("shift_ticks", [-100, -2, 2, 100])
def test_a_reused_id_is_noticed(shift_ticks: int) -> None:
    start_ns = (read_start_ticks(os.getpid()) + shift_ticks) * TICK_NS
    with pytest.raises(ProcessGoneError, match="belongs to another process"):
        read_mappings(os.getpid(), start_ns)


def test_a_process_that_has_ended_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(ProcessGoneError):
        read_mappings(process.pid, 0)
    with pytest.raises(ProcessGoneError):
        read_start_ticks(process.pid)


def test_only_the_file_itself_counts_as_mapped_before_its_code(sleeper) -> None:
    mapping = sleeper.mapping()
    pid, base = sleeper.process.pid, mapping.start - mapping.offset
    assert 0 < file_bytes_at(pid, base, mapping) <= mapping.offset
    assert file_bytes_at(pid, mapping.start, mapping) == mapping.end - mapping.start
    assert file_bytes_at(pid, base, mapping._replace(inode=1)) == 0
    assert file_bytes_at(pid, 0, mapping) == 0
    assert file_bytes_at(10**7, base, mapping) == 0


def test_the_same_file_in_another_process_takes_no_memory_of_its_own() -> None:
    line = b"%x-%x r-xp 00026000 fe:00 1234567                  /usr/lib/libc.so.6\n"
    [one] = parse_maps(line % (0x1000, 0x2000)).entries
    [other] = parse_maps(line % (0x5000, 0x6000)).entries
    assert one[2:] == other[2:] == (0x26000, 0xFE, 0, 1234567, b"/usr/lib/libc.so.6")
    assert all(mine is its for mine, its in zip(one[2:], other[2:], strict=True))


def test_what_is_remembered_of_files_is_bounded() -> None:
    lines = b"".join(
        b"%x000-%x000 r-xp 0 fe:00 %d /tmp/%d.so\n" % (n, n + 1, n, n) for n in range(1, 5_001)
    )
    entries = parse_maps(lines).entries
    assert [entry.path for entry in entries] == [b"/tmp/%d.so" % n for n in range(1, 5_001)]
    assert len(mappings._files) <= mappings._MAX_FILES
