"""JIT code of real runtimes has names in a recording; hostile perf maps have none."""

import io
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from node_agent.record import record
from node_agent.record.progress import Progress
from node_agent.record.sampling import Sampling
from node_agent.symbols.modules import ModuleRegistry
from wire.schema import Name

HERE = Path(__file__).parent
NOBODY = 65534
ENOUGH = 20  # samples
UNNAMED = Name("[jit]")
TRIES = 16
NAMED = (b"jit", b"python", b"[unknown]")  # ids of the modules of frames that have no file
NODE = """
function inner(n) { let s = 0; for (let i = 0; i < n; i++) s = (s * 31 + i) % 1000003; return s; }
function outer() { let t = 0; for (let i = 0; i < 50; i++) t += inner(20000); return t; }
for (;;) outer();
"""
JAVA = """
public class Hot {
    static long sink;
    static long inner(int n) {
        long s = 0;
        for (int i = 0; i < n; i++) s = (s * 31 + i) % 1000003;
        return s;
    }
    static void outer() { for (int i = 0; i < 50; i++) sink += inner(20000); }
    public static void main(String[] arguments) { for (;;) outer(); }
}
"""
PYTHON = """
def inner(n):
    return [i * i % 7 for i in range(n)]
def outer():
    return inner(2000)
while True:
    outer()
"""
# Calls code that it wrote into an anonymous page, at an address that it prints.
JIT = r"""
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
int main(void)
{
    /* push rbp; mov rbp, rsp; mov ecx, 0x10000000; 1: dec ecx; jnz 1b; pop rbp; ret */
    static const unsigned char loop[] = {0x55, 0x48, 0x89, 0xe5, 0xb9, 0,    0,    0,
                     0x10, 0xff, 0xc9, 0x75, 0xfc, 0x5d, 0xc3};
    unsigned char *code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(code, loop, sizeof loop);
    printf("%p\n", code);
    fflush(stdout);
    for (;;)
        ((void (*)(void))code)();
}
"""
# Calls a function from code without a frame pointer, as CPython 3.12 does under -X perf.
TRAMPOLINE = r"""
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
__attribute__((noinline)) void called(void)
{
    for (volatile int i = 0; i < 10000000; i++)
        ;
}
int main(void)
{
    /* sub rsp, 8; call rdi; add rsp, 8; ret */
    static const unsigned char call[] = "\x48\x83\xec\x08\xff\xd7\x48\x83\xc4\x08\xc3";
    unsigned char *code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(code, call, sizeof call);
    for (;;)
        ((void (*)(void (*)(void)))code)(called);
}
"""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a command, which ends with the test, and what it leaves in /tmp."""
    running: list[subprocess.Popen[str]] = []

    def start_(*command: str | Path) -> subprocess.Popen[str]:
        running.append(
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=tmp_path,  # Node writes a log there
                start_new_session=True,
            )
        )
        with suppress(OSError):  # enough samples also on a busy machine (man 7 sched)
            Path(f"/proc/{running[-1].pid}/autogroup").write_text("-10")
        return running[-1]

    yield start_
    for process in running:
        process.kill()
        process.communicate()
        perf_map_of(process).unlink(missing_ok=True)


@pytest.fixture(scope="module")
def jit_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("jit") / "jit"
    flags = ["-O1", "-fno-omit-frame-pointer", "-o", path, "-x", "c", "-"]
    subprocess.run(["gcc", *flags], input=JIT, text=True, check=True)
    return path


def perf_map_of(process: subprocess.Popen[str]) -> Path:
    return Path(f"/tmp/perf-{process.pid}.map")


def holds(process: subprocess.Popen[str], text: str) -> bool:
    path = perf_map_of(process)
    return path.exists() and text in path.read_text()


def named_frames(
    process: subprocess.Popen[str], seconds: float = 1, python: bool = True
) -> Counter[tuple[Name, ...]]:
    """Samples of a process by their frames that have no file: of JIT code, and with `python` of
    Python. More and longer where it gets little of the machine, or where its unwind rows are still
    being made."""
    for turn in range(TRIES):
        registry = ModuleRegistry()
        sampling = Sampling(199, process.pid, None, registry, python=python)
        taken = sampling.run(seconds * (1 + turn), Progress(io.StringIO()))
        if taken.ends.get("complete", 0) > 0.9 * sum(taken.ends.values()) >= ENOUGH:
            break
    counts: Counter[tuple[Name, ...]] = Counter()
    for (_, _, stack_hash), count in taken.counts.items():
        packed = taken.packed[stack_hash]
        numbers = [int.from_bytes(packed[at : at + 8], "little") for at in range(0, len(packed), 8)]
        frames = zip(numbers[::2], numbers[1::2], strict=True)
        kept = (n for m, n in frames if registry.modules[m].id in NAMED)
        counts[tuple(registry.names[number] for number in kept)] += count
    return counts


def share(counts: Counter[tuple[Name, ...]], *names: Name) -> float:
    """Percent of the samples that have one of `names`."""
    found = sum(count for frames, count in counts.items() if not set(names).isdisjoint(frames))
    return 100 * found / counts.total()


def need(tool: str, package: str) -> str:
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f"{tool} is missing: install {package}")
    return path


def test_node(start: Start, tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    script = tmp_path / "hot.js"
    script.write_text(NODE)
    process = start(need("node", "nodejs"), "--perf-basic-prof", script)
    wait_until(lambda: holds(process, f"*outer {script}"), "optimized code")
    # Its optimizer may inline one into the other.
    counts = named_frames(process)
    assert share(counts, Name("outer", str(script), 3)) > 90
    assert share(counts, UNNAMED) < 5


def test_a_recording_has_the_names(
    start: Start, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    script, output = tmp_path / "hot.js", tmp_path / "node.folded"
    script.write_text(NODE)
    process = start(need("node", "nodejs"), "--perf-basic-prof", script)
    wait_until(lambda: holds(process, f"*outer {script}"), "optimized code")
    while record(1, 199, process.pid, output).samples < ENOUGH:
        pass
    assert ";outer" in output.read_text()
    assert "*outer" not in output.read_text()


def test_java(start: Start, tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    source = tmp_path / "Hot.java"
    source.write_text(JAVA)
    java, jcmd = need("java", "default-jdk-headless"), need("jcmd", "default-jdk-headless")
    subprocess.run([need("javac", "default-jdk-headless"), source], check=True)
    process = start(java, "-XX:+UseSerialGC", "-XX:+PreserveFramePointer", "-cp", tmp_path, "Hot")

    def is_compiled() -> bool:
        # Its map is written when somebody asks, not as it grows.
        command = [jcmd, str(process.pid), "Compiler.perfmap"]
        subprocess.run(command, capture_output=True, check=False)
        return holds(process, "long Hot.inner(int)")

    wait_until(is_compiled, "compiled code")
    for _ in range(TRIES):  # what was compiled anew since is not in the map
        counts = named_frames(process)
        if share(counts, Name("Hot.inner(int)")) > 80:
            break
        assert is_compiled()
    assert share(counts, Name("Hot.inner(int)")) > 80


@pytest.fixture(scope="module")
def python_root() -> Path:
    """A root with a Python that knows `-X perf`: this system's own may be older than 3.12."""
    root = HERE.parents[1] / "build/python/3.14"
    subprocess.run([HERE / "pythons.sh", "forky", "3.14", root], check=True)
    (root / "tmp").mkdir(exist_ok=True)
    return root


