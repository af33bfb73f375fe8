"""Short digests of the last batches of a run, so that a clone that lags behind is seen. Pure.

Packed: `SHORT_BYTES` of the digest a batch, the newest last, one entry a sequence number up to the
run's highest; zeros where a batch never came. `KEPT` are 240 bytes a run: ten minutes at 10 s a
batch. A collision makes a clone's batch look like a duplicate, once in 2**32.
"""

KEPT = 60
SHORT_BYTES = 4
_UNKNOWN = bytes(SHORT_BYTES)


def remember(digests: bytes, gap: int, digest: bytes) -> bytes:
    """`digests` with that of the next batch, before which `gap` batches never came."""
    missing = _UNKNOWN * min(gap, KEPT)
    return (digests + missing + _short(digest))[-KEPT * SHORT_BYTES :]


def recall(digests: bytes, behind: int, newest: bytes) -> bytes | None:
    """The short digest of the batch `behind` sequence numbers before the newest; None: not known.

    `newest` is the whole digest of the newest batch. Where it is not the last of `digests`, an
    aggregator of a release that doesn't keep them has stored batches since: they say nothing.
    """
    end = len(digests) - behind * SHORT_BYTES
    if not digests or digests[-SHORT_BYTES:] != _short(newest) or end < SHORT_BYTES:
        return None
    found = digests[end - SHORT_BYTES : end]
    return None if found == _UNKNOWN else found


def differs(short: bytes, digest: bytes) -> bool:
    """Whether a batch with `digest` is another one than that of `short`."""
    return short != _short(digest)


def _short(digest: bytes) -> bytes:
    short = digest[:SHORT_BYTES]
    return short if short != _UNKNOWN else b"\1" * SHORT_BYTES
