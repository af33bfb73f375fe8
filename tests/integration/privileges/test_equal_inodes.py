"""Another user's library keeps its build id, whatever somebody mounts in an own namespace."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node_agent.processes.mappings import Mapping, read_mappings, read_start_ticks
from node_agent.symbols.modules import ModuleRegistry

SHARES = Path(__file__).parents[2] / "data" / "programs" / "shares.c"
ATTACKER = 61_237
# Runs the true program, then puts a false one of the same number, size and times into its place.
ATTACK = """
"$1/program" >/dev/null & mount -t tmpfs none "$1" && cp "$2" "$1/program" &&
touch -r "$2" "$1/program" && stat -c %i "$1/program" &&
echo $!; wait
"""


def compile_program(path: Path, build_id: bytes) -> None:
    flags = ["-O1", "-static", f"-Wl,--build-id=0x{build_id.hex()}"]
    subprocess.run(["gcc", *flags, "-o", path, SHARES], check=True)


def mapping_of(pid: int, path: Path) -> Mapping:
    entries = read_mappings(pid, read_start_ticks(pid) * 10_000_000).entries
    return next(entry for entry in entries if entry.path == os.fsencode(path))


@pytest.fixture
def library(open_folder: Path) -> Iterator[Path]:
    """The true program: the first file of a tmpfs of its own, as the false one will be."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    folder = open_folder / "library"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "none", folder], check=True)
    yield folder / "program"
    subprocess.run(["umount", "-l", folder], check=True)


def test_an_equal_inode_number_on_another_device_is_another_file(
    library: Path, open_folder: Path
) -> None:
    true, false = os.urandom(20), os.urandom(20)
    compile_program(open_folder / "true", true)
    compile_program(open_folder / "false", false)
    subprocess.run(["cp", open_folder / "true", library], check=True)
    status = library.stat()
    os.utime(open_folder / "false", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (open_folder / "false").stat().st_size == status.st_size
    victim = subprocess.Popen([library])
    attacker = subprocess.Popen(
        [
            *("setpriv", f"--reuid={ATTACKER}", f"--regid={ATTACKER}", "--clear-groups"),
            *("unshare", "--user", "--map-root-user", "--mount"),
            *("sh", "-c", ATTACK, "sh", library.parent, open_folder / "false"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert attacker.stdout is not None
    inode, pid = (int(attacker.stdout.readline()) for _ in range(2))
    try:
        assert inode == status.st_ino
        registry = ModuleRegistry()

        registry.native_module(pid, mapping_of(pid, library))
        found = registry.native_module(victim.pid, mapping_of(victim.pid, library))

        assert found is not None
        assert registry.modules[found].id == true
        assert all(module.id != false for module in registry.modules.values())
    finally:
        os.kill(pid, signal.SIGKILL)
        attacker.communicate()
        victim.kill()
        victim.wait()
