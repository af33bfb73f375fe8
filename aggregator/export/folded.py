"""Folded stacks of a flamegraph; the numbers are nanoseconds of CPU. Pure."""

from collections.abc import Iterator

from aggregator.flamegraph.arrange import Graph
from wire.folded import encode_folded
from wire.pprof import Frame


def encode_graph(graph: Graph) -> str:
    """One line a node with a weight of its own: `service;outer;...;inner nanoseconds`."""
    return encode_folded(_lines(graph))


def _lines(graph: Graph) -> Iterator[tuple[list[Frame], int, dict[str, str]]]:
    frames = [Frame(function.name) for function in graph.functions]
    function, parent = graph.function.tolist(), graph.parent.tolist()
    for leaf, own in enumerate(graph.self_.tolist()):
        if own:
            path, node = [], leaf
            while node > 0:
                path.append(frames[function[node]])
                node = parent[node]
            yield path[::-1], own, {}
