"""Definitions of a batch's stacks: behind it those that the centre asks for, or ahead of it all
that have no number, where the centre wants nearly all of them anyway (node_agent.shipper.ahead)."""

import io

from node_agent.errors import SpoolFileError
from node_agent.shipper.client import Client, Response
from node_agent.shipper.definitions import missing, select, split_hashes
from node_agent.shipper.exchange import DEFINITIONS, Postponed, reason, send
from node_agent.shipper.patience import is_failure
from node_agent.shipper.policy import Verdict
from node_agent.shipper.report import Report
from node_agent.shipper.short import ShortForms
from node_agent.spool import BatchEntry, Spool, directives
from wire.codec import SHORT_TYPE, decode, encode
from wire.errors import MalformedError, WireError
from wire.schema import Answer, Definitions


class Definer:
    """Sends definitions from `spool`; `forms` has the numbers that their answers bring."""

    def __init__(self, spool: Spool, report: Report, forms: ShortForms) -> None:
        self._spool, self._report, self._forms = spool, report, forms

    def send_wanted(
        self, client: Client, entry: BatchEntry, wanted: list[bytes], unnumbered: list[bytes]
    ) -> None:
        """Send the definitions of the stacks that the answer to `entry` wants; ask the sampler for
        those not kept. `unnumbered` stacks the batch named by their hash. Raises Postponed."""
        try:
            definitions = self._spool.read_definitions(entry)
            unknown = missing(definitions, wanted)
            if definitions is not None:
                self._note_share(definitions, wanted, unnumbered)
            for message in select(definitions, wanted) if definitions is not None else ():
                response, verdict = self._send(client, message)
                if verdict is not Verdict.DELIVERED:
                    self._spool.dropped[f"definitions_refused_{response.status}"] += 1
                    words = f"definitions refused (HTTP {reason(response)})"
                    self._report.warn("definitions", words)
                self._report.delivered("definitions")
        except (WireError, SpoolFileError):
            self._spool.dropped["definitions_unreadable"] += 1
            unknown = wanted
        for at in range(0, len(unknown), directives.MAX_HASHES):
            part = unknown[at : at + directives.MAX_HASHES]
            self._spool.put_directive(directives.define(part))

    def send_ahead(self, client: Client, entry: BatchEntry, unnumbered: list[bytes]) -> None:
        """Send the definitions of `unnumbered` stacks before the batch that names them, and take
        their numbers from the answer.

        Whatever goes wrong with them is met again behind the batch. Raises Postponed where the
        centre cannot be asked now; the next try is with the batch.
        """
        ahead = self._forms.ahead
        try:
            definitions = self._spool.read_definitions(entry)
            if definitions is None:
                return
            for message in select(definitions, unnumbered):
                response, verdict = self._send(client, message, SHORT_TYPE)
                if verdict is not Verdict.DELIVERED:
                    ahead.failed()
                    words = f"not taken ahead of their batch (HTTP {reason(response)})"
                    self._report.warn("definitions", words)
                    return
                answer = decode(response.body, Answer)
                hashes = sorted(set(split_hashes(message.stack_hashes)))
                if not answer.stack_numbers:
                    raise MalformedError("the answer to definitions has no numbers")
                self._forms.learn_defined(hashes, answer)
                self._report.delivered("definitions")
        except Postponed as postponed:
            ahead.failed()
            if not is_failure(postponed.status):
                raise
        except (WireError, SpoolFileError):
            ahead.failed()

    def _send(
        self, client: Client, message: Definitions, accept: str = ""
    ) -> tuple[Response, Verdict]:
        body = encode(message)
        self._forms.ahead.defined(len(message.stack_lengths) // 2, len(body))
        return send(client, DEFINITIONS, io.BytesIO(body), accept)

    def _note_share(
        self, definitions: Definitions, wanted: list[bytes], unnumbered: list[bytes]
    ) -> None:
        held = set(split_hashes(definitions.stack_hashes)).intersection(unnumbered)
        self._forms.ahead.asked(len(held), len(held.intersection(wanted)))
