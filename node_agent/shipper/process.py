"""The shipper as a process: signals, waiting, and the loop around `Shipper.step`."""

import os
import select
import signal

from node_agent.config import AgentConfig
from node_agent.errors import ConfigError, SpoolError
from node_agent.shipper.client import Client, read_token
from node_agent.shipper.proxy import choose_proxy
from node_agent.shipper.report import Report
from node_agent.shipper.shipper import Shipper
from node_agent.spool import Spool

_SPOOL_RETRY_S = 5.0


def run_shipper(config: AgentConfig) -> int:
    """Deliver until SIGTERM or SIGINT; return the exit code.

    Raises ConfigError (no URL, no token), CredentialError or SpoolError when it cannot start;
    afterwards every trouble is waited out.
    """
    if config.ship.url is None or config.ship.token_file is None:
        missing = "url" if config.ship.url is None else "token_file"
        raise ConfigError(
            f"{missing} is not set; ship needs to know where to deliver and as whom",
            f"Set {missing} in [ship], FLAMEFLEET_{missing.upper()} or "
            f"--{missing.replace('_', '-')}.",
        )
    read_token(config.ship.token_file)
    proxy = choose_proxy(config.ship.url, config.ship.proxy, os.environ)
    client = Client(
        config.ship.url, config.ship.token_file, config.ship.ca_file, config.ship.timeout_s, proxy
    )
    spool = Spool(config.spool_dir, config.spool_limit_bytes, config.spool_limit_age_s)
    spool.create()
    report = Report(spool)
    stop = _Stop(client)
    shipper = Shipper(spool, client, report, _random)
    through = f" through the proxy {proxy.host}:{proxy.port}" if proxy else ""
    report.say(f"delivering {config.spool_dir} to {client.url}{through}")
    while not stop.requested:
        report.write()
        try:
            wait_s = shipper.step()
        except SpoolError as error:
            report.state = "waiting"
            report.say(str(error))
            wait_s = _SPOOL_RETRY_S
        stop.wait(wait_s)
    report.state = "stopped"
    report.write(force=True)
    client.close()
    return 0


class _Stop:
    """SIGTERM and SIGINT: ends a wait, and a request that is under way (nothing is lost)."""

    def __init__(self, client: Client) -> None:
        self.requested = False
        self._client = client
        self._read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_fd)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request)

    def wait(self, seconds: float) -> None:
        """Wait so long, or until a signal asks to stop."""
        if not self.requested and seconds > 0:
            select.select([self._read_fd], [], [], seconds)

    def _request(self, number: int, frame: object) -> None:
        self.requested = True
        self._client.abort()


def _random() -> float:
    """A random number in 0..1; the `random` module would cost half a megabyte."""
    return int.from_bytes(os.urandom(4), "little") / 0xFFFFFFFF
