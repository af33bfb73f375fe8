"""Each way of loading the program is really taken: CO-RE, bcc, and the refusal."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from node_agent.collectors.cpu import CpuCollector, RawStack
from node_agent.kernel import bcc
from node_agent.kernel.errors import BccError, HeadersError

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent
WITHOUT_BTF = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/kernel/btf; exec "$@"')


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """For the compiler's child, which is another user. Not below pytest's own folder: every other
    run of pytest that begins closes that one to others again."""
    folder = Path(tempfile.mkdtemp(prefix="flamefleet-modes-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def newest_headers() -> Path:
    """Debian's headers of its newest kernel here."""
    newest = max(Path("/usr/src").glob("linux-headers-*-amd64"), default=None)
    if newest is None:
        # `make test` installs them, and turns a skip into a failure.
        pytest.skip("needs linux-headers-amd64")
    return newest


@pytest.fixture
def headers(open_folder: Path) -> Path:
    """Debian's headers in the name of this kernel. Fields of the kernel's structs are then read
    from the wrong places, but the compiler, the loader and everything else are put to work."""
    newest = newest_headers()
    folder = open_folder / "headers"
    (folder / "include").mkdir(parents=True)
    (folder / "arch").symlink_to(newest / "arch")
    shutil.copy(newest / "Makefile", folder)
    shutil.copytree(newest / "include/generated", folder / "include/generated")
    release = f'#define UTS_RELEASE "{os.uname().release}"\n'
    (folder / "include/generated/utsrelease.h").write_text(release)
    return folder


def test_bcc_counts_a_busy_program_on_this_kernel(
    headers: Path,
    monkeypatch: pytest.MonkeyPatch,
    busy: tuple[subprocess.Popen[str], list[int]],
) -> None:
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(headers))
    process, functions = busy
    collector = CpuCollector(rate_hz=199, max_samples=100_000, interval_s=10, mode="bcc")
    collector.start()
    counted = 0
    leaves: set[int] = set()
    stacks: dict[int, RawStack] = {}
    try:
        end = time.monotonic() + 600
        while counted < 200 and time.monotonic() < end:
            time.sleep(0.5)
            interval = collector.take_interval()
            stacks |= {stack.stack_key: stack for stack in collector.poll()}
            for key, count in interval.counts.items():
                if key.tgid == process.pid:
                    counted += count
                    leaves.add(stacks[key.stack_key].user_ips[0])
    finally:
        collector.stop()

    assert collector.mode == "bcc"
    assert counted >= 200
    assert interval.kernel_ns > 0
    for start, end in pairwise(functions):
        assert any(start <= leaf < end for leaf in leaves)


def test_bcc_under_the_kernel_that_the_headers_are_of(
    boot: Callable[..., Any], bcc_root: Path
) -> None:
    """Debian's 6.1 with its type information hidden: CO-RE fails there, and the chain goes on."""
    script = (
        "mount -t tmpfs none /sys/kernel/btf; "
        "MODE=auto python3 -B /opt/probe.py 100 busy=/opt/busy 'dd=dd if=/dev/zero of=/dev/null'"
    )
    (probe,) = boot("bookworm", bcc_root, script, limit_s=1100)

    assert probe["release"].startswith("6.1.")
    assert probe["mode"] == "bcc"
    assert "BTF" in probe["mode_reasons"]["core"]
    busy, dd = probe["programs"]["busy"], probe["programs"]["dd"]
    assert busy["samples"] >= 100, probe
    assert busy["user_depth"] > 20, probe
    assert busy["start_ns"] > 0  # read through the headers' task_struct
    assert len(busy["tgids"]) == 1
    assert dd["kernel_depth"] >= 3, probe
    assert (busy["missing_stacks"], dd["missing_stacks"]) == (0, 0)
    assert probe["not_in_proc"] == []


def test_headers_of_another_kernel_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    newest = newest_headers()
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(newest))
    with pytest.raises(HeadersError) as caught:
        CpuCollector(19, 1000, 10, mode="bcc").start()

    assert f"{os.uname().release} runs here" in str(caught.value)
    assert f"is of {newest.name.removeprefix('linux-headers-')}" in str(caught.value)
    assert f"linux-headers-{os.uname().release}" in caught.value.remedy


def test_no_bcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bcc, "PACKAGES", tmp_path)
    with pytest.raises(BccError) as caught:
        CpuCollector(19, 1000, 10, mode="bcc").start()

    assert caught.value.remedy == "apt install python3-bpfcc"


def test_what_does_not_compile_is_quoted(
    headers: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_folder / "source"
    shutil.copytree(bcc.SOURCES, source)
    (source / "cpu.bpf.c").write_text("int sample_cpu(no_such_type *ctx) { return 0; }\n")
    monkeypatch.setattr(bcc, "SOURCES", source)
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(headers))
    with pytest.raises(BccError, match="no_such_type"):
        CpuCollector(19, 1000, 10, mode="bcc").start()


@pytest.mark.parametrize(
    ("mode", "error", "words"),
    [
        ("auto", "NoModeError", ("CO-RE: ", "BTF", "bcc: ", "no kernel headers of")),
        ("core", "LoadError", ("BTF",)),
        ("bcc", "HeadersError", ("no kernel headers of",)),
    ],
)
def test_a_host_without_type_information_and_headers(
    mode: str, error: str, words: tuple[str, ...]
) -> None:
    code = (
        "import sys\n"
        "from node_agent.collectors.cpu import CpuCollector\n"
        "from node_agent.kernel.errors import KernelError\n"
        "try: CpuCollector(19, 1000, 10, mode=sys.argv[1]).start()\n"
        "except KernelError as error: print(type(error).__name__, error, error.remedy)"
    )
    done = subprocess.run(
        [*WITHOUT_BTF, "sh", sys.executable, "-c", code, mode],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        check=True,
    )
    assert done.stdout.startswith(error), done.stdout + done.stderr
    for word in words:
        assert word in done.stdout


def test_a_missing_capability_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other mode would mend it, so none is tried."""
    code = (
        "import os\n"
        "from node_agent.collectors.cpu import CpuCollector\n"
        "from node_agent.kernel.errors import LoadError\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: CpuCollector(19, 1000, 10, mode='auto').start()\n"
        "except LoadError as error: print(error.code, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    assert done.stdout.startswith("1 ")
    assert "bcc" not in done.stdout
