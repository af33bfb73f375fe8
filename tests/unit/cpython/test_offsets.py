"""offsets.toml against the headers of every CPython that is here, and what it refuses."""

import json
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from node_agent.cpython.errors import UnknownLayoutError
from node_agent.cpython.interpreter import Interpreter, read_interpreter
from node_agent.cpython.offsets import (
    _read_list,
    find_offsets,
    known_versions,
)

SOURCE = Path(__file__).parents[2] / "data/programs/python/offsets.c"


def read(path: Path) -> Interpreter:
    content = path.read_bytes()
    return read_interpreter(lambda at, size: content[at : at + size], len(content), path.name)


def debug_offsets(version: str, number: int, **said: int) -> bytes:
    """A _Py_DebugOffsets of `version` that says it is of version `number`."""
    fields, _ = _read_list().debug_fields[version]
    values = [said.get(field.replace(".", "_"), 8) for field in fields[3:]]
    return b"xdebugpy" + struct.pack(
        f"<{len(fields) - 1}Q", number << 16, said.get("free_threaded", 0), *values
    )


def test_every_offset_is_that_of_the_interpreters_own_headers(
    cpython: Path, library_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    include = subprocess.check_output(
        [cpython, "-c", "import sysconfig; print(sysconfig.get_path('include'))"], text=True
    ).strip()
    flags = ["-DNDEBUG", "-w", f"-I{include}", f"-I{include}/internal"]
    subprocess.run(["gcc", *flags, "-o", tmp_path / "offsets", SOURCE], check=True)
    said = json.loads(subprocess.check_output([tmp_path / "offsets"]))
    interpreter = read(library_of(cpython))

    found = find_offsets(interpreter.version, interpreter.debug_offsets)._asdict()

    assert {name: found[name] for name in said} == said
    assert set(found) - set(said) <= {"segments", "frame_owner", "frame_is_entry", "cframe_frame"}


def test_all_versions_are_listed() -> None:
    assert known_versions() == ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14"]


@pytest.mark.parametrize(
    ("version", "data", "words"),
    [
        ("3.7", b"", "not known here"),
        ("3.15", b"xdebugpy", "not known here"),
        ("3.13", b"", "no debug offsets"),
        ("3.13", b"nodebug!" + bytes(1000), "no debug offsets"),
        ("3.13", b"xdebugpy" + bytes(100), "no debug offsets"),
        ("3.13", debug_offsets("3.13", 0x30E), "are those of 3.14"),
        ("3.14", debug_offsets("3.14", 0x30E, free_threaded=1), "free-threaded"),
        ("3.14", debug_offsets("3.14", 0x30E, thread_state_next=1 << 40), "make no sense"),
        ("3.14", debug_offsets("3.14", 0x30E, code_object_qualname=600), "larger than"),
        ("3.14", debug_offsets("3.14", 0x30E, interpreter_frame_owner=300), "larger than"),
    ],
)
def test_an_unknown_layout_is_refused_in_words(version: str, data: bytes, words: str) -> None:
    with pytest.raises(UnknownLayoutError, match=words):
        find_offsets(version, data)
