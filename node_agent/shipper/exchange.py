"""One message sent, and what its answer settles."""

from typing import BinaryIO

import msgspec

from node_agent.shipper import policy
from node_agent.shipper.client import Client, Response
from node_agent.shipper.errors import CredentialError, DeliveryError
from node_agent.shipper.policy import Verdict
from wire.sentences import sentences

BATCHES = "/api/v1/batches"
DEFINITIONS = "/api/v1/definitions"
SYMBOLS = "/api/v1/symbols"
_MOST_CHARACTERS = 400


class _Error(msgspec.Struct):
    message: str
    remedy: str = ""


class _Refusal(msgspec.Struct):
    """How the centre says no."""

    error: _Error


class Postponed(Exception):  # no error: it is tried again
    """The centre cannot take it now; what was being delivered stays in the spool."""

    def __init__(
        self,
        state: str,
        words: str,
        retry_after: str | None = None,
        status: int = 0,
        path: str = "",
    ) -> None:
        super().__init__(words)
        self.state, self.retry_after = state, retry_after
        self.status, self.path = status, path  # 0: no answer at all


def send(client: Client, path: str, body: BinaryIO, accept: str = "") -> tuple[Response, Verdict]:
    """An answer that settles it (delivered, refused, cloned). Raises Postponed otherwise."""
    try:
        response = client.post(path, body, accept)
    except DeliveryError as error:
        raise Postponed("waiting", str(error)) from error
    except CredentialError as error:
        raise Postponed("denied", str(error)) from error
    verdict = policy.judge(response.status)
    if verdict in (Verdict.DELIVERED, Verdict.REFUSED, Verdict.CLONED):
        return response, verdict
    state = "waiting" if verdict is Verdict.LATER else "denied"
    words = f"{client.url}{path}: {verdict.value} (HTTP {reason(response)})"
    raise Postponed(state, words, response.retry_after, response.status, path)


def reason(response: Response) -> str:
    """Status and the centre's words, or the start of another's body, as one printable line."""
    text = _words(response.body)[:_MOST_CHARACTERS]
    return f"{response.status} {''.join(c if c.isprintable() else ' ' for c in text)}".strip()


def _words(body: bytes) -> str:
    try:
        error = msgspec.json.decode(body, type=_Refusal).error
    except (msgspec.MsgspecError, RecursionError):
        return body[: 4 * _MOST_CHARACTERS].decode("utf-8", "replace")
    return sentences(error.message, error.remedy)
