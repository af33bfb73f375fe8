"""Perf maps of a real process: found, followed as they grow, refused when they are not its own."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from node_agent.processes import lookup
from node_agent.processes.mappings import read_start_ticks
from node_agent.symbols import perf_map as module
from node_agent.symbols.modules import ModuleRegistry
from node_agent.symbols.perf_map import PerfMap, PerfMaps
from wire.schema import Name

TICK_NS = 10_000_000
NOBODY = 65534


class Bench(NamedTuple):
    """A process that does nothing, and what its perf map is called."""

    process: subprocess.Popen[bytes]
    path: Path
    maps: PerfMaps
    counts: dict[str, int]

    def perf_map(self) -> PerfMap:
        pid = self.process.pid
        return self.maps.of(pid, read_start_ticks(pid) * TICK_NS)

    def name(self, perf_map: PerfMap, address: int) -> Name | None:
        frame = perf_map.frame(address)
        if frame is None:
            return None
        return self.maps.registry.names[int.from_bytes(frame[8:], "little")]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the file with every call."""
    monkeypatch.setattr(module, "FOLLOW_S", 0.0)
    monkeypatch.setattr(module, "ABSENT_S", 0.0)


@pytest.fixture
def start() -> Iterator[Callable[..., Bench]]:
    started: list[Bench] = []

    def start_(*prefix: str) -> Bench:
        process = subprocess.Popen([*prefix, "sleep", "600"])
        while b"sleep\0" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()[:6]:
            time.sleep(0.01)
        counts: dict[str, int] = {}
        maps = PerfMaps(ModuleRegistry(), counts, 64 << 20)
        started.append(Bench(process, Path(f"/tmp/perf-{process.pid}.map"), maps, counts))
        return started[-1]

    yield start_
    for bench in started:
        bench.process.kill()
        bench.process.wait()
        if bench.path.is_dir():
            bench.path.rmdir()
        bench.path.unlink(missing_ok=True)


@pytest.fixture
def bench(start: Callable[..., Bench]) -> Bench:
    return start()


def test_a_process_without_a_map_gets_one_later(bench: Bench) -> None:
    perf_map = bench.perf_map()
    assert not perf_map.follow()
    assert bench.name(perf_map, 0x1010) is None
    bench.path.write_text("1000 20 py::hot:/srv/app.py\n")
    assert perf_map.follow()  # 0x1010 has a name now
    assert bench.name(perf_map, 0x1010) == Name("hot", "/srv/app.py")
    assert not perf_map.follow()
    assert bench.counts == {}


def test_only_whole_lines_count_and_later_ones_override(bench: Bench) -> None:
    perf_map = bench.perf_map()
    with bench.path.open("w") as file:
        file.write("1000 20 first\n2000 20 sec")
        file.flush()
        perf_map.follow()
        assert bench.name(perf_map, 0x1000) == Name("first")
        assert bench.name(perf_map, 0x2000) is None
        file.write("ond\n")
        file.flush()
        assert perf_map.follow()
        assert bench.name(perf_map, 0x2000) == Name("second")
        file.write("1010 20 third\n3000 20 other\n")
        file.flush()
        assert perf_map.follow()  # the code of `first` is gone
        assert bench.name(perf_map, 0x1000) is None
        assert bench.name(perf_map, 0x1010) == Name("third")
        file.write("4000 20 more\n")
        file.flush()
        assert not perf_map.follow()  # nobody asked for that


def test_a_file_that_is_written_anew_is_read_anew(bench: Bench) -> None:
    perf_map = bench.perf_map()
    bench.path.write_text("1000 20 one\n2000 20 two\n")
    perf_map.follow()
    assert bench.name(perf_map, 0x2000) == Name("two")
    bench.path.write_text("1000 20 shorter\n")  # the same file, truncated
    assert perf_map.follow()
    assert bench.name(perf_map, 0x2000) is None
    bench.path.write_text("1000 20 longer\n5000 20 than before\n6000 20 by far\n")
    assert perf_map.follow()
    assert bench.name(perf_map, 0x1000) == Name("longer")
    bench.path.unlink()
    bench.path.write_text("1000 20 another file\n")
    assert perf_map.follow()
    assert bench.name(perf_map, 0x1000) == Name("another file")
    assert bench.name(perf_map, 0x6000) is None
    assert bench.counts == {}


def test_names_last_after_the_process_and_its_file(bench: Bench) -> None:
    perf_map = bench.perf_map()
    bench.path.write_text("1000 20 one\n2000 20 two\n")
    perf_map.follow()
    bench.process.kill()
    bench.process.wait()
    assert bench.name(perf_map, 0x2000) == Name("two")


