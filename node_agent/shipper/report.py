"""What the shipper says about itself: lines on stderr and status/shipper.json."""

import time
from collections import Counter
from typing import Any, TextIO

from node_agent.errors import SpoolError
from node_agent.log import Log, Value
from node_agent.overhead.unit_limits import LimitTeller, read_unit
from node_agent.overhead.usage import MemoryAccount, own_usage
from node_agent.spool import Spool

STATUS_EVERY_S = 9.0  # just less than a batch takes, so that both share a wake-up


class Report:
    """State and counters since the start of this process.

    `state` is "starting", "idle", "delivering", "waiting" (the centre is away or busy) or
    "denied" (somebody has to mend token or URL).
    """

    def __init__(self, spool: Spool, stream: TextIO | None = None) -> None:
        self.state = "starting"
        self._spool = spool
        self._log = Log("ship", stream)
        self._sent: Counter[str] = Counter()
        self._alerts: dict[str, float] = {}
        self._last_delivery_at: float | None = None
        self._last_error: dict[str, Any] | None = None
        self._failing_since: float | None = None
        self._account = MemoryAccount()
        self._limits = LimitTeller("the shipper")
        self._written_at_s = float("-inf")
        self._written_state = ""

    def say(self, event: str, words: str, **fields: Value) -> None:
        """One line for the log."""
        self._log.info(event, words, **fields)

    def warn(self, event: str, words: str, **fields: Value) -> None:
        """One line for the log, of something that is not as it should be."""
        self._log.warning(event, words, **fields)

    def alert(self, words: str) -> None:
        """Something that a person must look at; stays in the status while the process lives."""
        self._alerts[words] = time.time()
        self._log.error("alert", f"ALERT: {words}")

    def delivered(self, what: str) -> None:
        """One of "batches", "duplicates", "definitions", "extracts" arrived."""
        self._sent[what] += 1
        self._last_delivery_at = time.time()

    def whole_again(self, words: str) -> None:
        """The centre refused a batch in its short form; it is sent whole now."""
        self._sent["whole_again"] += 1
        self.warn("short_form", f"a short batch was refused, so it goes whole: {words}")

    def failed(self, state: str, words: str, wait_s: float) -> None:
        """A delivery was postponed; the next try is in `wait_s` seconds."""
        now = time.time()
        self.state = state
        self._failing_since = self._failing_since or now
        self._last_error = {"at": now, "message": words, "next_try_at": now + wait_s}
        self.warn("delivery", f"{words}; kept in the spool", state=state)

    def worked(self) -> None:
        """A delivery was settled (delivered or refused)."""
        self.state = "delivering"
        if self._failing_since is not None:
            failed_s = time.time() - self._failing_since
            self.say("delivery_over", f"delivering again after {failed_s:.0f} s")
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
            self.warn("status", f"cannot write the status: {error}")

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
            "unit": self._unit(),
        }

    def _unit(self) -> dict[str, int] | None:
        """What the unit's limits did (overhead.unit_limits); the sampler tells the centre."""
        if self._account.group is None:
            return None
        state = read_unit(self._account.group)
        for met in self._limits.note(state, time.monotonic()):
            self.warn("unit_limit", met.words, reason=met.reason, times=met.times, limit=met.limit)
        return state._asdict()
