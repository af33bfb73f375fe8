import os
import time

import pytest

from node_agent.errors import SpoolAccessError, SpoolError, SpoolFullError, SpoolReadOnlyError
from node_agent.spool import BatchEntry, ExtractEntry, Spool
from node_agent.spool.folder import STALE_TEMPORARY_S
from wire.codec import decode, encode
from wire.schema import Batch, SymbolExtract


def read(spool: Spool, entry: BatchEntry) -> Batch:
    file = spool.open_batch(entry)
    assert file is not None
    with file:
        return decode(file.read(), Batch)


def age(path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_batch_and_its_definitions_come_back_as_they_were(spool, make_batch, make_definitions):
    batch, definitions = make_batch(), make_definitions()
    result = spool.put_batch(batch, definitions)
    assert result.stored
    assert result.dropped == {}
    (entry,) = spool.pending()
    assert entry == BatchEntry(batch.run.hex(), 1)
    assert read(spool, entry) == batch
    assert spool.read_definitions(entry) == definitions
    assert spool.usage_bytes() == result.bytes == len(encode(batch)) + len(encode(definitions))


def test_done_removes_both(spool, make_batch, make_definitions):
    spool.put_batch(make_batch(), make_definitions())
    (entry,) = spool.pending()
    spool.done(entry)
    assert spool.pending() == []
    assert spool.usage_bytes() == 0
    assert spool.open_batch(entry) is None
    assert spool.read_definitions(entry) is None
    spool.done(entry)  # twice does no harm


def test_delivery_order_survives_clock_jumps_within_a_run(spool, make_batch):
    for sequence in (1, 2, 3):
        spool.put_batch(make_batch(sequence, run=b"\xff" * 16), None)
    age(spool.root / "batches" / f"{'ff' * 16}-000000000001.batch", 50)
    age(spool.root / "batches" / f"{'ff' * 16}-000000000003.batch", 5000)
    spool.put_batch(make_batch(1, run=b"\0" * 16), None)
    assert [(entry.run[:2], entry.sequence) for entry in spool.pending()] == [
        ("ff", 1),
        ("ff", 2),
        ("ff", 3),
        ("00", 1),
    ]


def test_a_full_spool_drops_the_oldest_and_counts_them(tmp_path, make_batch):
    spool = Spool(tmp_path, limit_bytes=50_000)
    spool.create()
    dropped = 0
    for sequence in range(1, 41):
        result = spool.put_batch(make_batch(sequence, rows=200), None)
        assert result.stored
        dropped += result.dropped.get("spool_full", 0)
        assert spool.usage_bytes() <= 50_000
    kept = [entry.sequence for entry in spool.pending()]
    assert kept == list(range(41 - len(kept), 41))
    assert len(kept) >= 10
    assert dropped == spool.dropped["spool_full"] == 40 - len(kept)


def test_room_made_by_the_other_process_is_used_before_anything_is_dropped(tmp_path, make_batch):
    sampler, shipper = Spool(tmp_path, limit_bytes=20_000), Spool(tmp_path, limit_bytes=20_000)
    sampler.create()
    shipper.create()
    for sequence in range(1, 21):
        sampler.put_batch(make_batch(sequence, rows=200), None)
        for entry in shipper.pending():
            shipper.done(entry)
    assert sampler.dropped == {}


def test_old_batches_are_dropped_and_counted(tmp_path, make_batch, make_definitions):
    old = Spool(tmp_path)
    old.create()
    old.put_batch(make_batch(1), make_definitions())
    old.put_batch(make_batch(2), None)
    for path in (tmp_path / "batches").glob("*000001.*"):
        age(path, 4000)
    spool = Spool(tmp_path, limit_age_s=3600)
    spool.create()
    result = spool.put_batch(make_batch(3), None)
    assert result.dropped == {"spool_age": 1}
    assert [entry.sequence for entry in spool.pending()] == [2, 3]
    assert not list((tmp_path / "batches").glob("*.defs"))


def test_a_batch_larger_than_the_spool_is_dropped_and_counted(tmp_path, make_batch):
    spool = Spool(tmp_path, limit_bytes=1000)
    spool.create()
    result = spool.put_batch(make_batch(rows=500), None)
    assert not result.stored
    assert result.dropped == {"spool_full": 1}
    assert spool.usage_bytes() == 0


def test_refused_batches_are_set_aside_counted_and_bounded(spool, make_batch, make_definitions):
    spool.put_batch(make_batch(1), make_definitions())
    (entry,) = spool.pending()
    spool.refuse(entry, "refused_400")
    assert spool.pending() == []
    assert spool.dropped == {"refused_400": 1}
    assert [path.name for path in (spool.root / "refused").iterdir()] == [entry.stem + ".batch"]
    assert not list((spool.root / "batches").iterdir())
    for sequence in range(2, 8):
        spool.put_batch(make_batch(sequence, rows=60_000), None)
        spool.refuse(spool.pending()[0], "refused_413")
    kept = sorted((spool.root / "refused").iterdir())
    assert sum(path.stat().st_size for path in kept) <= 4 << 20
    assert kept[-1].name.endswith("-000000000007.batch")
    assert spool.dropped["refused_413"] == 6


def test_unfinished_files_are_never_seen_and_cleaned_when_stale(spool, make_batch):
    stale = spool.root / "batches" / ".tmp-1-1-1"
    fresh = spool.root / "batches" / ".tmp-1-2-2"
    for path in (stale, fresh):
        path.write_bytes(b"half")
    age(stale, STALE_TEMPORARY_S + 1)
    assert spool.pending() == []
    again = Spool(spool.root)
    again.create()
    assert not stale.exists()
    assert fresh.exists()


def test_definitions_whose_batch_is_gone_are_cleaned_when_old(spool, make_batch, make_definitions):
    spool.put_batch(make_batch(), make_definitions())
    (entry,) = spool.pending()
    (spool.root / "batches" / (entry.stem + ".batch")).unlink()
    left = spool.root / "batches" / (entry.stem + ".defs")
    Spool(spool.root).create()
    assert left.exists()
    age(left, 3600)
    Spool(spool.root).create()
    assert not left.exists()


def test_extracts(spool, make_batch):
    extract = SymbolExtract("web-1", 0, b"\xab" * 20, "libc.so.6", b"\x7fELF")
    assert spool.put_extract(encode(extract), extract.build_id, 0).stored
    with spool.writing_extract(b"\xcd" * 20, 1) as descriptor:
        os.write(descriptor, encode(extract))
    first, second = spool.pending_extracts()
    assert first == ExtractEntry("ab" * 20, 0)
    assert second == ExtractEntry("cd" * 20, 1)
    file = spool.open_extract(first)
    assert file is not None
    with file:
        assert decode(file.read(), SymbolExtract) == extract
    spool.done(first)
    spool.refuse(second, "refused_413")
    assert spool.pending_extracts() == []
    assert spool.open_extract(first) is None
    assert spool.dropped == {"refused_413": 1}


def test_a_failed_writer_leaves_no_extract(spool):
    with pytest.raises(RuntimeError), spool.writing_extract(b"\xcd" * 20, 1) as descriptor:
        os.write(descriptor, b"half")
        raise RuntimeError
    assert list((spool.root / "extracts").iterdir()) == []


def test_an_extract_never_displaces_batches(tmp_path, make_batch):
    spool = Spool(tmp_path, limit_bytes=20_000)
    spool.create()
    spool.put_batch(make_batch(rows=1000), None)
    assert not spool.put_extract(bytes(10_001), b"\1" * 20, 0).stored
    assert not spool.put_extract(bytes(6_000), b"\1" * 20, 0).stored
    assert spool.dropped == {"extract_no_room": 2}
    assert len(spool.pending()) == 1


def test_directives_are_given_out_once(spool):
    order = {"kind": "symbols", "module_kind": 0, "build_id": "ab" * 20}
    define = {"kind": "define", "hashes": ["cd" * 16]}
    spool.put_directive(order)
    spool.put_directive(order)
    spool.put_directive(define)
    assert sorted(spool.take_directives(), key=str) == sorted([order, define], key=str)
    assert spool.take_directives() == []


def test_directives_are_bounded(spool):
    for number in range(300):
        spool.put_directive({"kind": "symbols", "module_kind": 0, "build_id": f"{number:04x}"})
    assert spool.dropped == {"directives_full": 44}
    assert len(spool.take_directives()) == 256


def test_hostile_directives_are_counted_and_removed(spool, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text('{"kind": "symbols", "module_kind": 0, "build_id": "abcd"}')
    folder = spool.root / "directives"
    (folder / "a.json").symlink_to(secret)
    os.mkfifo(folder / "b.json")
    (folder / "c.json").write_text("not json")
    (folder / "d.json").write_text('{"kind": "exec", "path": "/bin/sh"}')
    (folder / "e.json").write_bytes(bytes(2 << 20))
    assert spool.take_directives() == []
    assert spool.dropped == {"directive_malformed": 5}
    assert list(folder.iterdir()) == []
    assert secret.exists()


def test_status_is_replaced_and_garbage_is_none(spool):
    assert spool.read_status("sampler") is None
    spool.write_status("sampler", {"rate_hz": 19})
    spool.write_status("sampler", {"rate_hz": 49})
    assert spool.read_status("sampler") == {"rate_hz": 49}
    for garbage in (b"", b"[1]", b"{", b"\xff"):
        (spool.root / "status" / "sampler.json").write_bytes(garbage)
        assert spool.read_status("sampler") is None


def test_usage(spool, make_batch):
    assert spool.usage().oldest_s == 0
    spool.put_batch(make_batch(1), None)
    age(next((spool.root / "batches").iterdir()), 100)
    spool.put_batch(make_batch(2), None)
    spool.put_extract(b"x" * 7, b"\1" * 20, 0)
    usage = spool.usage()
    assert (usage.batches, usage.extracts, usage.refused) == (2, 1, 0)
    assert 100 <= usage.oldest_s < 200


def test_a_full_disk_is_named_and_leaves_no_half_file(small_disk, make_batch, make_definitions):
    spool = Spool(small_disk / "spool")
    spool.create()
    spool.put_batch(make_batch(1), None)
    filler = small_disk / "filler"
    with pytest.raises(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(SpoolFullError, match="No space left") as raised:
        spool.put_batch(make_batch(2, rows=2000), make_definitions())
    assert "Free disk space" in raised.value.remedy
    assert [path.name for path in (small_disk / "spool/batches").iterdir()] == [
        f"{b'r'.hex() * 16}-000000000001.batch"
    ]
    assert spool.dropped == {"disk_error": 1}
    filler.unlink()
    assert spool.put_batch(make_batch(3, rows=2000), None).stored
    assert [entry.sequence for entry in spool.pending()] == [1, 3]


def test_a_disk_that_was_full_from_the_start_is_named(small_disk):
    """The report has no file yet whose room it could use."""
    spool = Spool(small_disk / "spool")
    spool.create()
    with pytest.raises(OSError), (small_disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(SpoolFullError, match="No space left"):
        spool.write_status("sampler", {"running": True})


def test_a_read_only_disk_is_named(small_disk, make_batch):
    import subprocess

    spool = Spool(small_disk / "spool")
    spool.create()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(SpoolReadOnlyError, match="Read-only file system"):
        spool.put_batch(make_batch(), None)
    with pytest.raises(SpoolReadOnlyError):
        Spool(small_disk / "other").create()


def test_a_link_instead_of_a_folder_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "batches").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SpoolError, match="cannot open"):
        Spool(tmp_path / "spool").create()


def test_a_file_instead_of_the_spool_is_refused(tmp_path):
    (tmp_path / "spool").write_text("")
    with pytest.raises(SpoolError, match="cannot make"):
        Spool(tmp_path / "spool").create()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to act as two users of one group")
def test_two_users_of_one_group_share_the_spool(tmp_path, make_batch, make_definitions):
    for folder in (tmp_path, *tmp_path.parents[:-1]):
        if folder.stat().st_uid == 0 and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o711)
    root = tmp_path / "spool"
    root.mkdir()
    os.chown(root, 20_001, 20_003)
    root.chmod(0o2770)
    batch, definitions = make_batch(), make_definitions()

    def sample():
        spool = Spool(root)
        spool.create()
        spool.put_batch(batch, definitions)
        spool.put_extract(b"extract", b"\1" * 20, 0)
        spool.write_status("sampler", {"rate_hz": 19})

    def ship():
        spool = Spool(root)
        spool.create()
        assert spool.read_status("sampler") == {"rate_hz": 19}
        (entry,) = spool.pending()
        assert read(spool, entry) == batch
        assert spool.read_definitions(entry) == definitions
        spool.done(entry)
        spool.refuse(spool.pending_extracts()[0], "refused_413")
        spool.put_directive({"kind": "define", "hashes": ["ab" * 16]})
        spool.write_status("shipper", {"state": "idle"})

    def sample_again():
        spool = Spool(root)
        spool.create()
        assert spool.usage_bytes() == 0
        assert len(spool.take_directives()) == 1
        assert spool.read_status("shipper") == {"state": "idle"}

    def stranger():
        with pytest.raises(SpoolAccessError, match="Permission denied"):
            Spool(root).create()

    run_as(20_001, 20_003, sample)
    run_as(20_002, 20_003, ship)
    run_as(20_001, 20_003, sample_again)
    run_as(20_004, 20_004, stranger)


def run_as(user: int, group: int, act) -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.umask(0o077)
            os.setgroups([])
            os.setgid(group)
            os.setuid(user)
            act()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_writer_killed_at_any_point_leaves_whole_files_only(
    tmp_path, make_batch, make_definitions, killed_at
):
    batch, definitions = make_batch(), make_definitions()
    outcomes = set()
    for line in range(0, 2000, 7):
        root = tmp_path / str(line)
        spool = Spool(root)
        spool.create()
        finished = killed_at(line, lambda spool=spool: spool.put_batch(batch, definitions))
        again = Spool(root)
        again.create()
        entries = again.pending()
        for entry in entries:
            assert read(again, entry) == batch
            assert again.read_definitions(entry) == definitions
        outcomes.add((finished, len(entries)))
        if finished:
            break
    assert outcomes == {(False, 0), (False, 1), (True, 1)}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_user_without_the_right_to_make_it_is_told_another_way(tmp_path):
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents[:2]:
        folder.chmod(folder.stat().st_mode | 0o711)
    child = os.fork()
    if child == 0:
        os.seteuid(20_001)
        try:
            Spool(tmp_path / "missing").create()
        except SpoolAccessError as error:
            os._exit(0 if "--spool-dir" in error.remedy else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
