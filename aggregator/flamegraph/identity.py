"""What a function and a path are called in links: numbers that stay the same from answer to answer
and fit into a JavaScript number. Pure."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aggregator.profiles.frame_table import Function
from aggregator.profiles.grouping import Ints

ROOT_PATH = 1
_BITS = 52
_MASK = np.uint64((1 << _BITS) - 1)
_FACTOR = np.uint64(0x9E3779B97F4A7)
_SHIFT = np.uint64(26)

Paths = NDArray[np.uint64]


def function_id(function: Function) -> int:
    """48 bits of what tells a function from every other one: name, module, file, kind, build."""
    parts = (function.name, function.module, function.file, function.kind, function.build)
    text = "\0".join(parts).encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=6).digest(), "big")


def extend_paths(paths: Paths, functions: Paths) -> Paths:
    """The paths of nodes, from their parents' and the ids of their own functions.

    The page does the same (`static/js/model.js`).
    """
    mixed = ((paths ^ functions) * _FACTOR) & _MASK
    result: Paths = mixed ^ (mixed >> _SHIFT)
    return result


def path_numbers(parent: Ints, level_starts: Sequence[int], function_ids: Paths) -> Paths:
    """The path of every node, whose parents are on the level before its own."""
    paths = np.full(len(parent), ROOT_PATH, np.uint64)
    for first, end in zip(level_starts[1:], [*level_starts[2:], len(parent)], strict=True):
        paths[first:end] = extend_paths(paths[parent[first:end]], function_ids[first:end])
    return paths
