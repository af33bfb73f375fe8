"""The functions of a graph with what they used, whether they are drawn or not. Pure.

Addresses without a name are one row a module: each alone says little, and a module may have
thousands of them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from aggregator.flamegraph.functions import FunctionSums, Nesting, join, sum_functions
from aggregator.flamegraph.graph import Folded
from aggregator.profiles.frame_table import KINDS, Function
from aggregator.profiles.grouping import Ints

UNNAMED = "[unnamed]"
_ANY_BUILD = "any"


@dataclass(frozen=True)
class KindSum:
    """The CPU time in functions of one kind itself."""

    kind: str
    self_: int
    self_square: float


@dataclass(frozen=True, eq=False)
class Summary:
    """Sums by the codes of `Folded`, of the unpruned graph. Codes from `first_group` on are
    `groups`, the rows of functions without a name; `group_of` says whose, `members` how many.

    `listed` are the codes of the rows to tell, of `rows` that there are.
    """

    by_function: FunctionSums
    by_row: FunctionSums
    first_group: int
    groups: list[Function]
    group_of: dict[int, int]
    kinds: list[KindSum]
    rows: int
    listed: list[int]
    members: Counter[int] = field(default_factory=Counter)

    def sums(self, codes: Ints) -> FunctionSums:
        """The sums of functions and groups by their codes."""
        functions, rows = self.by_function.at(codes), self.by_row.at(codes)
        is_group = codes >= self.first_group
        return FunctionSums(
            codes,
            *(
                np.where(is_group, getattr(rows, name), getattr(functions, name))
                for name in ("self_", "self_square", "total", "total_square", "nodes")
            ),
        )


def summarize(folded: Folded, functions: Sequence[Function], most_rows: int) -> Summary:
    """Sum up a graph before it is pruned; `functions` are the dictionary's. At most `most_rows`
    rows are listed by their own time, and as many by their total."""
    nesting = Nesting(folded)
    by_function = sum_functions(folded, nesting, folded.code, np.arange(len(folded.code)))
    first_group = folded.shift + len(functions)
    groups: list[Function] = []
    group_of: dict[int, int] = {}
    numbers: dict[tuple[str, str], int] = {}
    for code in by_function.keys.tolist():
        function = folded.function_of(code, functions)
        if not function.build:
            continue
        key = function.module, function.kind
        if key not in numbers:
            numbers[key] = first_group + len(groups)
            groups.append(Function(UNNAMED, *key, _ANY_BUILD))
        group_of[code] = numbers[key]
    unnamed = np.array(sorted(group_of), np.int64)
    nodes = np.flatnonzero(np.isin(folded.code, unnamed))
    rows = np.array([group_of[code] for code in unnamed.tolist()], np.int64)
    row_of_nodes = rows[np.searchsorted(unnamed, folded.code[nodes])]
    by_row = join(by_function, unnamed, sum_functions(folded, nesting, row_of_nodes, nodes))
    return Summary(
        by_function,
        by_row,
        first_group,
        groups,
        group_of,
        _sum_kinds(folded, functions, by_function),
        int(np.count_nonzero(by_row.keys >= folded.shift)),
        _heaviest_rows(by_row, folded.shift, most_rows),
        Counter(group_of.values()),
    )


def _sum_kinds(folded: Folded, functions: Sequence[Function], sums: FunctionSums) -> list[KindSum]:
    codes = sums.keys.tolist()
    kinds = np.array([KINDS.index(folded.function_of(code, functions).kind) for code in codes])
    own = [
        (int(sums.self_[kinds == number].sum()), float(sums.self_square[kinds == number].sum()))
        for number in range(len(KINDS))
    ]
    return [
        KindSum(kind, weight, square)
        for kind, (weight, square) in zip(KINDS, own, strict=True)
        if weight
    ]


def _heaviest_rows(rows: FunctionSums, shift: int, most: int) -> list[int]:
    listed: set[int] = set()
    for weights in (rows.self_, rows.total):
        heaviest = np.argsort(-weights, kind="stable")
        codes = rows.keys[heaviest]
        listed.update(codes[codes >= shift][:most].tolist())
    return sorted(listed)
