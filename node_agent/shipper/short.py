"""What the centre has numbers for, and batches that name it by them (wire.short).

Numbers live in this process only: after a start the first batch goes whole, as it lies in the
spool, and its answer brings them. A centre that does not tell numbers gets whole batches for ever;
one that refuses a short batch, for whatever reason, gets it whole, and numbers are learnt anew.
"""

from array import array
from collections.abc import Collection
from typing import BinaryIO, NamedTuple

from node_agent.generations import GenerationCache
from node_agent.shipper.ahead import Ahead
from node_agent.shipper.definitions import split_hashes
from wire.codec import DEFINITIONS_VERSION, decode, encode
from wire.errors import MalformedError, WireError
from wire.hashes import batch_digest, labels_hash
from wire.schema import Answer, Batch
from wire.short import Numbers, shorten
from wire.validate import check_batch

MAX_STACKS = 16_384  # about 180 bytes each
MAX_LABELS = 1_024
# Larger ones, of a host with tens of thousands of distinct stacks, would take megabytes to read.
MAX_SHORTENED_BYTES = 256 << 10


class Unnumbered(NamedTuple):
    """What a message has no number for, in the order in which its answer brings them."""

    hashes: list[bytes]
    labels: list[bytes]  # wire.hashes.labels_hash


class Contents(NamedTuple):
    """A batch as it lies in the spool; `batch` is None when it has to go as it is, unread."""

    batch: Batch | None
    hashes: frozenset[bytes]
    labels: list[bytes]  # wire.hashes.labels_hash of each series
    of_rows: list[bytes]  # of those that have rows


class Draft(NamedTuple):
    """`short` is the encoded short form, None when the batch has to go whole; then what either
    form has no number for."""

    short: bytes | None
    unnumbered: Unnumbered
    unnumbered_whole: Unnumbered


class ShortForms:
    """The numbers that the centre has told for stacks and sets of labels."""

    def __init__(self, max_stacks: int = MAX_STACKS) -> None:
        self._max_stacks = max_stacks
        self.ahead = Ahead()
        self.forget()

    @property
    def defines_ahead(self) -> bool:
        """Whether definitions go before their batch: the centre takes them, and it pays."""
        return self.packs_definitions and self.ahead.pays

    @property
    def packs_definitions(self) -> bool:
        """Whether the centre takes them in version 2 (wire.packed)."""
        return self._definitions_version >= DEFINITIONS_VERSION and not self.ahead.is_held

    def read(self, whole: BinaryIO) -> Contents:
        """What is in the encoded batch in `whole`."""
        nothing = Contents(None, frozenset(), [], [])
        if whole.seek(0, 2) > MAX_SHORTENED_BYTES:
            return nothing
        whole.seek(0)
        try:
            batch = decode(whole.read(), Batch)
            check_batch(batch)
            used = sorted(set(array("I", batch.series_index)))
            labels = [labels_hash(series.labels) for series in batch.series]
            if used and used[-1] >= len(labels):
                return nothing
        except WireError:  # the centre says what is wrong with it
            return nothing
        hashes = frozenset(split_hashes(batch.stack_hashes))
        return Contents(batch, hashes, labels, [labels[row] for row in used])

    def draft(self, contents: Contents) -> Draft:
        """The short form of a batch."""
        batch, hashes, labels, of_rows = contents
        if batch is None:
            return Draft(None, Unnumbered([], []), Unnumbered([], []))
        numbers = Numbers(_known(self._stacks, hashes), _known(self._labels, labels))
        known = bool(numbers.stacks or numbers.labels)
        return Draft(
            encode(shorten(batch, batch_digest(batch), numbers)) if known else None,
            Unnumbered(
                sorted(hashes - numbers.stacks.keys()),
                [one for one in of_rows if one not in numbers.labels],
            ),
            Unnumbered(sorted(hashes), of_rows),
        )

    def without_number(self, hashes: Collection[bytes]) -> list[bytes]:
        """Those of `hashes` that have none."""
        return sorted(hashes - _known(self._stacks, hashes).keys())

    def learn(self, unnumbered: Unnumbered, answer: Answer) -> None:
        """Take the numbers from the answer to a batch. Raises MalformedError."""
        _take(self._stacks, unnumbered.hashes, answer.stack_numbers)
        _take(self._labels, unnumbered.labels, answer.series_numbers)
        self._definitions_version = answer.definitions
        self.ahead.batch_delivered()

    def learn_defined(self, hashes: list[bytes], answer: Answer) -> None:
        """Take the numbers from the answer to definitions of `hashes`, sorted, that went ahead of
        their batch. Raises MalformedError."""
        _take(self._stacks, hashes, answer.stack_numbers)
        self.ahead.asked(len(hashes), min(max(answer.defined, 0), len(hashes)))

    def forget(self) -> None:
        """Begin without any number."""
        self._definitions_version = 0  # the newest that the centre takes; 0: it does not say
        self.ahead.forget()
        self._stacks: GenerationCache[bytes, int] = GenerationCache(self._max_stacks)
        self._labels: GenerationCache[bytes, int] = GenerationCache(MAX_LABELS)

    def __len__(self) -> int:
        return len(self._stacks)


def _known(table: GenerationCache[bytes, int], keys: Collection[bytes]) -> dict[bytes, int]:
    found = ((key, table.get(key)) for key in keys)
    return {key: number for key, number in found if number is not None}


def _take(table: GenerationCache[bytes, int], keys: list[bytes], column: bytes) -> None:
    """Numbers of `keys`; none at all from a centre that does not tell them."""
    if not column:
        return
    if len(column) != 4 * len(keys):
        raise MalformedError(f"{len(column)} bytes of numbers for {len(keys)} hashes")
    for key, number in zip(keys, array("I", column), strict=True):
        if number:
            table.put(key, number)
