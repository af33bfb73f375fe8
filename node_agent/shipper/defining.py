"""Definitions of a batch's stacks: behind it those that the centre asks for, or ahead of it all
that have no number, where the centre wants nearly all of them anyway (node_agent.shipper.ahead)."""

import io

from node_agent.errors import SpoolFileError
from node_agent.shipper.client import Client, Response
from node_agent.shipper.definitions import encode_stacks, missing, select, split_hashes
from node_agent.shipper.exchange import DEFINITIONS, Postponed, reason, send
from node_agent.shipper.patience import is_failure
from node_agent.shipper.policy import Verdict
from node_agent.shipper.report import Report
from node_agent.shipper.short import ShortForms
from node_agent.spool import BatchEntry, Spool, directives
from wire.codec import decode
from wire.errors import MalformedError, WireError
from wire.packed import Stack
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
                self._send_chosen(client, definitions, wanted)
        except Postponed as postponed:
            if is_failure(postponed.status):
                self._forms.ahead.failed()
            raise
        except (WireError, SpoolFileError):
            self._spool.dropped["definitions_unreadable"] += 1
            unknown = wanted
        for at in range(0, len(unknown), directives.MAX_HASHES):
            part = unknown[at : at + directives.MAX_HASHES]
            self._spool.put_directive(directives.define(part))

    def _send_chosen(self, client: Client, definitions: Definitions, wanted: list[bytes]) -> None:
        for stacks in select(definitions, wanted):
            response, verdict = self._send(client, definitions, stacks)
            if verdict is Verdict.REFUSED and self._forms.packs_definitions:
                self._forms.ahead.failed()  # in version 1, then
                response, verdict = self._send(client, definitions, stacks)
            if verdict is Verdict.DELIVERED:
                self._read_answer(client, response)
                self._report.delivered("definitions")
                continue
            self._spool.dropped[f"definitions_refused_{response.status}"] += 1
            words = f"definitions refused (HTTP {reason(response)})"
            self._report.warn("definitions", words)

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
            for stacks in select(definitions, unnumbered):
                response, verdict = self._send(client, definitions, stacks, ahead=True)
                if verdict is not Verdict.DELIVERED:
                    ahead.failed()
                    words = f"not taken ahead of their batch (HTTP {reason(response)})"
                    self._report.warn("definitions", words)
                    return
                answer = decode(response.body, Answer)
                if not answer.stack_numbers:
                    raise MalformedError("the answer to definitions has no numbers")
                self._forms.learn_defined(sorted({stack.hash for stack in stacks}), answer)
                self._note_refused(answer)
                self._report.delivered("definitions")
        except Postponed as postponed:
            if not is_failure(postponed.status):
                ahead.failed(held_batches=1)  # it is busy or away; but the batch is next
                raise
            ahead.failed()
        except (WireError, SpoolFileError):
            ahead.failed()

    def _send(
        self, client: Client, definitions: Definitions, stacks: list[Stack], *, ahead: bool = False
    ) -> tuple[Response, Verdict]:
        packed = self._forms.packs_definitions
        body = encode_stacks(definitions, stacks, packed=packed, ahead=ahead)
        self._forms.ahead.defined(len(stacks), len(body))
        return send(client, DEFINITIONS, io.BytesIO(body))

    def _read_answer(self, client: Client, response: Response) -> None:
        """Definitions behind their batch are answered only where some stacks are refused."""
        if not response.body:
            return
        try:
            self._note_refused(decode(response.body, Answer))
        except WireError as error:
            raise Postponed(
                "waiting", f"{client.url} answered what no aggregator says: {error}"
            ) from error

    def _note_refused(self, answer: Answer) -> None:
        """Stacks of a message that is taken otherwise; the centre does not want them again."""
        if not answer.refused:
            return
        self._spool.dropped["stacks_refused"] += sum(answer.refused.values())
        counts = ", ".join(f"{reason} {count}" for reason, count in answer.refused.items())
        self._report.warn("definitions", f"the centre refused stacks: {counts[:200]}")

    def _note_share(
        self, definitions: Definitions, wanted: list[bytes], unnumbered: list[bytes]
    ) -> None:
        held = set(split_hashes(definitions.stack_hashes)).intersection(unnumbered)
        self._forms.ahead.asked(len(held), len(held.intersection(wanted)))
