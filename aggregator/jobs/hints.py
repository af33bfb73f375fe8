"""Messages of the broker: a job's name and until when it is of use. Pure.

Whoever can write to the broker can put anything in a queue, and Celery ends for good at much of
that. So nothing of a message that came is handed on: what is not exactly as Celery writes it is
garbage, and of the rest the two values are taken, of which a new message is made. Format: Celery's
message protocol 2 in kombu's envelope of a virtual transport.
"""

import binascii
import json
from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

MAX_BYTES = 64 << 10  # a message of ours has about 900
LONGEST_USE = timedelta(hours=1)
ENCODING, CONTENT_TYPE = "utf-8", "application/json"
_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


class GarbageError(Exception):
    """What came is no message of ours; the reason is one word."""


@dataclass(frozen=True)
class Hint:
    """A job is asked for; after `expires` that is of no use any more."""

    job: str
    expires: datetime | None


def read_hint(item: bytes, jobs: Collection[str], now: datetime) -> Hint:
    """The hint in an item of a queue. Raises GarbageError."""
    if len(item) > MAX_BYTES:
        raise GarbageError("too_large")
    message = _object(_json(item, "not_json"), "not_a_message")
    headers = _object(message.get("headers"), "headers")
    properties = _object(message.get("properties"), "properties")
    if message.get("content-type") != CONTENT_TYPE:
        raise GarbageError("content_type")
    if message.get("content-encoding") != ENCODING:
        raise GarbageError("content_encoding")
    _check_body(message.get("body"), properties.get("body_encoding"))
    job = headers.get("task")
    if not isinstance(job, str) or job not in jobs:
        raise GarbageError("unknown_job")
    return Hint(job, _expires(headers.get("expires"), now))


def write_hint(hint: Hint, queue: str, number: str, told: Mapping[str, Any]) -> bytes:
    """The message that Celery gets in place of the one that came; `number` is its own, and `told`
    are the named arguments of the job."""
    headers = {
        "lang": "py",
        "task": hint.job,
        "id": number,
        "root_id": number,
        "parent_id": None,
        "group": None,
        "eta": None,
        "expires": None if hint.expires is None else hint.expires.isoformat(),
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": "()",
        "kwargsrepr": "{}",
        "origin": "flamefleet",
        "ignore_result": True,
    }
    properties = {
        "correlation_id": number,
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": queue},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": number,
    }
    message = {
        "body": b64encode(json.dumps([[], dict(told), _EMBED]).encode()).decode(),
        "content-encoding": ENCODING,
        "content-type": CONTENT_TYPE,
        "headers": headers,
        "properties": properties,
    }
    return json.dumps(message).encode()


def _check_body(body: object, encoding: object) -> None:
    if encoding != "base64" or not isinstance(body, str):
        raise GarbageError("body")
    try:
        arguments = _json(b64decode(body, validate=True), "body")
    except (binascii.Error, ValueError):
        raise GarbageError("body") from None
    if not isinstance(arguments, list) or len(arguments) != 3:
        raise GarbageError("body")


def _expires(written: object, now: datetime) -> datetime | None:
    if written is None:
        return None
    try:
        if isinstance(written, str):
            return min(datetime.fromisoformat(written), now + LONGEST_USE)
    except (ValueError, TypeError, OverflowError):  # no time, or one without its zone
        pass
    raise GarbageError("expires")


def _json(data: bytes, reason: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise GarbageError(reason) from None


def _object(value: object, reason: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise GarbageError(reason)
    return value
