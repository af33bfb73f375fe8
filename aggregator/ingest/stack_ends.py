"""What a batch says of how its stacks ended, checked. Pure."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from aggregator.profiles.stack_ends import PYTHON_REASONS, REASONS, known_reason
from wire.schema import Batch

Ends = dict[str, NDArray[np.int64]]


def read_stack_ends(
    batch: Batch, row_series: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[Ends, Ends]:
    """Samples by known reason, of stacks and of their Python parts: an int64 a series of `batch`.
    Words unknown here are one reason.

    `row_series` and `counts` are the columns of its rows. Ends that are more than the samples of
    their series are no ends of these samples, so none of that field is told.
    """
    counted = np.zeros(len(batch.series), np.int64)
    np.add.at(counted, row_series, counts)
    return (
        _read(batch.stack_ends, REASONS, counted),
        _read(batch.python_ends, PYTHON_REASONS, counted),
    )


def _read(columns: Mapping[str, bytes], reasons: Sequence[str], counted: NDArray[np.int64]) -> Ends:
    ends: Ends = {}
    said = np.zeros(len(counted), np.int64)
    for word, column in columns.items():
        samples = np.frombuffer(column, "<u4").astype(np.int64)
        said += samples
        reason = known_reason(word, reasons)
        ends[reason] = ends[reason] + samples if reason in ends else samples
    return {} if np.any(said > counted) else ends
