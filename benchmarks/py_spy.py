"""Python functions of one process as `py-spy record` sees them."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from benchmarks.agent_stacks import python_name
from benchmarks.shares import Stack

PY_SPY = Path(sys.executable).parent / "py-spy"
RATE_HZ = 200
# "function (file.py:12)"; native frames have a shared library there.
_PYTHON_FRAME = re.compile(r"(.+) \((?:.*\.py|<[^>]*>)(?::\d+)?\)")


def start_py_spy(
    pid: int, seconds: float, output: Path, options: list[str]
) -> subprocess.Popen[bytes]:
    """Begin to sample process `pid` for `seconds`."""
    command = [str(PY_SPY), "record", *options, "--format", "raw", "--rate", str(RATE_HZ)]
    command += ["--duration", str(round(seconds)), "--pid", str(pid), "--output", str(output)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def read_py_spy(output: Path) -> Counter[Stack]:
    """Samples by their Python functions, root first."""
    stacks: Counter[Stack] = Counter()
    for line in output.read_text().splitlines():
        text, _, count = line.rpartition(" ")
        matches = (_PYTHON_FRAME.fullmatch(frame) for frame in text.split(";"))
        names = tuple(python_name(match[1]) for match in matches if match is not None)
        stacks[names or ("",)] += int(count)
    return stacks
