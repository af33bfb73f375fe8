"""What the shipper says about itself: lines on stderr and status/shipper.json."""

import sys
import time
from collections import Counter
from typing import Any, TextIO

from node_agent.errors import SpoolError
from node_agent.overhead.usage import MemoryAccount, own_usage
from node_agent.spool import Spool

STATUS_EVERY_S = 9.0  # just less than a batch takes, so that both share a wake-up
REPEAT_EVERY_S = 60.0


class Report:
    """State and counters since the start of this process.

    `state` is "starting", "idle", "delivering", "waiting" (the centre is away or busy) or
    "denied" (somebody has to mend token or URL).
    """

    def __init__(self, spool: Spool, stream: TextIO | None = None) -> None:
        self.state = "starting"
        self._spool = spool
        self._stream = stream if stream is not None else sys.stderr
        self._sent: Counter[str] = Counter()
        self._alerts: dict[str, float] = {}
        self._last_delivery_at: float | None = None
        self._last_error: dict[str, Any] | None = None
        self._failing_since: float | None = None
        self._said: tuple[str, float] = ("", 0.0)
        self._account = MemoryAccount()
        self._written_at_s = float("-inf")
        self._written_state = ""

    def say(self, words: str) -> None:
        """One line for the log; the same line again only once a minute."""
        now_s = time.monotonic()
        if words != self._said[0] or now_s - self._said[1] >= REPEAT_EVERY_S:
            self._said = (words, now_s)
            print(f"flamefleet-agent ship: {words}", file=self._stream, flush=True)

    def alert(self, words: str) -> None:
        """Something that a person must look at; stays in the status while the process lives."""
        self._alerts[words] = time.time()
        self.say(f"ALERT: {words}")

    def delivered(self, what: str) -> None:
        """One of "batches", "duplicates", "definitions", "extracts" arrived."""
        self._sent[what] += 1
        self._last_delivery_at = time.time()

    def failed(self, state: str, words: str, wait_s: float) -> None:
        """A delivery was postponed; the next try is in `wait_s` seconds."""
        now = time.time()
        self.state = state
        self._failing_since = self._failing_since or now
        self._last_error = {"at": now, "message": words, "next_try_at": now + wait_s}
        self.say(f"{words}; kept in the spool")

    def worked(self) -> None:
        """A delivery was settled (delivered or refused)."""
        self.state = "delivering"
        if self._failing_since is not None:
            self.say(f"delivering again after {time.time() - self._failing_since:.0f} s")
            self._failing_since = None

    def write(self, *, force: bool = False) -> None:
        """Write the status file when it is due or the state changed; never fails."""
        now_s = time.monotonic()
        due = now_s - self._written_at_s >= STATUS_EVERY_S
        settled = self.state != self._written_state and self.state in ("waiting", "denied")
        if not (due or settled or force):
            return
        self._written_at_s, self._written_state = now_s, self.state
        try:
            self._spool.write_status("shipper", self.status())
        except SpoolError as error:
            self.say(f"cannot write the status: {error}")

    def status(self) -> dict[str, Any]:
        """The content of status/shipper.json; times are Unix seconds."""
        usage = own_usage(self._account)
        return {
            "at": time.time(),
            "pid": usage.pid,
            "state": self.state,
            "last_delivery_at": self._last_delivery_at,
            "last_error": self._last_error,
            "failing_since": self._failing_since,
            "sent": dict(self._sent),
            "dropped": dict(self._spool.dropped),
            "alerts": [{"at": at, "message": words} for words, at in self._alerts.items()],
            "usage": usage._asdict(),  # for overhead.ShipperUsage(**usage)
        }