def test_python_has_each_function_once(
    start: Start, python_root: Path, wait_until: Callable[..., Any]
) -> None:
    """Its map, which lies in its own root, has the code that each function is called by."""
    (python_root / "opt/hot.py").write_text(PYTHON)
    process = start("chroot", python_root, "/usr/bin/python3.14", "-X", "perf", "/opt/hot.py")
    path = python_root / f"tmp/perf-{process.pid}.map"
    wait_until(lambda: path.exists() and "py::inner:" in path.read_text(), "trampolines")
    by_map = named_frames(process, python=False)
    by_interpreter = named_frames(process)
    path.unlink()
    assert share(by_map, Name("inner", "/opt/hot.py")) > 80
    assert share(by_interpreter, Name("inner", "/opt/hot.py", 2)) > 80
    called = Counter[tuple[int, ...]]()
    for frames, count in by_interpreter.items():
        functions = [name.function for name in frames]
        if "inner" in functions:
            called[tuple(functions.count(name) for name in ("outer", "inner"))] += count
    # Of some samples the interpreter is entering or leaving a function.
    assert called[1, 1] > 0.9 * called.total(), by_interpreter


def test_a_trampoline_without_a_frame_pointer_is_walked_through(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "trampoline"
    flags = ("-x", "c", "-O2", "-fomit-frame-pointer", "-o", path, "-")
    subprocess.run(["gcc", *flags], input=TRAMPOLINE, text=True, check=True)
    process = start(path)
    folded = tmp_path / "trampoline.folded"
    counts: Counter[bool] = Counter()
    for turn in range(TRIES):
        options = ("--seconds", str(3 * (1 + turn)), "--rate", "199", "--pid", str(process.pid))
        command = (sys.executable, "-m", "node_agent", "record", *options, "-o", folded)
        subprocess.run(command, check=True)
        counts.clear()
        for line in folded.read_text().splitlines():
            stack, count = line.rsplit(" ", 1)
            frames = [frame for frame in stack.split(";")[1:] if not frame.startswith("[k")]
            if "called" in frames:
                whole = frames[0] == "_start" and frames[-3:] == ["main", "[jit]", "called"]
                counts[whole] += int(count)
        if counts[True] > 50:
            break
    assert counts[True] > 50
    assert counts[True] > 0.95 * counts.total()


def test_names_come_while_the_map_grows(start: Start, jit_program: Path) -> None:
    process = start(jit_program)
    assert process.stdout is not None
    address = int(process.stdout.readline(), 16)
    assert share(named_frames(process), UNNAMED) > 90
    perf_map_of(process).write_text(f"{address:x} 20 first\n")
    assert share(named_frames(process), Name("first")) > 90
    with perf_map_of(process).open("a") as file:
        file.write(f"{address:x} 20 second\n")
    assert share(named_frames(process), Name("second")) > 90


@pytest.mark.parametrize("trick", ["symlink", "fifo", "long lines", "owner"])
def test_hostile_maps_leave_jit_code_without_names(
    start: Start, jit_program: Path, tmp_path: Path, trick: str
) -> None:
    process = start(jit_program)
    assert process.stdout is not None
    line = f"{int(process.stdout.readline(), 16):x} 20 secret\n"
    path, secret = perf_map_of(process), tmp_path / "secret"
    secret.write_text(line)
    if trick == "symlink":
        path.symlink_to(secret)
    elif trick == "fifo":
        os.mkfifo(path)
    elif trick == "long lines":
        path.write_text(2 * (line.rstrip("\n") + "x" * (10 << 20) + "\n"))
    else:
        path.write_text(line)
        os.chown(path, NOBODY, NOBODY)
    counts = named_frames(process)
    assert share(counts, UNNAMED) > 90
    assert not any("secret" in name.function for frames in counts for name in frames)
