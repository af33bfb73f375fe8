"""What the other user of the spool can put there."""

import os
from pathlib import Path

import pytest

from node_agent.spool import Spool, folder
from node_agent.spool.folder import Folder


@pytest.mark.parametrize("text", ["[" * 200_000, '{"kind":' * 100_000])
def test_json_nested_beyond_any_stack_is_malformed(spool: Spool, text: str) -> None:
    (spool.root / "directives" / "x.json").write_text(text)
    (spool.root / "status" / "shipper.json").write_text(text)

    assert spool.take_directives() == []
    assert spool.read_status("shipper") is None
    assert spool.dropped["directive_malformed"] == 1
    assert not list((spool.root / "directives").iterdir())


def test_a_folder_among_the_orders_does_not_hide_the_others(spool: Spool) -> None:
    (spool.root / "directives" / "a.json").mkdir()
    (spool.root / "directives" / "b.json" / "inside").mkdir(parents=True)
    spool.put_directive({"kind": "symbols", "module_kind": 0, "build_id": "ab"})

    assert [order["build_id"] for order in spool.take_directives()] == ["ab"]
    assert spool.take_directives() == []
    assert [path.name for path in (spool.root / "directives").iterdir()] == ["b.json"]


def test_only_so_many_bytes_of_orders_are_read_at_once(spool: Spool) -> None:
    hashes = [f"{number:032x}" for number in range(4096)]
    for _ in range(20):
        spool.put_directive({"kind": "define", "hashes": hashes})

    taken = [len(spool.take_directives()) for _ in range(4)]

    assert sum(taken) == 20
    assert max(taken) < 10


def test_what_is_no_file_is_removed_and_counted(spool: Spool, make_batch, tmp_path: Path) -> None:
    batches = spool.root / "batches"
    (batches / "link").symlink_to(tmp_path)
    os.mkfifo(batches / "pipe")
    (batches / "folder").mkdir()

    assert spool.usage().bytes == 0
    assert spool.dropped["foreign_file"] == 3
    assert not list(batches.iterdir())
    assert spool.put_batch(make_batch(), None).stored


def test_a_listing_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "MAX_LISTED", 10)
    opened = Folder(tmp_path, "batches")
    for number in range(30):
        (tmp_path / "batches" / str(number)).touch()

    assert len(opened.names()) == len(opened.files()) == 10
    opened.close()
