"""The pprof encoder, read back by the real `go tool pprof`."""

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

from wire.folded import encode_folded
from wire.pprof import Frame, encode_profile

MAIN = Frame("main", "app", "app.c", 10, 0x1000, "aa11")
HOT = Frame("hot;loop", "app", "app.c", 20, 0x2000, "aa11")
READ = Frame("ksys_read", "vmlinux", address=0x3000)
STACKS = [
    ([MAIN, HOT], 70, {"service": "web"}),
    ([MAIN, HOT, READ], 30, {"service": "web"}),
    ([MAIN, HOT], 7, {"service": "db"}),
]


def _go_pprof(path: Path, *flags: str) -> str:
    if shutil.which("go") is None:
        pytest.skip("the go tool is missing: install Go to read pprof files back")
    command = ["go", "tool", "pprof", *flags, str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _raw(tmp_path: Path) -> str:
    path = tmp_path / "cpu.pb.gz"
    path.write_bytes(encode_profile(STACKS, 10_000_000, 1_700_000_000 * 10**9, 10**10))
    return _go_pprof(path, "-raw")


def test_go_pprof_reads_types_period_and_labels(tmp_path: Path) -> None:
    text = _raw(tmp_path)
    assert "PeriodType: cpu nanoseconds" in text
    assert "Period: 10000000" in text
    assert "samples/count cpu/nanoseconds" in text
    assert "service:[web]" in text
    assert "2023-11-14" in text
    assert "Duration: 10s" in text or "Duration: 10" in text


def test_go_pprof_reads_stacks_leaf_first(tmp_path: Path) -> None:
    samples = [line.split() for line in _raw(tmp_path).splitlines() if line.startswith("  ")]
    values = {row[0]: row[2:] for row in samples if row[0] in ("70", "30", "7")}
    leaf_first = values["30"]
    assert len(leaf_first) == 3
    assert values["70"] == leaf_first[1:]


def test_go_pprof_top_sums_by_function(tmp_path: Path) -> None:
    path = tmp_path / "cpu.pb.gz"
    path.write_bytes(encode_profile(STACKS, 10_000_000, 1, 10**9))
    flat = {}
    for line in _go_pprof(path, "-top", "-sample_index=samples").splitlines():
        fields = line.split()
        if len(fields) >= 6 and fields[1].endswith("%"):
            flat[fields[5]] = (int(fields[0]), int(fields[3]))
    assert flat == {"hot;loop": (77, 107), "ksys_read": (30, 30), "main": (0, 107)}


def test_diff_base_accepts_the_profile(tmp_path: Path) -> None:
    path = tmp_path / "cpu.pb.gz"
    path.write_bytes(encode_profile(STACKS, 10_000_000, 1, 10**9))
    assert "Showing nodes" in _go_pprof(path, "-top", f"-diff_base={path}")


def test_large_numbers_and_an_empty_profile_encode() -> None:
    data = encode_profile([([MAIN], 2**40, {})], 10**9, 2**62, 2**50)
    assert gzip.decompress(data).startswith(b"\x0a")
    assert gzip.decompress(encode_profile([], 1, 1, 1))


def test_folded_merges_equal_stacks_and_escapes() -> None:
    assert encode_folded(STACKS) == "main;hot%3Bloop 77\nmain;hot%3Bloop;ksys_read 30\n"


def test_folded_keeps_one_line_a_stack_whatever_the_name() -> None:
    assert encode_folded([([Frame("a\nb"), Frame("")], 2, {})]) == "a%0Ab;[unknown] 2\n"
