"""When mappings are read again, on a real process."""

import mmap
import os
import subprocess
import sys

import pytest

from node_agent.processes import address_space
from node_agent.processes.address_space import AddressSpace
from node_agent.processes.mappings import read_start_ticks

TICK_NS = 10_000_000


@pytest.fixture
def own() -> AddressSpace:
    space = AddressSpace(os.getpid(), read_start_ticks(os.getpid()) * TICK_NS)
    assert space.is_readable()
    return space


def test_looking_in_vain_becomes_rarer(own: AddressSpace) -> None:
    for wait_s in (2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
        assert own.refresh_s == wait_s
        read_at = own.read_at
        assert own.find(0x10) is None
        assert own.read_at == read_at  # too early
        own.read_at -= wait_s + 1
        assert own.find(0x10) is None
        assert own.read_at > read_at
    assert own.version == 0


def test_a_new_mapping_changes_the_version(own: AddressSpace) -> None:
    with mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC):
        own.read_at -= 3
        own.find(0x10)
        assert own.version == 1
        assert own.refresh_s == address_space.REFRESH_S


def test_old_mappings_are_read_again_though_nothing_is_missing(own: AddressSpace) -> None:
    assert own.mappings is not None
    address = own.mappings.entries[0].start
    own.read_at -= address_space.STALE_S + 1
    before = own.read_at
    assert own.is_readable()
    assert own.read_at > before
    assert own.find(address) is not None


def test_a_process_that_ends_keeps_what_was_read(own: AddressSpace, await_program) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    await_program(child)
    space = AddressSpace(child.pid, read_start_ticks(child.pid) * TICK_NS)
    assert space.is_readable()
    assert space.mappings is not None
    address = space.mappings.entries[0].start
    child.communicate(b"\n")
    space.read_at -= address_space.STALE_S + 1
    assert space.is_readable()
    assert space.find(address) is not None
    assert space.gone
