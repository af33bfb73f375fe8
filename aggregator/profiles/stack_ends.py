"""How stacks ended, by series: the blobs of `node_prof.stack_ends`. Pure.

Format: that of `aggregator.profiles.codec` with other meanings. A section is one (reason, sampling
rate): its first number is the reason's (its place in `REASONS`; 64 and its place in
`PYTHON_REASONS`), its ids are ids of series, its
counts are samples. An empty blob says nothing about any sample. See docs/decisions/0013.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aggregator.profiles.blob_columns import Heads, read_bodies
from aggregator.profiles.codec import Section, decode_blobs, encode_sections
from aggregator.profiles.column_sums import ColumnSums
from aggregator.profiles.grouping import Ints
from wire.schema import PYTHON_ENDS, STACK_ENDS

COMPLETE = "complete"
OTHER = "other"  # words of agents that are newer than this aggregator
# By number; the words of the wire have the numbers of bpf/events.h.
REASONS = (OTHER, *STACK_ENDS)
PYTHON_REASONS = (OTHER, *PYTHON_ENDS)
_PYTHON, _PYTHON_END = 64, 128  # the numbers between are those of Python parts
_NUMBERS = {reason: number for number, reason in enumerate(REASONS)}
_PYTHON_NUMBERS = {reason: number for number, reason in enumerate(PYTHON_REASONS, _PYTHON)}
NOTHING = b""


@dataclass(frozen=True)
class StackEnds:
    """Samples by how the user part of their stack ended; reasons that did not occur are left out.

    Samples without a user part, and those of agents that do not say, are not among them. `python`
    are samples of Python programs by how their Python part ended.
    """

    samples: Mapping[str, int]
    python: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.samples.values())

    @property
    def complete_share(self) -> float | None:
        """0 to 1; None where nothing is known."""
        return _complete_share(self.samples)

    @property
    def python_complete_share(self) -> float | None:
        """The same of Python parts; None where there are none."""
        return _complete_share(self.python)


def _complete_share(samples: Mapping[str, int]) -> float | None:
    total = sum(samples.values())
    return round(samples.get(COMPLETE, 0) / total, 6) if total else None


def known_reason(word: str, reasons: Sequence[str] = REASONS) -> str:
    """`word` of an agent, or OTHER where this aggregator has no such reason."""
    return word if word in reasons else OTHER


def make_ends(
    samples: Mapping[str, Ints],
    rate_millihertz: int,
    series_ids: Sequence[int],
    python: Mapping[str, Ints] | None = None,
) -> list[Section]:
    """The sections of a batch; `samples` has for each known reason a count for each of the ids, as
    has `python` for those of Python parts.

    An id may come twice: its samples are added up.
    """
    ids = np.array(series_ids, np.int64)
    sections = []
    numbered = {_NUMBERS[reason]: counts for reason, counts in samples.items()}
    numbered |= {_PYTHON_NUMBERS[reason]: counts for reason, counts in (python or {}).items()}
    for number, counts in numbered.items():
        seen = np.flatnonzero(counts)
        distinct, place = np.unique(ids[seen], return_inverse=True)
        sums = np.zeros(len(distinct), np.int64)
        np.add.at(sums, place.reshape(-1), counts[seen])
        if len(distinct):
            sections.append(Section(number, rate_millihertz, distinct, sums))
    return sections


def encode_ends(sections: Sequence[Section]) -> bytes:
    """The blob of `sections`, NOTHING where there are none."""
    return encode_sections(sections) if sections else NOTHING


def decode_ends(blobs: Iterable[bytes]) -> list[list[Section] | None]:
    """The sections of each blob; None for one that is damaged."""
    waiting = list(blobs)
    decoded = decode_blobs(blob for blob in waiting if blob)
    return [next(decoded) if blob else [] for blob in waiting]


class EndSums:
    """Sums of samples by reason and series, in memory bounded by what is distinct."""

    def __init__(self) -> None:
        self._sums = ColumnSums()

    def add(self, heads: Heads, left_out: NDArray[np.bool_] | None = None) -> None:
        """Add the blobs with these heads but those `left_out`; damaged ones are marked in
        `heads`."""
        chosen = np.ones(len(heads.blob), bool) if left_out is None else ~left_out[heads.blob]
        for part in read_bodies(heads, np.flatnonzero(chosen)):
            self._sums.add(heads, part)

    def merge(self) -> list[Section]:
        """What was added, one section a (reason, rate)."""
        return self._sums.sections()

    def series_ids(self) -> set[int]:
        """The series that anything is known of."""
        return {series_id for section in self.merge() for series_id in section.ids.tolist()}

    def by(self, key: Callable[[int], str | None]) -> dict[str, StackEnds]:
        """The sums by `key` of a series' id; series whose key is None are left out."""
        sums: dict[str, tuple[dict[str, int], dict[str, int]]] = {}
        for section in self.merge():
            is_python = _PYTHON <= section.series_id < _PYTHON_END
            reasons = PYTHON_REASONS if is_python else REASONS
            number = section.series_id - _PYTHON * is_python
            # A number beyond the list was written by an aggregator newer than this one.
            reason = reasons[number] if number < len(reasons) else OTHER
            for series_id, count in zip(section.ids.tolist(), section.counts.tolist(), strict=True):
                group = key(series_id)
                if group is not None:
                    of_group = sums.setdefault(group, ({}, {}))[is_python]
                    of_group[reason] = of_group.get(reason, 0) + count
        return {group: StackEnds(*of_group) for group, of_group in sums.items()}

    def of(self, only: Callable[[int], bool] | None) -> StackEnds:
        """The sums of the series that `only` chooses; None takes all."""
        chosen = self.by(lambda series_id: "" if only is None or only(series_id) else None)
        return chosen.get("", StackEnds({}))
