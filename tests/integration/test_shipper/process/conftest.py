"""A real `flamefleet-agent ship` beside the peer; TLS and a proxy between them."""

import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from node_agent.spool import Spool


class Process:
    """A real `flamefleet-agent ship`."""

    def __init__(self, *arguments: str) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-m", "node_agent", "ship", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])},
        )

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Signal it; exit code and what it said."""
        self.child.send_signal(number)
        return self.ended()

    def ended(self) -> tuple[int, str]:
        """Wait for its end; exit code and what it said."""
        _, said = self.child.communicate(timeout=600)
        return self.child.returncode, said


@pytest.fixture
def ship(spool: Spool, token_file: Path) -> Iterator[Callable[..., Process]]:
    """Start a shipper process for the spool, delivering to a URL."""
    started: list[Process] = []

    def start(url: str, *arguments: str) -> Process:
        process = Process(
            *("--spool-dir", str(spool.root), "--token-file", str(token_file)),
            *("--url", url, "--timeout", "60", *arguments),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.child.poll() is None:
            process.stop(signal.SIGKILL)


@pytest.fixture
def certificate(tmp_path) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one file."""
    path = tmp_path / "server.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *(
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=peer",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
            ),
            *("-keyout", str(path), "-out", str(tmp_path / "ca.pem")),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + (tmp_path / "ca.pem").read_text())
    return path


@pytest.fixture
def tls_peer(peer):
    """Makes the peer speak TLS with a certificate; its URL."""

    def secure(certificate: Path) -> str:
        if peer.url.startswith("http:"):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            peer.server.socket = context.wrap_socket(peer.server.socket, server_side=True)
            peer.url = peer.url.replace("http:", "https:")
        return peer.url

    return secure


@pytest.fixture
def forward_proxy(tmp_path: Path, wait_until: Callable[..., Any]) -> Iterator[Callable[..., str]]:
    """Starts a real forward proxy on loopback; its host and port. Its log is `proxy.log`."""
    pytest.importorskip("proxy", reason="needs the package proxy.py")
    running: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> str:
        port_file = tmp_path / "proxy.port"
        log = tmp_path / "proxy.log"
        command = [sys.executable, "-m", "proxy", "--hostname", "127.0.0.1", "--port", "0"]
        command += ["--port-file", str(port_file), "--num-workers", "1", "--num-acceptors", "1"]
        command += ["--threaded", "--log-file", str(log), "--data-dir", str(tmp_path / "proxy")]
        running.append(
            subprocess.Popen(
                [*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        )

        def says_its_port() -> bool:
            assert running[-1].poll() is None, log.read_text()
            return port_file.exists() and bool(port_file.read_text().strip())

        wait_until(says_its_port, "the start of the proxy")
        return f"127.0.0.1:{port_file.read_text().split()[0]}"

    yield start
    for process in running:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
