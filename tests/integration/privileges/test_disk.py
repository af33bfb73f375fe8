"""A full and a read-only disk under the running sampler, as an unprivileged user. Real disks."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wire.codec import decode
from wire.schema import Batch


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path], Path]]:
    """Mounts a file system of 512 KiB on a folder, with the folder's owner and mode."""
    mounted: list[Path] = []

    def mount(folder: Path) -> Path:
        status = folder.stat()
        options = f"size=512k,uid={status.st_uid},gid={status.st_gid},mode=2770"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def sequences(folder: Path, run: str) -> list[int]:
    """Sequences of the batches of this run that are in the spool."""
    found = []
    for path in (folder / "batches").glob(f"{run}-*.batch"):
        found.append(decode(path.read_bytes(), Batch).sequence)
    return sorted(found)


def shown(agent) -> tuple[str, dict[str, Any]]:
    """What the status command says, for people and for programs."""
    options = ("status", "--spool-dir", str(agent.spool_dir))
    people, programs = agent.ask(*options), agent.ask(*options, "--json")
    assert "Traceback" not in people.stderr + programs.stderr
    return people.stdout, json.loads(programs.stdout)


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_a_full_disk(make_agent, small_disk, closed_program) -> None:
    agent = make_agent()
    folder = small_disk(agent.spool_dir)
    process = agent.run()
    status = agent.wait_for(lambda s: s.get("sequence", 0) >= 2 and s, "batches")
    with (folder / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(4096))

    full_at = status["sequence"]
    status = agent.wait_for(
        lambda s: s.get("lost", {}).get("intervals", 0) >= 2 and s, "intervals without room"
    )
    people, programs = shown(agent)

    assert "No space left on device" in status["error"]
    assert "the last interval is kept in memory" in status["error"]
    assert programs["running"]
    assert "kept in memory" in people
    assert "is full" in programs["spool"]["trouble"]
    before = resident_bytes(process.pid)
    agent.wait_for(lambda s: s.get("lost", {}).get("intervals", 0) >= 5, "more of them")
    assert resident_bytes(process.pid) - before < 8 << 20
    assert "No space left" in (agent.status()["error"])

    (folder / "ballast").unlink()
    ended = agent.wait_for(lambda s: s and not s["error"] and s, "the end of the trouble")
    after = agent.wait_for(lambda s: s.get("sequence", 0) > ended["sequence"] + 1 and s, "more")
    agent.stop()

    # All that was lost is counted, and nothing else is missing.
    stored = sequences(folder, after["run"])
    last = agent.status()["sequence"]
    assert last - len(stored) == agent.status()["lost"]["intervals"] >= 5
    assert stored[0] == 1
    assert full_at in stored
    assert shown(agent)[1]["spool"]["trouble"] is None


def test_a_read_only_disk(make_agent, small_disk, closed_program) -> None:
    agent = make_agent()
    folder = small_disk(agent.spool_dir)
    process = agent.run()
    agent.wait_for(lambda s: s.get("sequence", 0) >= 2, "batches")

    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    read_only_at = agent.status()["sequence"]
    words = ""
    assert process.stderr is not None
    while "Read-only file system" not in words:
        words = process.stderr.readline()
        assert words, "the sampler ended"
    people, programs = shown(agent)
    assert "is read-only: one interval is kept in memory" in people
    assert "is read-only" in programs["spool"]["trouble"]
    assert process.poll() is None
    subprocess.run(["sleep", "8"], check=True)  # a few intervals, also of a slow machine

    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
    after = agent.wait_for(lambda s: s.get("sequence", 0) > read_only_at + 3 and s, "batches again")
    agent.stop()

    stored = sequences(folder, after["run"])
    status = agent.status()
    assert status["error"] == ""
    assert status["sequence"] - len(stored) == status["lost"]["intervals"] >= 1
    assert status["dropped"]["disk_error"] >= 2
