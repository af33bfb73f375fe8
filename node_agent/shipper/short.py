"""What the centre has numbers for, and batches that name it by them (wire.short).

Numbers live in this process only: after a start the first batch goes whole, as it lies in the
spool, and its answer brings them. A centre that does not tell numbers gets whole batches for ever;
one that refuses a short batch, for whatever reason, gets it whole, and numbers are learnt anew.
"""

from array import array
from collections.abc import Collection
from typing import BinaryIO, NamedTuple

from node_agent.generations import GenerationCache
from node_agent.shipper.definitions import split_hashes
from wire.codec import decode, encode
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
        self.forget()

    def draft(self, whole: BinaryIO) -> Draft:
        """The short form of the encoded batch in `whole`."""
        nothing = Unnumbered([], [])
        if whole.seek(0, 2) > MAX_SHORTENED_BYTES:
            return Draft(None, nothing, nothing)
        whole.seek(0)
        try:
            batch = decode(whole.read(), Batch)
            check_batch(batch)
            used = sorted(set(array("I", batch.series_index)))
            labels = [labels_hash(series.labels) for series in batch.series]
            of_rows = [labels[row] for row in used]
        except (WireError, IndexError):  # the centre says what is wrong with it
            return Draft(None, nothing, nothing)
        hashes = set(split_hashes(batch.stack_hashes))
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

    def learn(self, unnumbered: Unnumbered, answer: Answer) -> None:
        """Take the numbers from the answer to what was sent. Raises MalformedError."""
        _take(self._stacks, unnumbered.hashes, answer.stack_numbers)
        _take(self._labels, unnumbered.labels, answer.series_numbers)

    def forget(self) -> None:
        """Begin without any number."""
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
