"""A program on a FUSE file system whose server never answers must not hold up the sampler."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wire.codec import decode
from wire.schema import Batch

HERE = Path(__file__).parent
SHARES = HERE.parents[1] / "data" / "programs" / "shares.c"
# In memory as a whole before it says so: a page that is not would be asked of the silent server.
RESIDENT = r"""
#include <sys/mman.h>
#include <unistd.h>
__attribute__((constructor)) static void reside(void)
{
	if (mlockall(MCL_CURRENT) || write(1, "resident\n", 9) != 9)
		_exit(1);
}
"""


class Silent:
    """A busy program on a FUSE mount, and what its silent server was asked."""

    def __init__(self, folder: Path, name: str) -> None:
        self.binary = binary = folder / "binary"
        flags = ["-O1", "-static", "-fno-omit-frame-pointer", "-x", "c"]
        command = ["gcc", *flags, "-o", binary, SHARES, "-"]
        subprocess.run(command, input=RESIDENT, text=True, check=True)
        self.mount = folder / name
        self.mount.mkdir()
        self._server = subprocess.Popen(
            [sys.executable, HERE / "fuse_server.py", binary, self.mount],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._server.stdout is not None
        if self._server.stdout.readline() != "mounted\n":
            self._server.wait()
            pytest.skip("this kernel has no FUSE")
        self._programs: list[subprocess.Popen[str]] = []

    def run(self, *command: str | Path) -> None:
        """Start a program that is busy; by default the one on the mount."""
        program = subprocess.Popen(
            command or [self.mount / "program"], stdout=subprocess.PIPE, text=True
        )
        self._programs.append(program)
        assert program.stdout is not None
        assert program.stdout.readline() == "resident\n"

    def be_silent(self) -> None:
        """From now on no question about the file is answered."""
        assert self._server.stdin is not None
        self._server.stdin.write("\n")
        self._server.stdin.flush()

    def is_asked_in_vain(self) -> None:
        """Proves that it is silent: someone who looks at the file waits until the end."""
        assert self._server.stdout is not None
        asker = threading.Thread(target=self._ask, daemon=True)
        asker.start()
        assert self._server.stdout.readline().startswith("asked")
        asker.join(0.5)
        assert asker.is_alive()
        self._asker = asker

    def _ask(self) -> None:
        subprocess.run(["stat", self.mount / "program"], capture_output=True, check=False)

    def end(self) -> None:
        """Ends the server first: what waits for it then fails."""
        self._server.kill()
        self._server.communicate()
        for program in self._programs:
            program.kill()
            program.communicate()
        # It may have gone with the mount that it was on.
        subprocess.run(["umount", "-l", self.mount], check=False)


@pytest.fixture
def make_silent(open_folder: Path) -> Iterator[Callable[[str], Silent]]:
    """Mounts the file system at a folder of this name; it goes with the test."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("needs root and /dev/fuse")
    made: list[Silent] = []

    def make(name: str) -> Silent:
        made.append(Silent(open_folder, name))
        return made[-1]

    yield make
    for silent in made:
        silent.end()


def is_sampled(agent) -> bool:
    """Whether a batch has samples of the program."""
    for path in (agent.spool_dir / "batches").glob("*.batch"):
        batch = decode(path.read_bytes(), Batch)
        if any(series.labels["executable"] == "program" for series in batch.series):
            return True
    return False


def goes_on(silent: Silent, agent) -> None:
    """The sampler has the program in its batches, and makes others afterwards."""
    silent.be_silent()
    silent.is_asked_in_vain()
    agent.run()
    agent.wait_for(lambda status: is_sampled(agent), "a batch with the program")
    sequence = agent.status()["sequence"]
    agent.wait_for(lambda status: status["sequence"] >= sequence + 3, "three batches more")
    agent.stop()


@pytest.mark.parametrize("name", ["mount", "mo\runt", "mo\x0bunt", "mo\u2028unt"])
def test_the_sampler_goes_on(
    make_silent: Callable[[str], Silent], make_agent: Callable, name: str
) -> None:
    """Also where the name of the mount holds what some take for the end of a line."""
    silent = make_silent(name)
    silent.run()
    goes_on(silent, make_agent())


def test_a_link_in_the_programs_own_root_does_not_lead_there(
    make_silent: Callable[[str], Silent], make_agent: Callable, open_folder: Path
) -> None:
    """A program from elsewhere, in a root where the way to its name leads to the mount."""
    root, real = open_folder / "root", open_folder / "real"
    root.mkdir()
    subprocess.run(["mount", "--bind", root, root], check=True)
    silent = make_silent("root/mount")
    real.mkdir()
    (real / "program").write_bytes(silent.binary.read_bytes())
    (real / "program").chmod(0o755)
    link = root / str(real).lstrip("/")
    link.parent.mkdir(parents=True)
    link.symlink_to("/mount")
    silent.run(
        *(sys.executable, "-c"),
        "import os, sys\n"
        "file = os.open(sys.argv[1], os.O_RDONLY)\n"
        "os.chroot(sys.argv[2])\n"
        "os.chdir('/')\n"
        "os.execve(file, ['program'], {})\n",
        *(real / "program", root),
    )
    try:
        goes_on(silent, make_agent())
    finally:
        subprocess.run(["umount", "-l", root], check=True)


def test_an_overlay_over_it_is_not_entered(
    make_silent: Callable[[str], Silent], make_agent: Callable
) -> None:
    """Every user can mount both, in a user namespace."""
    silent = make_silent("mount")
    over = silent.mount.parent / "over"
    over.mkdir()
    silent.run(
        *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c"),
        f"mount -t overlay -o lowerdir={silent.mount}:{over} none {over} && exec {over}/program",
    )
    goes_on(silent, make_agent())
