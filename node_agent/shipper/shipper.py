"""One delivery after the other: which thing next, what its answer means, how long to wait.

A batch is removed from the spool only after the centre has said that it is stored (or is a
duplicate of one that is) and has been given the definitions that it wants. So a shipper killed
anywhere sends the same batch again, which the centre recognises by (node, run, sequence).
"""

import io
import time
from collections import deque
from collections.abc import Callable
from typing import BinaryIO

from node_agent.errors import SpoolFileError
from node_agent.shipper import policy
from node_agent.shipper.client import Client, Response
from node_agent.shipper.defining import Definer
from node_agent.shipper.definitions import split_hashes
from node_agent.shipper.exchange import BATCHES, DEFINITIONS, SYMBOLS, Postponed, reason, send
from node_agent.shipper.orders import pass_on
from node_agent.shipper.patience import Patience, is_failure
from node_agent.shipper.policy import Verdict
from node_agent.shipper.report import Report
from node_agent.shipper.short import ShortForms, Unnumbered
from node_agent.spool import BatchEntry, ExtractEntry, Spool
from wire.codec import SHORT_TYPE, decode
from wire.errors import WireError
from wire.schema import Answer

POLL_S = 2.0  # how often an idle shipper looks for something new


class Shipper:
    """Delivers `spool` through `client`. `random` returns a number in 0..1; `idle_s` is the time
    to wait when there is nothing to deliver."""

    def __init__(
        self,
        spool: Spool,
        client: Client,
        report: Report,
        random: Callable[[], float],
        idle_s: float = POLL_S,
        patience: Patience | None = None,
    ) -> None:
        self.spool, self.client, self.report = spool, client, report
        self._random, self._idle_s = random, idle_s
        self._patience = patience or Patience()
        self._queue: deque[BatchEntry] = deque()
        self._extracts: deque[ExtractEntry] = deque()
        self._extracts_at_s = 0.0  # not before
        self._failures = 0
        self._forms = ShortForms()
        self._definer = Definer(spool, report, self._forms)

    def step(self) -> float:
        """Deliver the next thing, if there is one; return the seconds to wait before the next
        step. Raises SpoolError when the spool cannot be used."""
        started_s = time.monotonic()
        entry = self._next()
        if entry is None:
            self.report.state = "idle"
            return self._idle_s
        try:
            if isinstance(entry, BatchEntry):
                self._deliver_batch(entry)
            else:
                self._deliver_extract(entry)
        except Postponed as postponed:
            if self._is_hopeless(entry, postponed):
                self._set_aside(entry, postponed)
                self._forget(entry)
                return 0.0
            if isinstance(entry, ExtractEntry) and postponed.status == policy.TOO_MUCH:
                # Of symbols, not of batches: these go on.
                wait_s = policy.parse_retry_after(postponed.retry_after, time.time())
                wait_s = policy.delay_s(1, wait_s, self._random())
                self._extracts_at_s = time.monotonic() + wait_s
                self.report.failed(postponed.state, str(postponed), wait_s)
                return 0.0
            self._failures += 1
            wait_s = policy.parse_retry_after(postponed.retry_after, time.time())
            wait_s = policy.delay_s(self._failures, wait_s, self._random())
            self.report.failed(postponed.state, str(postponed), wait_s)
            return wait_s
        self._forget(entry)
        self._failures = 0
        self.report.worked()
        if not self._queue and not self._extracts:
            return 0.0
        return policy.replay_pause_s(time.monotonic() - started_s)

    def _is_hopeless(self, entry: BatchEntry | ExtractEntry, postponed: Postponed) -> bool:
        """Whether it is time to take the fault for the entry's and not the centre's."""
        return (
            is_failure(postponed.status)
            and self.client.is_ready()
            and self._patience.failed(entry.stem, time.monotonic())
        )

    def _set_aside(self, entry: BatchEntry | ExtractEntry, postponed: Postponed) -> None:
        """Not an alert of the report: those stay, and this may come once for each of many."""
        words = f"always failed, though the centre is ready: {postponed}"
        if postponed.path == DEFINITIONS:  # of a batch that is stored
            self.spool.dropped[f"definitions_refused_{postponed.status}"] += 1
            self.report.warn("definitions", f"definitions of {entry.stem} given up: {words}")
            self.spool.done(entry)
        else:
            self._refuse(entry, f"refused_{postponed.status}", words)

    def _next(self) -> BatchEntry | ExtractEntry | None:
        """Batches come first; extracts wait until there is none."""
        if not self._queue and not self._extracts:
            self._queue.extend(self.spool.pending())
            self._extracts.extend(self.spool.pending_extracts())
        elif not self._queue:
            self._queue.extend(self.spool.pending())
        if self._queue:
            return self._queue[0]
        if self._extracts and time.monotonic() >= self._extracts_at_s:
            return self._extracts[0]
        return None

    def _forget(self, entry: BatchEntry | ExtractEntry) -> None:
        queue = self._queue if isinstance(entry, BatchEntry) else self._extracts
        queue.popleft()

    def _deliver_batch(self, entry: BatchEntry) -> None:
        sent = self._post_stored(entry)
        if sent is None:
            return
        response, unnumbered = sent
        try:
            answer = decode(response.body, Answer)
            wanted = split_hashes(answer.want)
            self._forms.learn(unnumbered, answer)
        except WireError as error:
            raise Postponed(
                "waiting", f"{self.client.url} answered what no aggregator says: {error}"
            ) from error
        pass_on(answer, self.spool)
        if wanted:
            self._definer.send_wanted(self.client, entry, wanted, unnumbered.hashes)
        self.spool.done(entry)
        self._patience.delivered()
        self.report.delivered("duplicates" if answer.status == "duplicate" else "batches")

    def _deliver_extract(self, entry: ExtractEntry) -> None:
        if self._post_stored(entry) is not None:
            self.spool.done(entry)
            self._patience.delivered()
            self.report.delivered("extracts")

    def _post_stored(self, entry: BatchEntry | ExtractEntry) -> tuple[Response, Unnumbered] | None:
        """Send the file of `entry`; None when it is gone or was refused for good."""
        try:
            if isinstance(entry, BatchEntry):
                file = self.spool.open_batch(entry)
            else:
                file = self.spool.open_extract(entry)
        except SpoolFileError as error:
            self._refuse(entry, "refused_unreadable", str(error))
            return None
        if file is None:
            return None
        with file:
            if isinstance(entry, BatchEntry):
                response, verdict, unnumbered = self._post_batch(entry, file)
            else:
                response, verdict = send(self.client, SYMBOLS, file)
                unnumbered = Unnumbered([], [])
        if verdict is Verdict.DELIVERED:
            return response, unnumbered
        self._refuse(entry, f"refused_{response.status}", reason(response))
        if verdict is Verdict.CLONED:
            self.report.alert(
                "cloned node: the centre has another batch of this run and sequence; "
                "two agents send with the same token or the same spool"
            )
        return None

    def _post_batch(
        self, entry: BatchEntry, file: BinaryIO
    ) -> tuple[Response, Verdict, Unnumbered]:
        """Send the batch in its short form, or whole where that is not known or refused."""
        contents = self._forms.read(file)
        if self._forms.defines_ahead and (new := self._forms.without_number(contents.hashes)):
            self._definer.send_ahead(self.client, entry, new)
        draft = self._forms.draft(contents)
        if draft.short is not None:
            try:
                response, verdict = send(self.client, BATCHES, io.BytesIO(draft.short))
            except Postponed as postponed:
                if is_failure(postponed.status):
                    self._forms.forget()  # the next try is with the whole batch
                raise
            if verdict is not Verdict.REFUSED:
                return response, verdict, draft.unnumbered
            self._forms.forget()
            self.report.whole_again(reason(response))
        return *send(self.client, BATCHES, file, SHORT_TYPE), draft.unnumbered_whole

    def _refuse(self, entry: BatchEntry | ExtractEntry, reason: str, words: str) -> None:
        self.spool.refuse(entry, reason)
        self.report.warn("refused", f"{entry.stem} refused for good: {words}", reason=reason)
