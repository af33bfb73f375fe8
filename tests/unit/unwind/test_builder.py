"""Rows by children: in turn, from the cache, and not twice for a file that breaks its child."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node_agent.children.runner import Children
from node_agent.symbols.build_ids import read_build_id
from node_agent.unwind import builder as builder_module
from node_agent.unwind import child
from node_agent.unwind.builder import MAX_AT_ONCE, MAX_QUEUED, Built, RowBuilder
from node_agent.unwind.cache import RowCache
from node_agent.unwind.row_file import MAX_FILE_BYTES, encode_rows
from node_agent.unwind.rows import PackedRows


@pytest.fixture
def children() -> Children:
    return Children()


@pytest.fixture
def builder(tmp_path: Path, children: Children) -> Iterator[RowBuilder]:
    made = RowBuilder(RowCache(tmp_path / "unwind"), children)
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield made
    made.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def opened(path: Path) -> tuple[bytes, int]:
    """Build id and descriptor of a file."""
    descriptor = os.open(path, os.O_RDONLY)
    size = os.fstat(descriptor).st_size
    return read_build_id(lambda at, n: os.pread(descriptor, n, at), size), descriptor


def memory_file(content: bytes) -> tuple[bytes, int]:
    descriptor = os.memfd_create("test")
    os.write(descriptor, content)
    return read_build_id(lambda at, n: os.pread(descriptor, n, at), len(content)), descriptor


def finish(builder: RowBuilder) -> dict[bytes, Built]:
    answers: dict[bytes, Built] = {}
    deadline = time.monotonic() + 600
    while builder.pending and time.monotonic() < deadline:
        for built in builder.step():
            assert built.build_id not in answers
            answers[built.build_id] = built
        time.sleep(0.01)
    return answers


def test_rows_of_several_files_and_then_from_the_cache(
    builder: RowBuilder, children: Children, libc: Path, corpus: Path
) -> None:
    files = [libc, *sorted(corpus.glob("*.elf"))]
    ids = []
    for path in files:
        build_id, descriptor = opened(path)
        assert builder.request(build_id, descriptor)
        ids.append(build_id)
    answers = finish(builder)
    assert set(answers) == set(ids)
    assert all(
        isinstance(built.rows, PackedRows) and not built.refused for built in answers.values()
    )
    assert builder.counts == {"made": len(files)}
    assert children.started == -(-len(files) // MAX_AT_ONCE)
    build_id, descriptor = opened(libc)
    builder.request(build_id, descriptor)
    (again,) = builder.step()
    assert again == answers[build_id]
    assert builder.counts["cached"] == 1


def test_a_refusal_is_said_in_words_and_remembered(builder: RowBuilder, children: Children) -> None:
    build_id, descriptor = memory_file(b"#!/bin/sh\n")
    builder.request(build_id, descriptor)
    assert finish(builder)[build_id].refused == "not an ELF file"
    builder.request(*memory_file(b"#!/bin/sh\n"))
    assert builder.step() == [Built(build_id, None, "not an ELF file")]
    assert children.started == 1
    assert builder.counts == {"refused": 2}


def test_a_refusal_is_forgotten_after_its_time(
    builder: RowBuilder, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder_module, "REFUSED_S", 0.0)
    for _ in range(2):
        builder.request(*memory_file(b"#!/bin/sh\n"))
        assert len(finish(builder)) == 1
    assert builder.counts == {"refused": 2}
    assert children.started == 2


def test_a_replaced_file_has_no_rows(builder: RowBuilder, libc: Path) -> None:
    _, descriptor = opened(libc)
    builder.request(b"another", descriptor)
    assert "replaced" in finish(builder)[b"another"].refused


def replace_child(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """Let the children be ours with some of their functions replaced by `code`."""
    (folder / "other_child.py").write_text(
        "import os, resource, signal\n"
        f"from node_agent.unwind import child\n{code}\nmain = child.main\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(builder_module, "_CHILD", "other_child")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can read."""
    folder = Path(tempfile.mkdtemp(prefix="ff-child-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        ("__import__('time').sleep(600)", "signal 14"),
        ("os.abort()", "signal 6"),
        ("os._exit(3)", "status 3"),
    ],
)
def test_a_file_that_ends_its_child_costs_only_itself(
    deed: str,
    words: str,
    builder: RowBuilder,
    corpus: Path,
    open_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = []
    for path in sorted(corpus.glob("*.elf")):
        build_id, descriptor = opened(path)
        builder.request(build_id, descriptor)
        ids.append(build_id)
    code = f"""
child.WALL_S = 1
make = child.make
def spoilt(job):
    if job["build_id"] == "{ids[1].hex()}":
        {deed}
    return make(job)
child.make = spoilt
"""
    replace_child(monkeypatch, open_folder, code)
    answers = finish(builder)
    assert set(answers) == set(ids)
    assert words in answers[ids[1]].refused
    others = [answers[build_id] for build_id in ids if build_id != ids[1]]
    assert [built.refused for built in others if built.rows is None] == []
    assert builder.counts == {"made": len(ids) - 1, "refused": 1, "again": len(ids) - 2}


def test_a_file_that_takes_too_much_memory_is_refused(
    builder: RowBuilder, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "child._read_rows = lambda job: bytearray(1 << 30)"
    replace_child(monkeypatch, open_folder, code)
    builder.request(*memory_file(b"huge"))
    (answer,) = finish(builder).values()
    assert "more than 402653184 bytes of memory" in answer.refused


def test_the_child_has_no_capabilities_and_the_samplers_priority(
    builder: RowBuilder, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
status, stat = open("/proc/self/status"), open("/proc/self/stat")  # afterwards it can open none
def told(job):
    names = ("Uid", "CapPrm", "CapEff", "NoNewPrivs")
    lines = [line.split() for line in status if line.startswith(names)]
    nice = stat.read().rpartition(")")[2].split()[16]
    fds = [fd for fd in range(64) if is_open(fd)]
    limits = resource.getrlimit(resource.RLIMIT_AS)[0], resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return f"refused: {lines} nice {nice} files {len(fds)} limits {limits}\\n".encode()
def is_open(fd):
    try:
        return os.fstat(fd).st_mode
    except OSError:
        return 0
child.make = told
"""
    replace_child(monkeypatch, open_folder, code)
    builder.request(*memory_file(b"whatever"))
    (answer,) = finish(builder).values()
    assert "['CapPrm:', '0000000000000000'], ['CapEff:', '0000000000000000']" in answer.refused
    assert "['NoNewPrivs:', '1']" in answer.refused
    assert f"nice {os.nice(0)} " in answer.refused
    assert f"limits ({child.MEMORY_BYTES}, {MAX_FILE_BYTES})" in answer.refused
    if os.geteuid() == 0:
        assert "'65534', '65534', '65534', '65534'" in answer.refused


def test_asking_twice_is_one_request(builder: RowBuilder, libc: Path) -> None:
    assert builder.request(*opened(libc))
    assert builder.request(*opened(libc))
    assert builder.pending == 1
    assert len(finish(builder)) == 1


def test_what_is_wanted_most_is_made_first(builder: RowBuilder, children: Children) -> None:
    files = [memory_file(b"file %d" % number) for number in range(3)]
    children._works.clear()  # nothing is started meanwhile
    for build_id, descriptor in files:
        builder.request(build_id, descriptor)
    assert builder.step() == []
    builder.prefer({files[2][0]: 7, files[1][0]: 1})
    task = builder.begin()
    assert task is not None
    order = [job["build_id"] for job in task.jobs]
    assert order == [files[number][0].hex() for number in (2, 1, 0)]
    builder.finish(0, "")
    assert builder.pending == 3


def test_too_many_requests_are_turned_away(builder: RowBuilder) -> None:
    for number in range(MAX_QUEUED):
        assert builder.request(b"%d" % number, os.dup(0))
    assert not builder.request(b"one more", os.dup(0))
    assert builder.counts == {"queue_full": 1}
    assert builder.pending == MAX_QUEUED


def test_close_ends_the_child_and_frees_what_waits(
    builder: RowBuilder, children: Children, libc: Path
) -> None:
    builder.request(*opened(libc))
    builder.step()
    builder.request(*memory_file(b"waits"))
    assert children._child is not None
    pid = children._child.pid
    builder.close()
    assert builder.pending == 0
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


def test_a_result_is_taken_only_whole() -> None:
    rows = PackedRows(bytes(16), 1, 0, (), {})
    whole = encode_rows(b"id", rows)
    assert child.read_result(b"id", whole) == rows
    assert child.read_result(b"id", b"refused: why\n") == "why"
    assert child.read_result(b"id", b"refused: wh") is None
    assert child.read_result(b"id", whole[:-1]) is None
    assert child.read_result(b"id", b"") is None
    assert child.read_result(b"other", whole) is None


def test_only_what_needs_no_child_is_answered_at_once(builder: RowBuilder, tmp_path: Path) -> None:
    shutil.copy("/bin/true", tmp_path / "program")
    build_id, descriptor = opened(tmp_path / "program")
    assert builder.request(build_id, descriptor)
    assert not builder.has_answers  # a child has to make them
    assert finish(builder)[build_id].rows is not None
    assert builder.request(*opened(tmp_path / "program"))
    assert builder.has_answers  # from the cache
    assert [built.build_id for built in builder.step()] == [build_id]
    assert not builder.has_answers
