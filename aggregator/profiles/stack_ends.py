"""How stacks ended, by series: the blobs of `node_prof.stack_ends`. Pure.

Format: that of `aggregator.profiles.codec` with other meanings. A section is one (reason, sampling
rate): its first number is the reason's (its place in `REASONS`), its ids are ids of series, its
counts are samples. An empty blob says nothing about any sample. See docs/decisions/0013.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aggregator.profiles.codec import Section, decode_blobs, encode_sections, merge_sections
from aggregator.profiles.grouping import Ints
from wire.schema import STACK_ENDS

COMPLETE = "complete"
OTHER = "other"  # words of agents that are newer than this aggregator
# By number; the words of the wire have the numbers of bpf/events.h.
REASONS = (OTHER, *STACK_ENDS)
_NUMBERS = {reason: number for number, reason in enumerate(REASONS)}
NOTHING = b""
_MERGE_AT_ROWS = 1_000_000


@dataclass(frozen=True)
class StackEnds:
    """Samples by how the user part of their stack ended; reasons that did not occur are left out.

    Samples without a user part, and those of agents that do not say, are not among them.
    """

    samples: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.samples.values())

    @property
    def complete_share(self) -> float | None:
        """0 to 1; None where nothing is known."""
        if not self.total:
            return None
        return round(self.samples.get(COMPLETE, 0) / self.total, 6)


def known_reason(word: str) -> str:
    """`word` of an agent, or OTHER where this aggregator has no such reason."""
    return word if word in _NUMBERS else OTHER


def make_ends(
    samples: Mapping[str, Ints], rate_millihertz: int, series_ids: Sequence[int]
) -> list[Section]:
    """The sections of a batch; `samples` has for each known reason a count for each of the ids.

    An id may come twice: its samples are added up.
    """
    ids = np.array(series_ids, np.int64)
    sections = []
    for reason, counts in samples.items():
        seen = np.flatnonzero(counts)
        distinct, place = np.unique(ids[seen], return_inverse=True)
        sums = np.zeros(len(distinct), np.int64)
        np.add.at(sums, place.reshape(-1), counts[seen])
        if len(distinct):
            sections.append(Section(_NUMBERS[reason], rate_millihertz, distinct, sums))
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
        self._sections: list[Section] = []
        self._rows = 0

    def add(self, sections: Iterable[Section]) -> None:
        """Add the sections of one blob."""
        for section in sections:
            self._sections.append(section)
            self._rows += len(section.ids)
        if self._rows > _MERGE_AT_ROWS:
            self.merge()

    def merge(self) -> list[Section]:
        """What was added, one section a (reason, rate)."""
        self._sections = merge_sections(self._sections)
        self._rows = 0
        return self._sections

    def series_ids(self) -> set[int]:
        """The series that anything is known of."""
        return {series_id for section in self.merge() for series_id in section.ids.tolist()}

    def by(self, key: Callable[[int], str | None]) -> dict[str, StackEnds]:
        """The sums by `key` of a series' id; series whose key is None are left out."""
        sums: dict[str, dict[str, int]] = {}
        for section in self.merge():
            # A number beyond the list was written by an aggregator newer than this one.
            reason = REASONS[section.series_id] if section.series_id < len(REASONS) else OTHER
            for series_id, count in zip(section.ids.tolist(), section.counts.tolist(), strict=True):
                group = key(series_id)
                if group is not None:
                    of_group = sums.setdefault(group, {})
                    of_group[reason] = of_group.get(reason, 0) + count
        return {group: StackEnds(of_group) for group, of_group in sums.items()}

    def of(self, only: Callable[[int], bool] | None) -> StackEnds:
        """The sums of the series that `only` chooses; None takes all."""
        chosen = self.by(lambda series_id: "" if only is None or only(series_id) else None)
        return chosen.get("", StackEnds({}))
