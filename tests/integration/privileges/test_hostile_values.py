"""Values that no file, program or order should have cost what they belong to, nothing else."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wire.codec import decode
from wire.limits import MAX_LINE
from wire.schema import Batch, Definitions, Name
from wire.validate import check_batch, check_definitions

PROGRAMS = Path(__file__).parents[2] / "data" / "programs" / "hostile"
NOBODY = 65_534
# As the user that may write orders: they grow after their size was looked at.
GROWING = r"""
import os, sys, time
os.umask(0)
os.chdir(sys.argv[1] + "/directives")
end = time.monotonic() + 20
while time.monotonic() < end:
    file = os.open("grows.json", os.O_RDWR | os.O_CREAT, 0o644)
    while os.path.exists("grows.json") and time.monotonic() < end:  # else it was refused
        for _ in range(100):
            os.ftruncate(file, 2)
            os.ftruncate(file, 6 << 30)
    os.close(file)
if os.path.exists("grows.json"):
    os.unlink("grows.json")
"""


@pytest.fixture
def as_nobody(open_folder: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts programs of user nobody in a folder that is theirs; they end with the test."""
    folder = open_folder / "nobody"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    running: list[subprocess.Popen[bytes]] = []

    def start(*command: str | Path) -> subprocess.Popen[bytes]:
        user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        running.append(subprocess.Popen([*user, *command], cwd=folder))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def definitions_of(agent) -> list[Definitions]:
    files = (agent.spool_dir / "batches").glob("*.defs")
    return [decode(path.read_bytes(), Definitions) for path in files]


def batches_of(agent) -> list[Batch]:
    files = (agent.spool_dir / "batches").glob("*.batch")
    return [decode(path.read_bytes(), Batch) for path in files]


def executables(agent) -> set[str]:
    return {row.labels["executable"] for batch in batches_of(agent) for row in batch.series}


def later(agent, batches: int = 3) -> dict:
    """The sampler's status after so many more batches."""
    sequence = agent.status()["sequence"]
    return agent.wait_for(lambda s: s.get("sequence", 0) >= sequence + batches and s, "batches")


@pytest.mark.parametrize(
    ("headers", "note"),
    [((1 << 64) - 1, 0), (64, 1 << 63), (64, 8_000_000)],
    ids=["headers", "note", "note-behind-the-file"],
)
def test_headers_that_lead_nowhere(
    make_agent, as_nobody, open_folder, closed_program, headers, note
) -> None:
    """GIVEN a process of any user that has mapped a file whose headers point beyond it."""
    path = open_folder / "liar"
    subprocess.run(["gcc", "-O1", "-o", path, PROGRAMS / "headers.c"], check=True)
    process = as_nobody(path, "mapped", str(headers), str(note))
    agent = make_agent()
    sampler = agent.run()

    agent.wait_for(lambda _: {"liar", "guarded"} <= executables(agent), "samples of both programs")
    status = later(agent)

    assert process.poll() is None
    assert sampler.poll() is None
    modules = [module for one in definitions_of(agent) for module in one.modules]
    [mapped] = {module for module in modules if module.name == "mapped"}
    assert len(mapped.id) == 20  # of the file's ends
    assert status["unplaced"]["file_malformed"] >= 1
    assert status["faults"] == {}  # nothing that nobody foresaw
    shown = agent.ask("status", "--json", "--spool-dir", str(agent.spool_dir))
    assert '"file_malformed"' in shown.stdout
    recorded = agent.ask("record", "--seconds", "2", "-o", str(agent.spool_dir / "x.folded"))
    assert recorded.returncode == 0, recorded.stderr
    assert "mapped+0x" in (agent.spool_dir / "x.folded").read_text()
    assert "Traceback" not in agent.stop() + recorded.stderr


def test_a_line_that_no_file_has(make_agent, as_nobody, closed_program) -> None:
    """GIVEN a Python program of any user that has written -1 where its function's line is kept."""
    as_nobody("/usr/bin/python3", PROGRAMS / "first_line.py", "600")
    agent = make_agent()
    agent.run()

    def the_name(_status: dict) -> Name | None:
        names = (name for one in definitions_of(agent) for name in one.names)
        return next((name for name in names if name.function == "busy_at_no_line"), None)

    name = agent.wait_for(the_name, "a stack with the function")
    later(agent, 1)

    assert name.line == 0
    assert name.file.endswith("first_line.py")
    for message in definitions_of(agent):
        check_definitions(message)
        assert all(0 <= one.line <= MAX_LINE for one in message.names)
    for batch in batches_of(agent):
        check_batch(batch)
    assert "Traceback" not in agent.stop()


def test_orders_that_grow_while_they_are_read(make_agent, closed_program) -> None:
    agent = make_agent()
    sampler = agent.run(interval_s=0.5)
    agent.wait_for(lambda status: status.get("sequence", 0) > 1, "batches")

    agent.as_shipper(GROWING, str(agent.spool_dir))

    status = later(agent)
    assert sampler.poll() is None
    assert status["dropped"]["directive_malformed"] > 0
    lines = Path(f"/proc/{sampler.pid}/status").read_text().splitlines()
    [most] = [line for line in lines if line.startswith("VmHWM")]
    assert int(most.split()[1]) < 120 << 10  # KiB
    assert "Traceback" not in agent.stop()
