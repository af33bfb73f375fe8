import gzip
from pathlib import Path

import pytest

from node_agent.record.errors import RecordError
from node_agent.record.output import Stack, Times, choose_encoder, prepare
from wire.pprof import Frame

STACKS = [
    Stack("web", "worker", [Frame("main"), Frame("serve")], 3),
    Stack("web", "logger", [Frame("main"), Frame("serve")], 2),
    Stack("db;1", "db", [Frame("libc.so.6+0x10", "libc.so.6")], 1),
]
TIMES = Times(10**18, 10**9, 10_000_000)


def test_folded_has_the_process_as_root_and_no_threads() -> None:
    data = choose_encoder(Path("a.folded"))(STACKS, TIMES)
    assert data == b"db%3B1;libc.so.6+0x10 1\nweb;main;serve 5\n"


def test_pprof_has_process_and_thread_as_labels() -> None:
    data = gzip.decompress(choose_encoder(Path("a.pb.gz"))(STACKS, TIMES))
    for word in (b"process", b"thread", b"worker", b"logger", b"db;1"):
        assert word in data


@pytest.mark.parametrize("name", ["a", "a.txt", "folded", "a.pb", "a.gz", "a.folded.old"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(RecordError, match="names no known format"):
        choose_encoder(Path(name))


def test_a_draft_does_not_touch_the_file_of_before(tmp_path: Path) -> None:
    path = tmp_path / "a.folded"
    path.write_text("before")
    draft = prepare(path)
    assert draft.parent == tmp_path
    assert path.read_text() == "before"
