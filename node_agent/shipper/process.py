"""The shipper as a process: signals, waiting, and the loop around `Shipper.step`."""

import contextlib
import gc
import os
import select
import signal
import time

from node_agent.config import AgentConfig
from node_agent.errors import ConfigError, SpoolError
from node_agent.heap import give_back
from node_agent.shipper.client import Client, read_token
from node_agent.shipper.proxy import choose_proxy
from node_agent.shipper.report import Report
from node_agent.shipper.shipper import POLL_S, Shipper
from node_agent.spool import Spool

_SPOOL_RETRY_S = 5.0
GIVE_BACK_EVERY_S = 30.0
# Where the spool's folders tell what is new. Every wake-up of a cold process costs about 0.2 ms.
_WATCHED_S = 15.0


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
    alarm = _Alarm(client)
    idle_s = _WATCHED_S if spool.watch() else POLL_S
    shipper = Shipper(spool, client, report, _random, idle_s)
    through = f" through the proxy {proxy.host}:{proxy.port}" if proxy else ""
    report.say("start", f"delivering {config.spool_dir} to {client.url}{through}")
    gc.collect()
    gc.freeze()
    give_back_at_s = 0.0
    while not alarm.is_stopped:
        report.write()
        if report.state == "idle" and time.monotonic() > give_back_at_s:
            give_back_at_s = time.monotonic() + GIVE_BACK_EVERY_S
            give_back()
        try:
            wait_s = shipper.step()
        except SpoolError as error:
            report.state = "waiting"
            report.warn("spool", str(error))
            wait_s = _SPOOL_RETRY_S
        alarm.wait(wait_s, for_news=report.state == "idle")
    report.state = "stopped"
    report.write(force=True)
    client.close()
    return 0


class _Alarm:
    """SIGTERM and SIGINT end a wait, and a request that is under way (nothing is lost); SIGIO, the
    spool's word that something new is there, ends a wait for it."""

    def __init__(self, client: Client) -> None:
        self.is_stopped = False
        self._client = client
        self._read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGIO, lambda number, frame: None)

    def wait(self, seconds: float, *, for_news: bool) -> None:
        """Wait so long, or until a signal asks to stop, or with `for_news` until there are some
        since the last wait."""
        end_s = time.monotonic() + seconds
        while not self.is_stopped and (left_s := end_s - time.monotonic()) > 0:
            if select.select([self._read_fd], [], [], left_s)[0]:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._read_fd, 4096)
                if for_news:
                    return

    def _stop(self, number: int, frame: object) -> None:
        self.is_stopped = True
        self._client.abort()


def _random() -> float:
    """A random number in 0..1; the `random` module would cost half a megabyte."""
    return int.from_bytes(os.urandom(4), "little") / 0xFFFFFFFF
