"""Adding up the blobs that answer a question, and saying how much they cover. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from aggregator.profiles.codec import Section, decode_blobs, merge_sections
from aggregator.profiles.grouping import Ints
from aggregator.profiles.reading import StoredRow
from aggregator.profiles.span import Span
from aggregator.profiles.stack_ends import EndSums, StackEnds, decode_ends

_MERGE_AT_ROWS = 4_000_000


@dataclass(frozen=True)
class Totals:
    """How much was observed. `samples`, `weight_ns` and `stack_ends` are of the chosen series only.

    `lost` and `all_samples` are of whole hosts: which series a lost sample had is not known.
    """

    node_ids: frozenset[int]
    covered_ms: int
    samples: int
    all_samples: int
    lost: int
    weight_ns: int
    damaged_blobs: int
    stack_ends: StackEnds

    @property
    def effective_rate_hz(self) -> float:
        """Samples taken for each second of CPU time: the sampling rate less what was lost."""
        if not self.weight_ns:
            return 0.0
        kept = self.all_samples / (self.all_samples + self.lost) if self.all_samples else 0.0
        return self.samples * 1e9 / self.weight_ns * kept


@dataclass(frozen=True, eq=False)
class Stacks:
    """What a question found: `weights[i]` ns and `counts[i]` samples of stack `stack_ids[i]`.

    `service_index` indexes `services`; a (service, stack) may come once for each sampling rate.
    `cores` is the sum of what each host used while it was covered, never more than it has; `cpus`
    is what all of them have, None where one has not told.
    """

    span: Span
    services: list[str]
    service_index: Ints
    stack_ids: Ints
    counts: Ints
    weights: Ints
    totals: Totals
    host_names: list[str]
    cores: float
    cpus: int | None


class DecodedRow(NamedTuple):
    """A row with the sections of its blobs, None where one is damaged."""

    row: StoredRow
    sections: list[Section] | None
    stack_ends: list[Section] | None


def decode_rows(rows: Sequence[StoredRow]) -> list[DecodedRow]:
    """The rows with what is in their blobs."""
    data = decode_blobs(row.data for row in rows)
    ends = decode_ends(row.stack_ends for row in rows)
    return [DecodedRow(*columns) for columns in zip(rows, data, ends, strict=True)]


@dataclass
class _Node:
    """What one host's rows cover, and how much of it was chosen."""

    covered_ms: int = 0
    chosen_ns: float = 0.0
    samples: int = 0
    lost: int = 0


class SampleSums:
    """Sums of samples by (series, rate) and stack, in memory bounded by what is distinct.

    `only` chooses series by id; None takes all. Hosts with a chosen sample are covered with all of
    their rows, so coverage does not depend on the tier; without `only` every host is that was observed
    at all.
    """

    def __init__(self, only: Callable[[int], bool] | None = None) -> None:
        self._only = only
        self._sections: list[Section] = []
        self._rows = 0
        self._nodes: dict[int, _Node] = {}
        self._chosen_nodes: set[int] = set()
        self._damaged = 0
        self._ends = EndSums()

    def add(
        self,
        row: StoredRow,
        sections: Sequence[Section] | None,
        stack_ends: Sequence[Section] | None = (),
    ) -> None:
        """Add one row; without sections (a damaged blob) its samples count as lost."""
        node = self._nodes.setdefault(row.node_id, _Node())
        node.covered_ms += row.covered_ms
        node.lost += row.lost
        if sections is None:
            self._damaged += 1
            node.lost += row.samples
            sections = ()
        else:
            node.samples += row.samples
            self._damaged += stack_ends is None
            self._ends.add(stack_ends or ())
        if self._only is not None:
            sections = [section for section in sections if self._only(section.series_id)]
        if sections or (self._only is None and row.covered_ms):
            self._chosen_nodes.add(row.node_id)
        node.chosen_ns += sum(
            int(section.counts.sum()) * (10**12 / section.rate_millihertz) for section in sections
        )
        self._sections += sections
        self._rows += sum(len(section.ids) for section in sections)
        if self._rows > _MERGE_AT_ROWS:
            self._merge()
            # What is left is distinct: merging again pays only after as much has come anew.
            self._rows //= 2

    def finish(self) -> tuple[list[Section], Totals]:
        """One section a (series, rate), and how much they cover."""
        self._merge()
        nodes = [self._nodes[node_id] for node_id in self._chosen_nodes]
        totals = Totals(
            node_ids=frozenset(self._chosen_nodes),
            covered_ms=sum(node.covered_ms for node in nodes),
            samples=sum(int(section.counts.sum()) for section in self._sections),
            all_samples=sum(node.samples for node in nodes),
            lost=sum(node.lost for node in nodes),
            weight_ns=sum(int(weigh(section).sum()) for section in self._sections),
            damaged_blobs=self._damaged,
            stack_ends=self._ends.of(self._only),
        )
        return self._sections, totals

    def cores_of(self) -> dict[int, float]:
        """The CPU time that was chosen of each covered host, over the time it was covered for."""
        nodes = {node_id: self._nodes[node_id] for node_id in self._chosen_nodes}
        return {
            node_id: node.chosen_ns / 1e6 / node.covered_ms if node.covered_ms else 0.0
            for node_id, node in nodes.items()
        }

    def _merge(self) -> None:
        self._sections = merge_sections(self._sections)
        self._rows = sum(len(section.ids) for section in self._sections)


def weigh(section: Section) -> Ints:
    """CPU time of each row, rounded to nanoseconds: count x 10**12 / rate in millihertz."""
    rate = section.rate_millihertz
    whole, rest = divmod(10**12, rate)
    # In two parts, because count x 10**12 leaves int64 at 9 million samples.
    weights: Ints = section.counts * whole + (section.counts * rest + rate // 2) // rate
    return weights


def list_stacks(
    sums: SampleSums,
    span: Span,
    service_of: Callable[[int], str],
    host_of: Callable[[int], str],
    cpus_of: Callable[[int], int | None] = lambda _node_id: None,
) -> Stacks:
    """What was summed, as columns; services and hosts by name, sorted."""
    sections, totals = sums.finish()
    names = [service_of(section.series_id) for section in sections]
    services = sorted(set(names))
    number = {service: index for index, service in enumerate(services)}
    sizes = [len(section.ids) for section in sections]
    empty = np.zeros(0, np.int64)
    cpus = {node_id: cpus_of(node_id) for node_id in totals.node_ids}
    cores = [min(used, cpus[node_id] or used) for node_id, used in sums.cores_of().items()]
    known = [number for number in cpus.values() if number]
    return Stacks(
        span=span,
        services=services,
        service_index=np.repeat(np.array([number[name] for name in names], np.int64), sizes),
        stack_ids=np.concatenate([empty, *(section.ids for section in sections)]),
        counts=np.concatenate([empty, *(section.counts for section in sections)]),
        weights=np.concatenate([empty, *(weigh(section) for section in sections)]),
        totals=totals,
        host_names=sorted(host_of(node_id) for node_id in totals.node_ids),
        cores=sum(cores),
        cpus=sum(known) if len(known) == len(cpus) else None,
    )
