"""What the kernel or the host refuses is said in words, with a remedy, and leaves nothing open."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from node_agent.collectors import beginning
from node_agent.collectors.cpu import CpuCollector
from node_agent.kernel import libbpf
from node_agent.kernel.errors import (
    KernelError,
    LibbpfError,
    LoadError,
    ObjectError,
    PerfEventError,
)

PROJECT = Path(__file__).parents[2]


def open_descriptors() -> set[str]:
    """What this process's descriptors stand for, by number."""
    return {f"{fd.name} {fd.readlink()}" for fd in Path("/proc/self/fd").iterdir() if fd.exists()}


def test_a_rate_above_the_kernels_limit() -> None:
    limit = int(Path("/proc/sys/kernel/perf_event_max_sample_rate").read_text())
    before = open_descriptors()

    with pytest.raises(PerfEventError) as caught:
        CpuCollector(limit + 1, 1000, 0.001).start()

    assert f"perf_event_max_sample_rate is {limit}" in str(caught.value)
    assert "lower rate" in caught.value.remedy
    assert open_descriptors() == before


def test_a_refused_rate_leaves_the_old_one_running() -> None:
    limit = int(Path("/proc/sys/kernel/perf_event_max_sample_rate").read_text())
    collector = CpuCollector(199, 1000, 10)
    collector.start()
    try:
        with pytest.raises(PerfEventError):
            collector.set_rate(limit + 1)
        collector.take_interval()
        interrupts = 0
        end = time.monotonic() + 300
        while interrupts < 20 and time.monotonic() < end:
            time.sleep(0.1)
            interrupts += collector.take_interval().interrupts
    finally:
        collector.stop()

    assert collector.rate_hz == 199
    assert interrupts >= 20


def test_a_user_without_capabilities() -> None:
    code = (
        "import os\n"
        "from node_agent.collectors.cpu import CpuCollector\n"
        "from node_agent.kernel.errors import LoadError\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: CpuCollector(19, 1000, 10).start()\n"
        "except LoadError as error: print(error, error.remedy)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT
    )

    assert "not permitted" in done.stdout
    assert "CAP_BPF and CAP_PERFMON" in done.stdout
    assert done.stderr == ""  # libbpf's chatter is kept, not printed


@pytest.mark.parametrize("content", [None, b"", b"not an object", b"\x7fELF" + bytes(100)])
def test_an_object_that_is_not_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    monkeypatch.setattr(beginning, "OBJECTS", tmp_path)
    if content is not None:
        (tmp_path / "cpu.bpf.o").write_bytes(content)
    before = open_descriptors()

    with pytest.raises(ObjectError) as caught:
        CpuCollector(19, 1000, 10).start()

    assert "cpu.bpf.o" in str(caught.value)
    assert "make bpf" in caught.value.remedy
    assert open_descriptors() == before


def test_an_object_of_other_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "other.bpf.c"
    source.write_text('int unused;\nchar LICENSE[] __attribute__((section("license"))) = "GPL";\n')
    built = ["clang", "-O2", "-g", "-target", "bpf", "-c", source, "-o", tmp_path / "cpu.bpf.o"]
    subprocess.run(built, check=True)
    monkeypatch.setattr(beginning, "OBJECTS", tmp_path)

    with pytest.raises(ObjectError, match="does not fit this agent"):
        CpuCollector(19, 1000, 10).start()


def test_a_program_that_the_verifier_refuses_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (PROJECT / "bpf/cpu.bpf.c").read_text()
    look_up = "bpf_map_lookup_elem(counts, &event->key);\n"
    assert look_up in source
    # the result of a look-up used without a check
    (tmp_path / "cpu.bpf.c").write_text(source.replace(look_up, f"{look_up} *count += 1;", 1))
    clang = ["clang", "-O2", "-g", "-target", "bpf", "-D__TARGET_ARCH_x86"]
    include = ["-I", PROJECT / "bpf", "-idirafter", f"/usr/include/{os.uname().machine}-linux-gnu"]
    files = ["-c", tmp_path / "cpu.bpf.c", "-o", tmp_path / "cpu.bpf.o"]
    subprocess.run([*clang, *include, *files], check=True)
    monkeypatch.setattr(beginning, "OBJECTS", tmp_path)

    with pytest.raises(LoadError) as caught:
        CpuCollector(19, 1000, 10).start()

    assert "map_value_or_null" in str(caught.value)
    assert "flamefleet-agent check" in caught.value.remedy


def test_no_libbpf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libbpf.so.1").write_text("not a library")
    monkeypatch.setattr(libbpf, "BUNDLED_FOLDERS", (tmp_path, tmp_path))
    monkeypatch.setattr(libbpf, "_library", None)

    with pytest.raises(LibbpfError) as caught:
        CpuCollector(19, 1000, 10).start()

    assert "apt install libbpf1" in caught.value.remedy


def test_a_bundled_libbpf_is_taken_with_its_libraries(tmp_path: Path) -> None:
    system = Path("/usr/lib", f"{os.uname().machine}-linux-gnu")
    for name in ("libbpf.so.1", "libelf.so.1", "libz.so.1"):
        (tmp_path / name).write_bytes((system / name).read_bytes())
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from node_agent.kernel import libbpf\n"
        "from node_agent.collectors.cpu import CpuCollector\n"
        "libbpf.BUNDLED_FOLDERS = (Path(sys.argv[1]), Path('/nowhere'))\n"
        "collector = CpuCollector(99, 1000, 10)\n"
        "collector.start(); collector.take_interval(); collector.stop()\n"
        "print(open('/proc/self/maps').read())"
    )
    maps = subprocess.check_output([sys.executable, "-c", code, tmp_path], text=True, cwd=PROJECT)

    assert f"{tmp_path}/libbpf.so.1" in maps
    assert f"{tmp_path}/libelf.so.1" in maps
    assert f"{system}/libelf" not in maps


def test_a_collector_that_does_not_run_says_so() -> None:
    collector = CpuCollector(19, 1000, 10)

    for call in (collector.poll, collector.take_interval, collector.map_bytes, collector.totals):
        with pytest.raises(KernelError, match="not running"):
            call()
