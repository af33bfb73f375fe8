"""The columnar answer for the page: strings once, functions by index, nodes as columns. Pure."""

import dataclasses

import msgspec

from aggregator.flamegraph.service import Flamegraph
from aggregator.profiles.frame_table import KINDS
from aggregator.profiles.times import format_time

VERSION = 1
_KIND_NUMBERS = {kind: number for number, kind in enumerate(KINDS)}


def encode_columnar(flamegraph: Flamegraph) -> bytes:
    """JSON of a flamegraph. Nodes are breadth first; node 0 is the root, its parent -1."""
    graph, span = flamegraph.graph, flamegraph.span
    strings: dict[str, int] = {}
    names = [strings.setdefault(f.name, len(strings)) for f in graph.functions]
    modules = [strings.setdefault(f.module, len(strings)) for f in graph.functions]
    files = [strings.setdefault(file, len(strings)) if file else -1 for file, _ in graph.places]
    return msgspec.json.encode(
        {
            "version": VERSION,
            "unit": "nanoseconds",
            "total_ns": int(graph.total[0]),
            "effective_from": format_time(span.from_s),
            "effective_until": format_time(span.until_s),
            "strings": list(strings),
            "functions": {
                "name": names,
                "module": modules,
                "kind": [_KIND_NUMBERS[function.kind] for function in graph.functions],
            },
            "kinds": KINDS,
            "nodes": {
                "function": graph.function.tolist(),
                "parent": graph.parent.tolist(),
                "total": graph.total.tolist(),
                "self": graph.self_.tolist(),
                "level": graph.level.tolist(),
                "file": files,  # -1 where it is not known
                "line": [line for _, line in graph.places],
            },
            "other_nodes": graph.cut_nodes,
            "coverage": dataclasses.asdict(flamegraph.coverage),
        }
    )
