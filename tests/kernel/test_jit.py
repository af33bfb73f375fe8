"""JIT code of real runtimes has names in a recording; hostile perf maps have none."""

import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node_agent.record import record

NOBODY = 65534
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
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a command, which ends with the test, and what it leaves in /tmp."""
    running: list[subprocess.Popen[str]] = []

    def start_(*command: str | Path) -> subprocess.Popen[str]:
        running.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        )
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


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def holds(process: subprocess.Popen[str], text: str) -> bool:
    path = perf_map_of(process)
    return path.exists() and text in path.read_text()


def stacks(process: subprocess.Popen[str], output: Path, seconds: float = 2) -> Counter[str]:
    """Samples of a process by folded stack."""
    record(seconds, 199, process.pid, output)
    counts: Counter[str] = Counter()
    for line in output.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        counts[stack + ";"] += int(count)
    return counts


def share(counts: Counter[str], text: str) -> float:
    return 100 * sum(n for stack, n in counts.items() if text in stack) / counts.total()


def need(tool: str, package: str) -> str:
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f"{tool} is missing: install {package}")
    return path


def test_node(start: Start, tmp_path: Path) -> None:
    script = tmp_path / "hot.js"
    script.write_text(NODE)
    process = start(need("node", "nodejs"), "--perf-basic-prof", script)
    wait_for(lambda: holds(process, f"*outer {script}"), "optimized code")
    counts = stacks(process, tmp_path / "node.folded")
    # Its optimizer may inline one into the other.
    assert share(counts, "outer;") > 90
    assert share(counts, "[jit];") < 5
    assert not any("hot.js" in stack or "*outer" in stack for stack in counts)


def test_java(start: Start, tmp_path: Path) -> None:
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

    wait_for(is_compiled, "compiled code")
    counts = stacks(process, tmp_path / "java.folded")
    assert share(counts, "Hot.inner(int);") > 80


def test_names_come_while_the_map_grows(start: Start, jit_program: Path, tmp_path: Path) -> None:
    process = start(jit_program)
    assert process.stdout is not None
    address = int(process.stdout.readline(), 16)
    assert share(stacks(process, tmp_path / "a.folded", 0.5), "[jit];") > 90
    perf_map_of(process).write_text(f"{address:x} 20 first\n")
    assert share(stacks(process, tmp_path / "b.folded", 0.5), "first;") > 90
    with perf_map_of(process).open("a") as file:
        file.write(f"{address:x} 20 second\n")
    assert share(stacks(process, tmp_path / "c.folded", 0.5), "second;") > 90


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
    counts = stacks(process, tmp_path / "a.folded", 0.5)
    assert share(counts, "[jit];") > 90
    assert not any("secret" in stack for stack in counts)
