import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from node_agent.symbols.build_ids import (
    find_build_id,
    hash_file_ends,
    read_build_id,
    read_note_build_id,
)
from node_agent.symbols.elf import Note


def _readelf_id(path: Path) -> str:
    text = subprocess.run(
        ["readelf", "-n", path], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"Build ID: ([0-9a-f]+)", text)
    assert found is not None
    return found.group(1)


def test_gnu_build_ids_are_those_of_readelf(c_program, libc, opened) -> None:
    for path in (c_program, libc, Path(sys.executable).resolve()):
        with opened(path) as (read, size):
            assert read_build_id(read, size).hex() == _readelf_id(path)


def test_another_program_has_another_id(c_program, cpp_program, opened) -> None:
    ids = set()
    for path in (c_program, cpp_program):
        with opened(path) as (read, size):
            ids.add(read_build_id(read, size))
    assert len(ids) == 2


def test_a_program_without_one_is_known_by_its_ends(compile_program, opened) -> None:
    source = "int main(void) { return 3; }"
    path = compile_program("without_id", source, "-Wl,--build-id=none")
    with opened(path) as (read, size):
        assert read_note_build_id(read) is None
        found = read_build_id(read, size)
        assert found == hash_file_ends(read, size)
    assert len(found) == 20


def test_what_is_no_elf_file_is_known_by_its_ends() -> None:
    first, second = b"x" * 10_000, b"x" * 9_999 + b"y"
    ids = {
        read_build_id(lambda at, n, data=data: data[at : at + n], len(data))
        for data in (first, second, first + b"x")
    }
    assert len(ids) == 3


def test_a_go_program_is_known_by_gos_build_id(tmp_path: Path, opened) -> None:
    go = shutil.which("go")
    if go is None:
        pytest.skip("the go tool is missing: install Go to build a program without a GNU id")
    with opened(Path(go).resolve()) as (read, _):
        found = read_note_build_id(read)
    assert found is not None
    assert len(found) == 20


@pytest.mark.parametrize("content", [b"", bytes(20), b"x" * 65])
def test_useless_gnu_notes_do_not_count(content: bytes) -> None:
    assert find_build_id([Note(b"GNU", 3, content)]) is None


def test_other_notes_do_not_count() -> None:
    assert find_build_id([Note(b"GNU", 1, b"abi"), Note(b"Linux", 3, b"x")]) is None


def test_the_gnu_id_wins_over_gos() -> None:
    notes = [Note(b"Go", 4, b"a/b/c"), Note(b"GNU", 3, b"\x01\x02")]
    assert find_build_id(notes) == b"\x01\x02"


def test_every_running_program_of_this_host_has_an_id(opened) -> None:
    """Whatever is mapped here: an id of a length that the wire allows."""
    paths = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    for path in filter(lambda name: name.startswith("/") and Path(name).is_file(), paths):
        with opened(Path(path)) as (read, size):
            assert 1 <= len(read_build_id(read, size)) <= 64
