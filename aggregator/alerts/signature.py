"""Signatures of webhooks: Standard Webhooks, symmetric (`v1`).

Specification: github.com/standard-webhooks/standard-webhooks, "Signature scheme". Pure.
"""

import hmac
from base64 import b64decode, b64encode

from aggregator.alerts.errors import SecretError

_PREFIX = "whsec_"


def secret_key(secret: str) -> bytes:
    """Key bytes of a secret: base64 after `whsec_`, else the text itself. Raises SecretError."""
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return b64decode(secret[len(_PREFIX) :], validate=True)
    except ValueError as error:
        raise SecretError(f"a webhook's secret is not base64 after {_PREFIX}") from error


def signed_headers(secret: str, webhook_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The three headers of a message; without a secret there is no signature among them."""
    headers = {"webhook-id": webhook_id, "webhook-timestamp": str(timestamp_s)}
    if secret:
        content = b".".join((webhook_id.encode(), str(timestamp_s).encode(), body))
        digest = hmac.digest(secret_key(secret), content, "sha256")
        headers["webhook-signature"] = "v1," + b64encode(digest).decode()
    return headers
