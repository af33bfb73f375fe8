"""The loads that are profiled: nothing, four busy processes (two CPython, one C, one Go where there
is Go), and a storm of 1,000 short processes a second beside one that is busy."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

FORKS_A_SECOND = 1000
_STORMS = Path(__file__).parent.parent / "tests" / "data" / "programs" / "storms"

PYTHON = """
import json
def parse(text): return json.loads(text)
def total(rows): return sum(row["value"] * 2 for row in rows)
text = json.dumps([{"value": n, "name": "row %d" % n} for n in range(200)])
while True:
    total(parse(text))
"""
C = r"""
#include <stdlib.h>
#include <string.h>
static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
int main(void) {
    int numbers[4096];
    for (unsigned seed = 1;; seed++) {
        for (int i = 0; i < 4096; i++) numbers[i] = (int)(seed = seed * 1103515245 + 12345);
        qsort(numbers, 4096, sizeof(int), compare);
    }
}
"""
GO = """
package main
import ("crypto/sha256"; "strings")
func work(text string) byte { sum := sha256.Sum256([]byte(strings.ToUpper(text))); return sum[0] }
func main() { text := strings.Repeat("flame ", 400); for { work(text) } }
"""


def commands(folder: Path) -> list[list[str]]:
    """Build the programs in `folder` and return four command lines."""
    (folder / "work.py").write_text(PYTHON)
    (folder / "sort.c").write_text(C)
    subprocess.run(["gcc", "-O2", "-o", "sort", "sort.c"], cwd=folder, check=True)
    python = [sys.executable, str(folder / "work.py")]
    fourth = [str(folder / "sort")]
    if shutil.which("go"):
        (folder / "hash.go").write_text(GO)
        build = ["go", "build", "-o", "hash", "hash.go"]
        subprocess.run(build, cwd=folder, check=True, env=_go_environment(folder))
        fourth = [str(folder / "hash")]
    return [python, python, [str(folder / "sort")], fourth]


def _go_environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "GOFLAGS": "-mod=mod",
        "GO111MODULE": "off",
        "GOCACHE": str(folder / "go"),
    }


@contextmanager
def idle(folder: Path) -> Iterator[None]:
    """Nothing but what the machine does anyway."""
    yield


@contextmanager
def busy(folder: Path) -> Iterator[None]:
    """Run the four processes while the context is open."""
    with _running(commands(folder)):
        yield


@contextmanager
def fork_storm(folder: Path) -> Iterator[None]:
    """Run the storm and the C program while the context is open."""
    path = folder / "forks"
    subprocess.run(["gcc", "-O2", "-o", path, _STORMS / "forks.c"], check=True)
    with _running([[str(path), str(FORKS_A_SECOND)], commands(folder)[2]]):
        yield


@contextmanager
def _running(programs: list[list[str]]) -> Iterator[None]:
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in programs]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def forks() -> int:
    """Processes and threads that this machine started since it runs."""
    lines = Path("/proc/stat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("processes "))


LOADS: dict[str, Callable[[Path], AbstractContextManager[None]]] = {
    "idle": idle,
    "busy": busy,
    "forks": fork_storm,
}
