"""Adding up the blobs that answer a question, and saying how much they cover. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from aggregator.profiles.blob_columns import Heads, Part, read_bodies, read_heads
from aggregator.profiles.codec import Section
from aggregator.profiles.column_sums import ColumnSums
from aggregator.profiles.grouping import Ints
from aggregator.profiles.reading import StoredRow
from aggregator.profiles.span import Span
from aggregator.profiles.stack_ends import EndSums, StackEnds
from aggregator.workers import checkpoint


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


class OpenedRows(NamedTuple):
    """Rows with the heads of their blobs."""

    rows: Sequence[StoredRow]
    data: Heads
    stack_ends: Heads

    def series_ids(self) -> set[int]:
        """The series that they have samples of."""
        return set(np.unique(self.data.series).tolist())


def open_rows(rows: Sequence[StoredRow]) -> OpenedRows:
    """The rows with what stands at the head of their blobs."""
    data = read_heads(row.data for row in rows)
    return OpenedRows(rows, data, read_heads(row.stack_ends for row in rows))


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
    their rows, so coverage does not depend on the tier; without `only` every host is that was
    observed at all.
    """

    def __init__(self, only: Callable[[int], bool] | None = None) -> None:
        self._only = only
        self._sums = ColumnSums()
        self._nodes: dict[int, _Node] = {}
        self._chosen_nodes: set[int] = set()
        self._damaged = 0
        self._ends = EndSums()

    def add(self, opened: OpenedRows) -> None:
        """Add rows; the samples of one with a damaged blob count as lost."""
        checkpoint()
        data, rows = opened.data, opened.rows
        chosen = self._choose(data)
        chosen_ns = np.zeros(len(rows))
        for part in read_bodies(data, chosen):
            checkpoint()
            self._sums.add(data, part)
            weights = weigh_sections(data, part)
            chosen_ns += np.bincount(data.blob[part.sections], weights, len(rows))
        self._ends.add(opened.stack_ends, left_out=data.damaged)
        self._damaged += int((data.damaged | opened.stack_ends.damaged).sum())
        has_chosen = np.zeros(len(rows), bool)
        has_chosen[data.blob[chosen]] = True
        has_chosen &= ~data.damaged
        for index, row in enumerate(rows):
            node = self._nodes.setdefault(row.node_id, _Node())
            node.covered_ms += row.covered_ms
            node.chosen_ns += float(chosen_ns[index])
            node.lost += row.lost
            if data.damaged[index]:
                node.lost += row.samples
            else:
                node.samples += row.samples
            if has_chosen[index] or (self._only is None and row.covered_ms):
                self._chosen_nodes.add(row.node_id)

    def _choose(self, data: Heads) -> Ints:
        """Indexes of the sections that count."""
        if self._only is None:
            return np.arange(len(data.series))
        distinct, index = np.unique(data.series, return_inverse=True)
        is_chosen = np.array([self._only(series_id) for series_id in distinct.tolist()], bool)
        return np.flatnonzero(is_chosen[index.reshape(-1)]) if len(distinct) else index

    def finish(self) -> tuple[list[Section], Totals]:
        """One section a (series, rate), and how much they cover."""
        sections = self._sums.sections()
        nodes = [self._nodes[node_id] for node_id in self._chosen_nodes]
        totals = Totals(
            node_ids=frozenset(self._chosen_nodes),
            covered_ms=sum(node.covered_ms for node in nodes),
            samples=sum(int(section.counts.sum()) for section in sections),
            all_samples=sum(node.samples for node in nodes),
            lost=sum(node.lost for node in nodes),
            weight_ns=sum(int(weigh(section).sum()) for section in sections),
            damaged_blobs=self._damaged,
            stack_ends=self._ends.of(self._only),
        )
        return sections, totals

    def cores_of(self) -> dict[int, float]:
        """The CPU time that was chosen of each covered host, over the time it was covered for."""
        nodes = {node_id: self._nodes[node_id] for node_id in self._chosen_nodes}
        return {
            node_id: node.chosen_ns / 1e6 / node.covered_ms if node.covered_ms else 0.0
            for node_id, node in nodes.items()
        }


def weigh(section: Section) -> Ints:
    """CPU time of each row, rounded to nanoseconds: count x 10**12 / rate in millihertz."""
    return _weigh(section.counts, np.int64(section.rate_millihertz))


def weigh_sections(heads: Heads, part: Part) -> Ints:
    """CPU time of each section of a part: the sum of what its rows weigh."""
    rates = np.repeat(heads.rate[part.sections], np.diff(part.rows))
    sums = np.concatenate((np.zeros(1, np.int64), np.cumsum(_weigh(part.counts, rates))))
    weights: Ints = np.diff(sums[part.rows])
    return weights


def _weigh(counts: Ints, rate: Ints | np.int64) -> Ints:
    whole, rest = np.divmod(np.int64(10**12), rate)
    # In two parts, because count x 10**12 leaves int64 at 9 million samples.
    weights: Ints = counts * whole + (counts * rest + rate // 2) // rate
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
