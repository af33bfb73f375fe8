"""A known load, and a small root file system to boot other kernels with."""

import bisect
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent
STDLIB_LEFT_OUT = (
    *("test", "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip", "distutils"),
    *("site-packages", "dist-packages", "config-*", "pydoc_data", "unittest", "asyncio"),
)


class BusyProgram(NamedTuple):
    path: Path

    def start(self) -> tuple[subprocess.Popen[str], list[int]]:
        """The running process and the addresses of its functions: 50, 30 and 20 %; and the end."""
        process = subprocess.Popen([self.path], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return process, [int(word, 16) for word in process.stdout.readline().split()]


@pytest.fixture(scope="session")
def busy_program(tmp_path_factory: pytest.TempPathFactory) -> BusyProgram:
    """busy.c, static so that it runs anywhere, with frame pointers."""
    path = tmp_path_factory.mktemp("busy") / "busy"
    flags = ["-O1", "-static", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls"]
    subprocess.run(["gcc", *flags, "-o", path, HERE / "busy.c"], check=True)
    return BusyProgram(path)


class WalkProgram(NamedTuple):
    """walk.S, the rows that it is written with, and what walk.py finds of it, judged."""

    path: Path
    rows: Path
    symbols: list[tuple[int, str]]  # sorted; of a program that is not moved when it is loaded

    def function(self, address: int) -> str:
        return self.symbols[bisect.bisect(self.symbols, (address, "~")) - 1][1]

    def judge(self, found: dict[str, Any]) -> None:
        """`found` is the line of JSON that walk.py prints."""
        for name, (end, chain) in WALKS.items():
            # the first instructions of a function or of the whole program are other stacks
            seen: Counter[tuple[str, tuple[str, ...]]] = Counter()
            in_kernel = 0
            for said, addresses, is_kernel, count in found["cases"][name]:
                seen[said, tuple(map(self.function, addresses))] += count
                in_kernel += count * is_kernel
            ((said, functions), count), total = seen.most_common(1)[0], seen.total()
            assert total >= 5, (name, seen)
            assert count >= 0.6 * total, (name, seen)
            assert said == end, (name, seen)
            assert list(functions[: len(chain)]) == chain, (name, seen)
            if end != "NO_MAPPING":  # there the kernel walked on, by frame pointers
                assert len(functions) == len(chain), (name, seen)
            assert name != "kernel" or in_kernel >= 0.6 * total, (name, seen)


ALL_RULES = ["spin", "by_rbp_deref", "by_rsp_deref", "by_rbp_far", "by_rbp", "by_rsp", "_start"]
IN_SIGNAL = ["spin", "handler", "restorer", "fault", "_start"]
FRAMED = ["framed_leaf", "framed", "_start"]
WALKS = {  # by case of walk.py: how the walk ends, and the functions from the leaf on
    "rules": ("COMPLETE", ALL_RULES),
    "fork": ("COMPLETE", ALL_RULES),
    "plt": ("COMPLETE", ["plt_entry", "_start"]),
    "deep": ("COMPLETE", ["spin", *["deep"] * 100, "_start"]),
    "too_deep": ("TRUNCATED", ["spin", *["deep"] * 126]),
    "signal": ("COMPLETE", IN_SIGNAL),
    "signal_without_row": ("COMPLETE", IN_SIGNAL),
    "kernel": ("COMPLETE", ["read_zero", "_start"]),
    "unsupported": ("UNSUPPORTED_RULE", ["odd_rbp"]),
    "fault": ("READ_FAULT", ["unreadable"]),
    "frames_in_a_gap": ("COMPLETE", FRAMED),
    "frames": ("COMPLETE", FRAMED),
    "frames_without_rows": ("COMPLETE", FRAMED),
    "no_frames_without_rows": ("NO_ROWS", ["odd_rbp"]),
    "no_room": ("NO_ROOM", ["spin"]),
    "pending": ("NO_MAPPING", ["spin"]),
    "unknown": ("NO_MAPPING", ["spin"]),
    "another_program": ("NO_MAPPING", ["spin"]),
}


@pytest.fixture(scope="session")
def walk_program(tmp_path_factory: pytest.TempPathFactory) -> WalkProgram:
    path = tmp_path_factory.mktemp("walk") / "walk"
    rows = path.with_name("walk.rows")
    flags = ["-nostdlib", "-static", "-no-pie"]
    subprocess.run(["gcc", *flags, "-o", path, HERE / "walk.S"], check=True)
    section = ["-j", ".rows", "--set-section-flags", ".rows=alloc"]
    subprocess.run(["objcopy", "-O", "binary", *section, path, rows], check=True)
    listed = subprocess.check_output(["nm", path], text=True).splitlines()
    words = [line.split() for line in listed]
    symbols = sorted((int(word[0], 16), word[2]) for word in words if word[1] == "T")
    return WalkProgram(path, rows, symbols)


@pytest.fixture
def busy(busy_program: BusyProgram) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    process, functions = busy_program.start()
    yield process, functions
    process.kill()
    process.communicate()


@pytest.fixture
def dd() -> Iterator[subprocess.Popen[bytes]]:
    """A kernel-heavy process."""
    process = subprocess.Popen(
        ["dd", "if=/dev/zero", "of=/dev/null", "bs=64k"], stderr=subprocess.DEVNULL
    )
    yield process
    process.kill()
    process.wait()


def copy_with_libraries(root: Path, *files: Path) -> None:
    """Copy programs and libraries, with the libraries they load, to their own paths in `root`."""
    wanted = set(files)
    for file in files:
        linked = subprocess.run(["ldd", file], capture_output=True, text=True, check=True).stdout
        wanted |= {Path(path) for path in re.findall(r"(/\S+)\s+\(0x", linked)}
    for path in wanted:
        target = root / path.parent.resolve().relative_to("/") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


@pytest.fixture(scope="session")
def kernel_root(
    tmp_path_factory: pytest.TempPathFactory,
    busy_program: BusyProgram,
    walk_program: WalkProgram,
) -> Path:
    """This machine's Python, libbpf, a busybox, the agent's package and the probe: 30 MB.

    Made from files that are here anyway: quicker than unpacking a distribution, and offline.
    """
    root = tmp_path_factory.mktemp("kernel") / "root"
    for folder in ("usr/bin", "usr/lib", "usr/lib64", "usr/sbin", "proc", "sys", "dev", "tmp"):
        (root / folder).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    for folder in ("sys/fs/bpf", "sys/fs/cgroup", "run"):
        (root / folder).mkdir(parents=True, exist_ok=True)

    busybox = root / "usr/bin/busybox"
    shutil.copy(shutil.which("busybox") or "/bin/busybox", busybox)
    for applet in ("sh", "mount", "mkdir", "ip", "hostname", "sync", "sleep", "dd", "unshare"):
        (root / "usr/bin" / applet).symlink_to("busybox")

    python = Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
    stdlib = Path(sysconfig.get_path("stdlib"))
    extensions = stdlib / "lib-dynload"
    libbpf = Path("/usr/lib", f"{os.uname().machine}-linux-gnu", "libbpf.so.1")
    copy_with_libraries(
        root,
        python.resolve(),
        libbpf,
        *(e for n in ("_ctypes.", "mmap.") for e in extensions.glob(f"{n}*")),
    )
    (root / "usr/bin/python3").symlink_to(python.resolve())
    shutil.copytree(
        stdlib,
        root / stdlib.relative_to("/"),
        ignore=shutil.ignore_patterns(*STDLIB_LEFT_OUT),
        dirs_exist_ok=True,
    )

    for name in ("node_agent", "wire", "confinement"):
        shutil.copytree(PROJECT / name, root / "opt" / name)
    package = Path(msgspec.__file__).parent
    shutil.copytree(package, root / "opt/msgspec")
    copy_with_libraries(root, *package.glob("_core*.so"))
    for name in ("probe.py", "hotplug.py", "exclude.py", "remains.py", "throttle.py"):
        shutil.copy(HERE / name, root / "opt" / name)
    shutil.copy(busy_program.path, root / "opt/busy")
    for file in (HERE / "walk.py", walk_program.path, walk_program.rows):
        shutil.copy(file, root / "opt")
    for file in (HERE / "python_frames.py", PROJECT / "tests/data/programs/python/modes.py"):
        shutil.copy(file, root / "opt")
    return root


@pytest.fixture(scope="session")
def boot() -> Callable[..., list[dict[str, Any]]]:
    """boot(suite, root, script, limit_s=900, append=""): what the Python programs of a shell script
    print, a line of JSON each with a `release`, on the kernel of a Debian suite under emulation.
    `append` goes on the kernel's command line."""

    def run(
        suite: str, root: Path, script: str, limit_s: int = 900, append: str = ""
    ) -> list[dict[str, Any]]:
        done = subprocess.run(
            [HERE / "kernels.sh", "run", suite, root, "--", "sh", "-c", script],
            check=False,
            capture_output=True,
            text=True,
            env=os.environ | {"KERNELS_TIMEOUT": str(limit_s), "KERNELS_APPEND": append},
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        # the serial console may put something before a line
        lines = [line[line.find("{") :] for line in done.stdout.splitlines() if '"release"' in line]
        assert len(lines) == script.count("python3"), f"{done.stdout}\n{done.stderr}"
        return [json.loads(line) for line in lines]

    return run


@pytest.fixture
def bcc_root(kernel_root: Path, tmp_path: Path) -> Path:
    """`kernel_root` with Debian's bcc (220 MB of compiler) and the headers of Debian's 6.1."""
    found = subprocess.run(
        [HERE / "kernels.sh", "headers", "bookworm"], check=True, capture_output=True, text=True
    )
    root = tmp_path / "root"
    subprocess.run(["cp", "-al", kernel_root, root], check=True)
    libraries = Path("/usr/lib", f"{os.uname().machine}-linux-gnu")
    copy_with_libraries(root, libraries / "libbcc.so.0", libraries / "librt.so.1")
    package = Path("usr/lib/python3/dist-packages/bcc")
    shutil.copytree(Path("/", package), root / package)
    for tree in Path(found.stdout.strip(), "usr/src").iterdir():
        target = root / "usr/src" / tree.name
        target.mkdir(parents=True)
        shutil.copy(tree / "Makefile", target)
        for part in ("include", "arch/x86/include"):
            shutil.copytree(tree / part, target / part, symlinks=True)
    return root


@pytest.fixture(scope="session")
def naming_root(
    kernel_root: Path, open_packages: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """`kernel_root` with all that a whole sampler loads: its packages, and the extension modules of
    Python with their libraries."""
    root = tmp_path_factory.mktemp("modules") / "root"
    subprocess.run(["cp", "-al", kernel_root, root], check=True)
    for package in ("msgspec", "zstandard"):
        target = root / "opt" / package
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(Path(open_packages, package), target)
    for name in ("module_probe.py", "complaint.py", "unit_limits.py"):
        shutil.copy(HERE / name, root / "opt" / name)
    dynload = Path(sysconfig.get_path("stdlib"), "lib-dynload")
    target = root / dynload.relative_to("/")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(dynload, target)
    for extension in (*dynload.glob("*.so"), *Path(open_packages).rglob("*.so")):
        linked = subprocess.run(["ldd", extension], capture_output=True, text=True, check=True)
        for path in map(Path, re.findall(r"(/\S+)\s+\(0x", linked.stdout)):
            library = root / path.parent.resolve().relative_to("/") / path.name
            library.parent.mkdir(parents=True, exist_ok=True)
            if not library.exists():
                shutil.copy(path, library)
    return root
