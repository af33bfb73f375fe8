"""pprof of stored stacks, with addresses, files and lines; the service is a label. Pure."""

from collections.abc import Iterator

import numpy as np

from aggregator.profiles.dictionary import Dictionary
from aggregator.profiles.frame_table import FrameTable
from aggregator.profiles.grouping import group
from aggregator.profiles.samples import Stacks
from wire.pprof import Frame, encode_weighted_profile

MAX_STACKS = 100_000  # the lighter ones become one "(other)" a service

Row = tuple[list[Frame], int, int, dict[str, str]]


def encode_stacks(stacks: Stacks, dictionary: Dictionary) -> bytes:
    """Gzipped pprof of `stacks`, whose frames `dictionary` knows.

    The period is the mean CPU time of a sample, because hosts may have different rates.
    """
    samples, weight_ns = stacks.totals.samples, stacks.totals.weight_ns
    return encode_weighted_profile(
        _rows(stacks, dictionary),
        period_ns=round(weight_ns / samples) if samples else 1,
        start_ns=stacks.span.from_s * 10**9,
        duration_ns=(stacks.span.until_s - stacks.span.from_s) * 10**9,
    )


def _rows(stacks: Stacks, dictionary: Dictionary) -> Iterator[Row]:
    leaves = dictionary.leaves(stacks.stack_ids)
    merged = group((stacks.service_index << 32) | leaves)  # rates and undefined stacks together
    counts, weights = merged.sums(stacks.counts), merged.sums(stacks.weights)
    services = merged.keys >> 32
    order = np.argsort(-weights, kind="stable")
    known: dict[int, Frame] = {}
    for index in order[:MAX_STACKS].tolist():
        path = dictionary.tree.path(int(merged.keys[index]) & 0xFFFFFFFF)
        for number in path:
            if number not in known:
                known[number] = _frame(dictionary.frames, number)
        service = stacks.services[int(services[index])]
        frames = [known[number] for number in path]
        yield frames, int(counts[index]), int(weights[index]), {"service": service}
    rest = order[MAX_STACKS:]
    others = group(services[rest])
    for service, count, weight in zip(
        others.keys.tolist(), others.sums(counts[rest]), others.sums(weights[rest]), strict=True
    ):
        yield [Frame("(other)")], int(count), int(weight), {"service": stacks.services[service]}


def _frame(frames: FrameTable, number: int) -> Frame:
    function = frames.functions[int(frames.functions_of(np.array([number]))[0])]
    place = frames.place(number)
    return Frame(
        function.name,
        function.module,
        place.file,
        place.line,
        place.address,
        place.build_id,
        place.callers,
    )