@pytest.mark.parametrize(
    ("trick", "reason"),
    [
        ("symlink", "symlink"),
        ("fifo", "not_regular"),
        ("folder", "not_regular"),
        ("owner", "owner"),
        ("hard link", "hard_link"),
        ("old", "stale"),
    ],
)
def test_what_is_not_the_process_s_own_file_is_refused_and_counted_once(
    bench: Bench, trick: str, reason: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("1000 20 secret\n")
    if trick == "symlink":
        bench.path.symlink_to(secret)
    elif trick == "fifo":
        os.mkfifo(bench.path)
    elif trick == "folder":
        bench.path.mkdir()
    elif trick == "hard link":
        secret = bench.path.with_suffix(f".{os.getpid()}")
        secret.write_text("1000 20 secret\n")
        bench.path.hardlink_to(secret)
    else:
        bench.path.write_text("1000 20 secret\n")
    if trick == "owner":
        os.chown(bench.path, NOBODY, NOBODY)
    elif trick == "old":
        os.utime(bench.path, (1, 1))
    perf_map = bench.perf_map()
    for _ in range(3):
        perf_map.follow()
        assert bench.name(perf_map, 0x1000) is None
    assert bench.counts == {f"perf_map_{reason}": 1}
    if trick == "hard link":
        secret.unlink()


def test_the_number_and_the_folder_are_those_of_the_process_itself(
    start: Callable[..., Bench], tmp_path: Path
) -> None:
    """In a container it is process 1, and /tmp is another."""
    script = (
        f"mount -t tmpfs none /tmp && echo 1000 20 inside > /tmp/perf-1.map && touch {tmp_path}"
    )
    prefix = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    outer = subprocess.Popen([*prefix, "sh", "-c", f"{script}; exec sleep 600"])
    try:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        while not children.read_text().strip():
            time.sleep(0.01)
        pid = int(children.read_text())
        inside = Path(f"/proc/{pid}/root/tmp/perf-1.map")
        while not inside.exists():
            time.sleep(0.01)
        counts: dict[str, int] = {}
        maps = PerfMaps(ModuleRegistry(), counts)
        perf_map = maps.of(pid, read_start_ticks(pid) * TICK_NS)
        perf_map.follow()
        frame = perf_map.frame(0x1000)
        assert frame is not None
        assert maps.registry.names[int.from_bytes(frame[8:], "little")] == Name("inside")
        assert counts == {}
    finally:
        outer.kill()
        outer.wait()


def test_another_process_under_the_same_number_is_not_taken_for_it(bench: Bench) -> None:
    bench.path.write_text("1000 20 one\n")
    start_ns = read_start_ticks(bench.process.pid) * TICK_NS
    perf_map = bench.maps.of(bench.process.pid, start_ns - 100 * TICK_NS)
    perf_map.follow()
    assert bench.name(perf_map, 0x1000) is None


def test_a_line_of_ten_megabytes_costs_itself_only(bench: Bench) -> None:
    with bench.path.open("w") as file:
        file.write("1000 20 before\n")
        file.write("2000 20 " + "x" * (10 << 20) + "\n")
        file.write("no entry\n")
        file.write("3000 20 behind\n")
    perf_map = bench.perf_map()
    perf_map.follow()
    assert bench.name(perf_map, 0x1000) == Name("before")
    assert bench.name(perf_map, 0x2000) is None
    assert bench.name(perf_map, 0x3000) == Name("behind")
    assert bench.counts == {"perf_map_long_line": 1, "perf_map_bad_line": 1}


def test_a_file_and_a_table_have_limits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 3)
    perf_map = bench.perf_map()
    bench.path.write_text("1000 20 a\n2000 20 b\n3000 20 c\n")
    perf_map.follow()
    with bench.path.open("a") as file:
        file.write("4000 20 d\n")
    perf_map.follow()
    assert bench.name(perf_map, 0x4000) is None
    assert len(perf_map.table) == 3
    assert bench.counts == {"perf_map_full": 1}


def test_no_more_is_read_than_the_allowance_has(bench: Bench) -> None:
    maps = PerfMaps(bench.maps.registry, bench.counts, 100_000, 0)
    perf_map = maps.of(bench.process.pid, read_start_ticks(bench.process.pid) * TICK_NS)
    line = "1000 20 " + "x" * 91 + "\n"
    bench.path.write_text(line * 10_000 + "2000 20 last\n")
    read = 0
    for _ in range(5):
        perf_map.follow()
        entry = perf_map.table.find(0x1000)
        assert entry is not None
        read = max(read, entry.line)
    assert 60_000 < read < 100_000
    assert bench.name(perf_map, 0x2000) is None


def test_the_least_used_map_makes_room(
    start: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_MAPS", 2)
    first = start()
    maps, counts = first.maps, first.counts
    benches = [first, start(), start()]
    perf_maps = []
    for bench in benches:
        bench.path.write_text("1000 20 a\n")
        pid = bench.process.pid
        perf_maps.append(maps.of(pid, read_start_ticks(pid) * TICK_NS))
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for perf_map in perf_maps:
        perf_map.follow()
    assert [len(perf_map.table) for perf_map in perf_maps] == [0, 1, 1]
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors + 2
    assert counts == {"perf_map_evicted": 1}
    assert perf_maps[0].follow() is True  # what it said before no longer holds
    assert [len(perf_map.table) for perf_map in perf_maps] == [1, 0, 1]
    maps.rotate()  # all were used since the last time
    perf_maps[0].follow()
    maps.rotate()
    assert [len(perf_map.table) for perf_map in perf_maps] == [1, 0, 0]
    maps.rotate()
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_one_process_cannot_fill_the_dictionary(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_NAMES", 2)
    bench.path.write_text("".join(f"{at}000 20 name{at}\n" for at in range(1, 6)))
    perf_map = bench.perf_map()
    perf_map.follow()
    names = [bench.name(perf_map, at << 12) for at in range(1, 6)]
    assert names == [Name("name1"), Name("name2"), None, None, None]
    assert bench.counts == {"perf_map_names_full": 3}


def test_maps_on_a_mount_that_may_never_answer_are_not_touched(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.path.write_text("1000 20 a\n")
    monkeypatch.setattr(lookup, "may_enter", lambda *_: False)
    perf_map = bench.perf_map()
    perf_map.follow()
    assert bench.name(perf_map, 0x1000) is None
    assert bench.counts == {"perf_map_mount": 1}
