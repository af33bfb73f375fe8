"""Rows on disk: found again, refused when broken, thrown away when there are too many."""

import os
import subprocess
from pathlib import Path

import pytest

from node_agent.unwind.cache import RowCache
from node_agent.unwind.errors import RowFileError
from node_agent.unwind.row_file import decode_rows, encode_rows
from node_agent.unwind.rows import CodeSegment, PackedRows

BUILD = bytes(range(20))
ROWS = PackedRows(
    bytes(range(256)) * 4,
    200,
    0x400000,
    (CodeSegment(0x1000, 0x401000, 0x5000), CodeSegment(0x8000, 0x409000, 0x10)),
    {"CFA undefined": 3},
    True,
    (0x1234, 0xFFFFFFFF),
)


def make(cells: int) -> PackedRows:
    return ROWS._replace(rows=bytes(16 * cells))


def test_a_file_of_rows_is_read_as_it_was_written() -> None:
    assert decode_rows(BUILD, encode_rows(BUILD, ROWS)) == ROWS
    empty = PackedRows(b"", 0, 0, (), {})
    assert decode_rows(b"x", encode_rows(b"x", empty)) == empty


def test_any_changed_or_missing_byte_is_noticed() -> None:
    data = encode_rows(BUILD, ROWS)
    for at in range(len(data)):
        with pytest.raises(RowFileError):
            decode_rows(BUILD, data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :])
        with pytest.raises(RowFileError):
            decode_rows(BUILD, data[:at])
    with pytest.raises(RowFileError, match="checksum"):
        decode_rows(BUILD, data + b"\0")


def test_rows_of_another_build_are_not_taken() -> None:
    with pytest.raises(RowFileError, match="another build"):
        decode_rows(BUILD[::-1], encode_rows(BUILD, ROWS))


def test_what_was_put_is_found_also_by_the_next_run(tmp_path: Path) -> None:
    cache = RowCache(tmp_path / "unwind")
    assert cache.get(BUILD) is None
    cache.put(BUILD, encode_rows(BUILD, ROWS))
    assert cache.get(BUILD) == ROWS
    assert RowCache(tmp_path / "unwind").get(BUILD) == ROWS
    assert cache.counts == {"missing": 1, "stored": 1, "found": 1}
    assert (tmp_path / "unwind").stat().st_mode & 0o777 == 0o700


def test_the_last_of_a_disk_is_left_to_others(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=True)
    try:
        cache = RowCache(tmp_path / "unwind")
        cache.put(BUILD, encode_rows(BUILD, ROWS))

        assert cache.get(BUILD) is None
        assert cache.counts == {"disk_full": 1, "missing": 1}
        assert list((tmp_path / "unwind").iterdir()) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("damage", ["cut", "changed", "older", "empty", "other", "link", "folder"])
def test_a_broken_file_is_refused_and_can_be_made_again(tmp_path: Path, damage: str) -> None:
    cache = RowCache(tmp_path)
    cache.put(BUILD, encode_rows(BUILD, ROWS))
    path = next(tmp_path.iterdir())
    data = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[:-1])
    elif damage == "changed":
        path.write_bytes(data[:100] + b"\xff" + data[101:])
    elif damage == "older":
        path.write_bytes(data[:6] + b"\1\0" + data[8:])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "other":
        path.write_bytes(encode_rows(b"other", ROWS))
    elif damage == "link":
        (tmp_path / "elsewhere").write_bytes(data)
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.mkdir()
    assert cache.get(BUILD) is None
    reason = "unreadable" if damage in ("link", "folder") else "broken"
    assert cache.counts == {"stored": 1, reason: 1}
    assert cache.last_error
    if reason == "broken":
        cache.put(BUILD, encode_rows(BUILD, ROWS))
        assert cache.get(BUILD) == ROWS


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_not_taken(tmp_path: Path) -> None:
    cache = RowCache(tmp_path)
    cache.put(BUILD, encode_rows(BUILD, ROWS))
    os.chown(next(tmp_path.iterdir()), 12345, 12345)
    assert cache.get(BUILD) is None
    assert cache.counts["broken"] == 1


def test_what_was_not_used_for_longest_gives_way(tmp_path: Path) -> None:
    cache = RowCache(tmp_path, 30_000)
    builds = [bytes((number,)) * 20 for number in range(4)]
    for number, build in enumerate(builds[:3]):
        cache.put(build, encode_rows(build, make(500)))
        os.utime(tmp_path / f"{build.hex()}.rows", (number, number))
    assert cache.get(builds[0]) is not None  # which makes it the latest
    cache.put(builds[3], encode_rows(builds[3], make(500)))
    assert cache.get(builds[1]) is None
    assert all(cache.get(builds[number]) is not None for number in (0, 2, 3))
    assert cache.counts["evicted"] == 1
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 30_000


def test_rows_larger_than_the_cache_are_not_kept(tmp_path: Path) -> None:
    cache = RowCache(tmp_path, 1_000)
    cache.put(BUILD, encode_rows(BUILD, make(1_000)))
    assert cache.counts == {"too_large": 1}
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "00ff.new").write_bytes(b"half")
    RowCache(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_used_costs_only_the_rows(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = RowCache(tmp_path / "file" / "unwind")
    cache.put(BUILD, encode_rows(BUILD, ROWS))
    assert cache.get(BUILD) is None
    assert cache.counts["unwritable"] == 2


def test_a_full_folder_is_noticed_whoever_filled_it(tmp_path: Path) -> None:
    size = len(encode_rows(BUILD, ROWS))
    RowCache(tmp_path).put(b"before" * 3, encode_rows(b"before" * 3, ROWS))
    cache = RowCache(tmp_path, 4 * size)
    for number in range(20):
        cache.put(bytes((number,)) * 20, encode_rows(bytes((number,)) * 20, ROWS))
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 4 * size
    assert cache.counts["stored"] == 20
    assert cache.counts["evicted"] >= 17
    assert cache.get(b"\x13" * 20) == ROWS


def test_a_file_can_be_asked_for_without_reading_it(tmp_path: Path) -> None:
    cache = RowCache(tmp_path)
    assert not cache.holds(BUILD)
    cache.put(BUILD, encode_rows(BUILD, ROWS))
    assert cache.holds(BUILD)
    assert cache.get(BUILD) == ROWS
    assert cache.counts == {"missing": 1, "stored": 1, "found": 1}
