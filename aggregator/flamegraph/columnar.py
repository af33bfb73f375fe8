"""The columnar answer for the page: strings once, functions by index, nodes as columns. Pure."""

import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from aggregator.flamegraph.arrange import Graph
from aggregator.flamegraph.identity import function_id
from aggregator.flamegraph.intervals import intervals
from aggregator.flamegraph.service import Flamegraph
from aggregator.flamegraph.summary import Summary
from aggregator.profiles.frame_table import KINDS
from aggregator.profiles.grouping import Floats, Ints
from aggregator.profiles.times import format_time

VERSION = 2
_ALL_KINDS = (*KINDS, "other")
_KIND_NUMBERS = {kind: number for number, kind in enumerate(_ALL_KINDS)}
_MILLION = 1_000_000

Bounds = Callable[[Ints, Floats], tuple[list[int], list[int]]]


def encode_columnar(flamegraph: Flamegraph) -> bytes:
    """JSON of a flamegraph. Nodes are breadth first; node 0 is the root, its parent -1.

    `low` and `high` are the ends of 95 % intervals, in millionths of the whole.
    """
    graph, span = flamegraph.graph, flamegraph.span
    strings: dict[str, int] = {}
    files = [strings.setdefault(file, len(strings)) if file else -1 for file, _ in graph.places]
    whole, whole_square = int(graph.total[0]), float(graph.square[0])

    def bounds(parts: Ints, squares: Floats) -> tuple[list[int], list[int]]:
        low, high = intervals(parts, squares, whole, whole_square)
        return _millionths(low), _millionths(high)

    low, high = bounds(graph.total, graph.square)
    functions = _functions(graph, flamegraph.summary, bounds, strings)
    return msgspec.json.encode(
        {
            "version": VERSION,
            "unit": "nanoseconds",
            "total_ns": whole,
            "effective_from": format_time(span.from_s),
            "effective_until": format_time(span.until_s),
            "strings": list(strings),
            "functions": functions,
            "functions_found": flamegraph.summary.rows,
            "kinds": _ALL_KINDS,
            "kind_shares": _kinds(flamegraph.summary, bounds),
            "nodes": {
                "function": graph.function.tolist(),
                "parent": graph.parent.tolist(),
                "total": graph.total.tolist(),
                "self": graph.self_.tolist(),
                "low": low,
                "high": high,
                "level": graph.level.tolist(),
                "file": files,  # -1 where it is not known
                "line": [line for _, line in graph.places],
            },
            "other_nodes": graph.cut_nodes,
            "other_ns": graph.cut_ns,
            "coverage": dataclasses.asdict(flamegraph.coverage),
        }
    )


def _functions(
    graph: Graph, summary: Summary, bounds: Bounds, strings: dict[str, int]
) -> dict[str, Any]:
    sums = summary.sums(graph.codes)
    self_low, self_high = bounds(sums.self_, sums.self_square)
    total_low, total_high = bounds(sums.total, sums.total_square)
    codes = graph.codes.tolist()
    index = {code: number for number, code in enumerate(codes)}
    groups = [index.get(summary.group_of.get(code, -1), -1) for code in codes]
    return {
        **{
            name: [strings.setdefault(text, len(strings)) for text in texts]
            for name, texts in (
                ("name", [function.name for function in graph.functions]),
                ("module", [function.module for function in graph.functions]),
                ("file", [function.file for function in graph.functions]),
                ("build", [function.build for function in graph.functions]),
            )
        },
        "kind": [_KIND_NUMBERS[function.kind] for function in graph.functions],
        "id": [function_id(function) for function in graph.functions],
        "group": groups,
        "members": [summary.members[code] for code in codes],
        "self": sums.self_.tolist(),
        "self_low": self_low,
        "self_high": self_high,
        "total": sums.total.tolist(),
        "total_low": total_low,
        "total_high": total_high,
        "places": sums.nodes.tolist(),
    }


def _kinds(summary: Summary, bounds: Bounds) -> list[dict[str, Any]]:
    weights = np.array([kind.self_ for kind in summary.kinds], np.int64)
    squares = np.array([kind.self_square for kind in summary.kinds])
    lows, highs = bounds(weights, squares)
    return [
        {"kind": kind.kind, "self": kind.self_, "low": low, "high": high}
        for kind, low, high in zip(summary.kinds, lows, highs, strict=True)
    ]


def _millionths(shares: Floats) -> list[int]:
    numbers: list[int] = np.rint(shares * _MILLION).astype(np.int64).tolist()
    return numbers
