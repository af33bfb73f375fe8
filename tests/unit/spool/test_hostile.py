"""What the other user of the spool can put there."""

import os
from pathlib import Path

import pytest

from node_agent.errors import SpoolError
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


def test_an_order_that_grows_while_it_is_read_is_refused(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a file that becomes one of six gigabytes after its size was looked at."""
    path = spool.root / "directives" / "x.json"
    path.write_text('{"kind": "profile_end", "id": 5}')
    read = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        status = read(descriptor)
        if path.exists():
            os.truncate(path, 6 << 30)
        return status

    monkeypatch.setattr(folder.os, "fstat", fstat)

    assert spool.take_directives() == []
    assert spool.dropped["directive_malformed"] == 1
    assert not path.exists()


def test_a_batch_that_grows_while_it_is_sent_stays_as_long_as_it_was(
    spool: Spool, make_batch
) -> None:
    batch = make_batch()
    spool.put_batch(batch, None)
    [entry] = spool.pending()
    path = spool.root / "batches" / f"{entry.stem}.batch"
    whole = path.read_bytes()
    opened = spool.open_batch(entry)
    assert opened is not None

    with opened, path.open("ab") as file:
        os.truncate(file.fileno(), 6 << 30)
        size = opened.seek(0, os.SEEK_END)
        opened.seek(0)
        pieces = [opened.read(7), opened.read(1 << 40), opened.read(5)]
        opened.seek(3)
        buffer = bytearray(len(whole) + 10)
        read = opened.readinto(buffer)
        opened.seek(0)

        assert size == len(whole)
        assert b"".join(pieces) == whole
        assert pieces[2] == b""
        assert bytes(buffer[:read]) == whole[3:]
        assert opened.readall() == opened_again(opened) == whole


def opened_again(opened) -> bytes:
    opened.seek(0)
    return opened.read()


@pytest.mark.parametrize("folder_name", ["directives", "batches", "extracts", "status"])
def test_words_of_a_failure_can_be_written_down_whatever_a_file_is_called(
    spool: Spool, folder_name: str
) -> None:
    opened = Folder(spool.root, folder_name)
    name = os.fsdecode(b"\xff\x1b.json")
    (spool.root / folder_name / name / "inside").mkdir(parents=True)

    for action in (lambda: opened.remove(name), lambda: opened.read(name, 10)):
        with pytest.raises(SpoolError) as caught:
            action()
        spool.write_status("sampler", {"error": str(caught.value)})
    opened.close()
