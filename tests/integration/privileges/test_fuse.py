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

    def __init__(self, folder: Path) -> None:
        binary = folder / "binary"
        flags = ["-O1", "-static", "-fno-omit-frame-pointer", "-x", "c"]
        command = ["gcc", *flags, "-o", binary, SHARES, "-"]
        subprocess.run(command, input=RESIDENT, text=True, check=True)
        self.mount = folder / "mount"
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
        self.program = subprocess.Popen([self.mount / "program"], stdout=subprocess.PIPE, text=True)
        assert self.program.stdout is not None
        assert self.program.stdout.readline() == "resident\n"

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
        self.program.kill()
        self.program.communicate()
        subprocess.run(["umount", "-l", self.mount], check=True)


@pytest.fixture
def silent(open_folder: Path) -> Iterator[Silent]:
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("needs root and /dev/fuse")
    made = Silent(open_folder)
    yield made
    made.end()


def is_sampled(agent) -> bool:
    """Whether a batch has samples of the program."""
    for path in (agent.spool_dir / "batches").glob("*.batch"):
        batch = decode(path.read_bytes(), Batch)
        if any(series.labels["executable"] == "program" for series in batch.series):
            return True
    return False


def test_the_sampler_goes_on(silent: Silent, make_agent: Callable) -> None:
    agent = make_agent()
    silent.be_silent()
    silent.is_asked_in_vain()
    agent.run()
    agent.wait_for(lambda status: is_sampled(agent), "a batch with the program")
    sequence = agent.status()["sequence"]
    agent.wait_for(lambda status: status["sequence"] >= sequence + 3, "three batches more")
    agent.stop()
