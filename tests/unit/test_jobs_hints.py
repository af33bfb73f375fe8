"""What of a message is taken, and what is written in its place."""

import json
from base64 import b64decode
from datetime import datetime, timedelta, timezone

import pytest

from aggregator.jobs.hints import LONGEST_USE, GarbageError, Hint, read_hint, write_hint

NOW = datetime(2026, 5, 1, tzinfo=timezone.utc)
JOBS = {"a.job"}


def test_what_is_written_is_read_and_tells_the_job():
    hint = Hint("a.job", NOW + timedelta(seconds=10))
    item = write_hint(hint, "queue", "7", {"dropped": {"body": 2}})
    assert read_hint(item, JOBS, NOW) == hint
    assert json.loads(b64decode(json.loads(item)["body"]))[1] == {"dropped": {"body": 2}}


@pytest.mark.parametrize("expires", ["9999-12-31T23:59:59-14:00", "2027-01-01T00:00:00+00:00"])
def test_no_message_is_of_use_for_long(expires):
    item = json.loads(write_hint(Hint("a.job", None), "queue", "7", {}))
    item["headers"]["expires"] = expires
    assert read_hint(json.dumps(item).encode(), JOBS, NOW).expires == NOW + LONGEST_USE


@pytest.mark.parametrize("expires", ["", "soon", 7, [], "2026-05-01T00:00:00", "9" * 400])
def test_a_time_that_is_none_is_garbage(expires):
    item = json.loads(write_hint(Hint("a.job", None), "queue", "7", {}))
    item["headers"]["expires"] = expires
    with pytest.raises(GarbageError, match="expires"):
        read_hint(json.dumps(item).encode(), JOBS, NOW)


@pytest.mark.parametrize("item", [b"", b"null", b"7", b'"x"', b"\xff", b"[" * 60_000, b"{}"])
def test_anything_else_is_garbage(item):
    with pytest.raises(GarbageError):
        read_hint(item, JOBS, NOW)
