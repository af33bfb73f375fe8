"""The kernel tells the shipper that there is something to deliver."""

import signal
from collections.abc import Iterator

import pytest

from node_agent.spool import Spool

PATIENCE_S = 10.0


@pytest.fixture
def told(spool: Spool) -> Iterator[None]:
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
    assert spool.watch()
    yield
    while signal.sigtimedwait({signal.SIGIO}, 0):
        pass
    signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def is_told(patience_s: float = PATIENCE_S) -> bool:
    return signal.sigtimedwait({signal.SIGIO}, patience_s) is not None


@pytest.mark.usefixtures("told")
def test_of_every_batch_and_extract(spool, make_batch):
    for sequence in (1, 2):
        spool.put_batch(make_batch(sequence), None)
        assert is_told()
        assert len(spool.pending()) == sequence  # listing the folder does not end it
    spool.put_extract(b"symbols", b"\1" * 20, 1)
    assert is_told()


@pytest.mark.usefixtures("told")
def test_of_what_another_object_puts(spool, make_batch):
    other = Spool(spool.root)
    other.create()
    other.put_batch(make_batch(), None)
    assert is_told()


@pytest.mark.usefixtures("told")
def test_not_of_what_is_no_news(spool, make_batch):
    spool.put_batch(make_batch(), None)
    assert is_told()
    spool.write_status("sampler", {"pid": 1})
    for entry in spool.pending():
        spool.done(entry)
    assert not is_told(0)
