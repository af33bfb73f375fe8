"""What files of CPythons say, and of files that are none; in the sampler and by its child."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from node_agent.cpython.child import parse_answer
from node_agent.cpython.errors import UnknownLayoutError
from node_agent.cpython.inspector import Inspector
from node_agent.cpython.interpreter import (
    FILE_NAME,
    MIN_EVALUATOR_BYTES,
    Interpreter,
    read_interpreter,
)
from node_agent.symbols.errors import ElfError

# A file with the symbols of an interpreter whose evaluator is small, or made of tail calls.
FAKE = """
int _PyRuntime = 1;
unsigned long Py_Version = 0x030e0000;
int _PyEval_EvalFrameDefault(void) { return 1; }
%s
"""


def read(path: Path, name: str = "") -> Interpreter:
    content = path.read_bytes()
    return read_interpreter(
        lambda at, size: content[at : at + size], len(content), name or path.name
    )


def compile_library(folder: Path, source: str) -> Path:
    path = folder / "libpython3.14.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", path],
        input=source,
        text=True,
        check=True,
    )
    return path


def test_an_interpreter_tells_its_version_and_evaluator(
    cpython: Path, library_of: Callable[[Path], Path]
) -> None:
    said = subprocess.check_output(
        [cpython, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], text=True
    )
    found = read(library_of(cpython))

    assert found.version == said.strip()
    assert found.runtime > 0
    assert sum(end - start for start, end in found.evaluator) >= 2 * MIN_EVALUATOR_BYTES
    assert len(found.glue) >= 2
    for start, end in (*found.evaluator, *found.glue):
        assert any(at <= start < end <= at + size for _, at, size in found.segments)


def test_the_pieces_of_a_split_evaluator_are_found_without_their_symbols(
    cpython: Path, library_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    whole, stripped = library_of(cpython), tmp_path / library_of(cpython).name
    subprocess.run(["strip", "-o", stripped, whole], check=True)
    with_symbols = {piece for piece in read(whole).evaluator if piece[1] - piece[0] >= 64}

    assert with_symbols <= set(read(stripped).evaluator)


def test_a_bias_is_that_of_the_mapping() -> None:
    segments = ((0x1000, 0x401000, 0x2000), (0x5234, 0x606234, 0x800))
    interpreter = Interpreter("3.12", 0, b"", (), (), segments)

    assert interpreter.bias(0x401000, 0x1000) == 0
    assert interpreter.bias(0x7F0000002000, 0x2000) == 0x7F0000002000 - 0x402000
    assert interpreter.bias(0x7F0000005000, 0x5000) == 0x7F0000005000 - 0x606000
    assert interpreter.bias(0x7F0000009000, 0x9000) is None


@pytest.mark.parametrize(
    ("name", "minor", "threaded"),
    [
        ("python3.11", "11", ""),
        ("python3", None, ""),
        ("libpython3.8.so.1.0", "8", ""),
        ("libpython3.13t.so.1.0", "13", "t"),
        ("python3.13t", "13", "t"),
        ("python3.8-pgo", "8", ""),
    ],
)
def test_names_of_interpreters(name: str, minor: str | None, threaded: str) -> None:
    match = FILE_NAME.match(name)

    assert match is not None
    assert (match[1], match[2]) == (minor, threaded)


@pytest.mark.parametrize("name", ["python2.7", "libpypy3-c.so", "mypython3.11", "pythonista3"])
def test_other_names_are_none(name: str) -> None:
    assert FILE_NAME.match(name) is None


@pytest.mark.parametrize(
    ("more", "name", "words"),
    [
        ("", "libpython3.14.so", "most of its evaluator can't be found"),
        ("int _TAIL_CALL_NOP(void) { return 1; }", "libpython3.14.so", "tail calls"),
        ("", "libpython3.14t.so", "free-threaded"),
    ],
)
def test_what_can_not_be_read_is_refused_in_words(
    tmp_path: Path, more: str, name: str, words: str
) -> None:
    library = compile_library(tmp_path, FAKE % more)

    with pytest.raises(UnknownLayoutError, match=words):
        read(library, name)


def test_a_file_that_is_no_interpreter_is_refused_in_words() -> None:
    with pytest.raises(UnknownLayoutError, match="holds no CPython"):
        read(Path("/bin/bash").resolve(), "python3.11")


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    content = compile_library(tmp_path, FAKE % "").read_bytes()
    cut = tmp_path / "libpython3.14.so.1"
    for size in range(0, len(content), 61):
        cut.write_bytes(content[:size])
        with pytest.raises((ElfError, UnknownLayoutError)):
            read(cut)


def test_the_child_answers_about_each_file(library_of: Callable[[Path], Path]) -> None:
    inspector = Inspector()
    library = library_of(Path("/usr/bin/python3"))
    for build, path in enumerate((library, Path("/bin/bash"), Path("/etc/passwd"))):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        assert inspector.request(build, descriptor, path.name)
    answers: dict[int, Interpreter | str] = {}
    end = time.monotonic() + 600
    while len(answers) < 3 and time.monotonic() < end:
        answers.update(inspector.step())
        time.sleep(0.02)

    assert answers[0] == read(library)
    assert "holds no CPython" in str(answers[1])
    assert "not an ELF file" in str(answers[2])
    inspector.close()


def test_an_inspector_closes_what_it_did_not_read() -> None:
    inspector = Inspector()
    descriptor = os.open("/bin/bash", os.O_RDONLY)
    inspector.request(0, descriptor, "bash")

    inspector.close()

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b'{"version": "3.11"}', b"nonsense"])
def test_what_is_no_answer_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_answer(line)
