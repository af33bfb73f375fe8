"""The kernel's OOM killer, told by its log: a real kill in a control group with a limit."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node_agent.kernel.log import newest, parse_messages, read_kernel_log, was_killed
from node_agent.kernel.namespaces import pid_namespace_setting

V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
LIMIT_BYTES = 32 << 20
GREEDY = """
import sys
from pathlib import Path
Path(sys.argv[1]).write_text("0")
blocks = []
while True:
    blocks.append(b"1" * (1 << 20))
"""


@pytest.fixture
def group() -> Iterator[Path]:
    """A memory control group of either version with a limit."""
    is_v1 = (V1 / "memory.limit_in_bytes").exists()
    root = V1 if is_v1 else V2
    path = root / f"flamefleet-test-{os.getpid()}"
    try:
        path.mkdir()
        (path / ("memory.limit_in_bytes" if is_v1 else "memory.max")).write_text(str(LIMIT_BYTES))
        swap = path / "memory.swap.max"
        if swap.exists():
            swap.write_text("0")
    except OSError as error:
        if path.exists():
            path.rmdir()
        pytest.skip(f"no memory control group can be made here: {error}")
    yield path
    path.rmdir()


def test_a_real_kill_is_found_in_the_kernels_log(group: Path) -> None:
    if pid_namespace_setting():
        pytest.skip("the kernel's log has the ids of the initial PID namespace")
    before = newest(parse_messages(read_kernel_log()))
    process = subprocess.Popen([sys.executable, "-c", GREEDY, group / "cgroup.procs"])
    assert process.wait(600) == -9

    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        messages = parse_messages(read_kernel_log())
        if was_killed(messages, process.pid, before):
            break
        time.sleep(0.1)

    assert was_killed(messages, process.pid, before)
    assert not was_killed(messages, process.pid, newest(messages))
    assert not was_killed(messages, 1, before)
