import contextlib
import socket
import time
from pathlib import Path

import pytest

from node_agent.sampler.notify import Notifier


@pytest.mark.parametrize("abstract", [False, True])
def test_states_arrive_at_the_socket(tmp_path: Path, abstract: bool) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name if abstract else name)
        listener.settimeout(300)
        notifier = Notifier({"NOTIFY_SOCKET": "@" + name if abstract else name})
        notifier.send("READY=1")
        assert listener.recv(100) == b"READY=1"


def test_without_a_socket_nothing_happens(tmp_path: Path) -> None:
    Notifier({}).send("READY=1")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).send("READY=1")


@pytest.mark.parametrize(
    ("microseconds", "signs"), [(None, 0), ("30000000", 1), ("4000", 2), ("x", 0)]
)
def test_the_watchdog_hears_as_often_as_systemd_says(
    microseconds: str | None, signs: int, tmp_path: Path
) -> None:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    if microseconds is not None:
        environ["WATCHDOG_USEC"] = microseconds
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(environ["NOTIFY_SOCKET"])
        listener.setblocking(False)
        notifier = Notifier(environ)
        notifier.is_alive()
        time.sleep(0.002)
        notifier.is_alive()
        heard = []
        with contextlib.suppress(BlockingIOError):
            while True:
                heard.append(listener.recv(100))
    assert heard == [b"WATCHDOG=1"] * signs
