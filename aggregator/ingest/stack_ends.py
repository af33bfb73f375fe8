"""What a batch says of how its stacks ended, checked. Pure."""

import numpy as np
from numpy.typing import NDArray

from aggregator.ingest.errors import BadValueError
from aggregator.profiles.stack_ends import known_reason
from wire.schema import Batch


def read_stack_ends(
    batch: Batch, row_series: NDArray[np.int64], counts: NDArray[np.int64]
) -> dict[str, NDArray[np.int64]]:
    """Samples by known reason, an int64 a series of `batch`; words unknown here are one reason.

    `row_series` and `counts` are the columns of its rows. Raises BadValueError for a series with
    more ends than samples.
    """
    ends: dict[str, NDArray[np.int64]] = {}
    said = np.zeros(len(batch.series), np.int64)
    for word, column in batch.stack_ends.items():
        samples = np.frombuffer(column, "<u4").astype(np.int64)
        said += samples
        reason = known_reason(word)
        ends[reason] = ends[reason] + samples if reason in ends else samples
    counted = np.zeros(len(batch.series), np.int64)
    np.add.at(counted, row_series, counts)
    if np.any(said > counted):
        worst = int(np.argmax(said - counted))
        raise BadValueError(
            f"stack_ends say {said[worst]} samples of series {worst}, which has {counted[worst]}"
        )
    return ends
