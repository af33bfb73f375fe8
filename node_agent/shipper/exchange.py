"""One message sent, and what its answer settles."""

from typing import BinaryIO

from node_agent.shipper import policy
from node_agent.shipper.client import Client, Response
from node_agent.shipper.errors import CredentialError, DeliveryError
from node_agent.shipper.policy import Verdict

BATCHES = "/api/v1/batches"
DEFINITIONS = "/api/v1/definitions"
SYMBOLS = "/api/v1/symbols"


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
    """Status and the start of the body, as one printable line."""
    text = response.body[:200].decode("utf-8", "replace")
    return f"{response.status} {''.join(c if c.isprintable() else ' ' for c in text)}".strip()
