"""The two questions that `flamefleet up` asks its own aggregator."""

import http.client
import json
from urllib.parse import urlencode

_TIMEOUT_S = 5.0


def answers(host: str, port: int) -> bool:
    """Whether the aggregator is ready (database, broker and migrations)."""
    return _get(host, port, "/readyz") is not None


def samples_since(host: str, port: int, since_s: float) -> int:
    """Samples that the flamegraph of Unix time `since_s` until now holds; 0 while there is none."""
    query = urlencode({"from": f"{since_s:.0f}", "until": "now", "max_nodes": 100})
    body = _get(host, port, f"/api/v1/flamegraph?{query}")
    if body is None:
        return 0
    return int(json.loads(body)["coverage"]["samples"])


def _get(host: str, port: int, path: str) -> bytes | None:
    """The body of a 200, None for any other answer and for none."""
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        return body if answer.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
