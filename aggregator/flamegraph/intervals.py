"""How sure is a share? 95 % intervals from sampling alone, of "these hosts and minutes". Pure.

They say nothing about other minutes or hosts, which differ by more. A sample weighs the period of
its host's rate, so those of slow hosts weigh more. By linearization a share R = X / W then has the
variance

    V = ((1 - R)² Q_x + R² (Q - Q_x)) / W²     Q: sum of the samples' squared weights, Q_x: of X's

which is R (1 - R) / n where all n samples weigh the same. So a share is worth n = R (1 - R) / V
samples of one weight, whatever the mix of rates: few heavy samples make a wide interval, however
many light ones stand beside them.

Ten samples or more on both sides: normal on the logit scale, variance 1 / (n R (1 - R)). Fewer:
exact Poisson limits (Garwood 1936), between whole numbers by interpolation.
"""

import numpy as np
from numpy.typing import NDArray

from aggregator.profiles.grouping import Floats, Ints

Z95 = 1.959964
_POISSON_LOW = (0, 0.0253, 0.2422, 0.6187, 1.0899, 1.6235, 2.2019, 2.8144, 3.4538, 4.1154, 4.7954)
_POISSON_HIGH = (
    *(3.6889, 5.5716, 7.2247, 8.7673, 10.2416, 11.6683, 13.0595, 14.4227, 15.7632, 17.0848),
    18.3904,
)
_COUNTS = np.arange(len(_POISSON_LOW))


def intervals(
    parts: Ints, part_squares: Floats, whole: int, whole_square: float
) -> tuple[Floats, Floats]:
    """Lower and upper ends of the shares `parts` / `whole`; (0, 1) where nothing was sampled.

    The squares are sums of the samples' squared weights, in the square of the weights' unit.
    """
    if not (whole > 0 and whole_square > 0):
        return np.zeros(len(parts)), np.ones(len(parts))
    share = np.clip(parts / whole, 0.0, 1.0)
    return limits(share, worth(share, part_squares / whole**2, whole_square / whole**2))


def worth(share: Floats, part_square: Floats, whole_square: float) -> Floats:
    """How many samples of one weight each share is worth; squares in units of the whole's."""
    rest_square = np.maximum(whole_square - part_square, 0.0)
    variance = (1 - share) ** 2 * part_square + share**2 * rest_square
    is_open = (share > 0) & (share < 1) & (variance > 0)
    samples: Floats = np.full(len(share), 1 / whole_square)
    samples[is_open] = (share * (1 - share))[is_open] / variance[is_open]
    return samples


def limits(share: Floats, samples: Floats) -> tuple[Floats, Floats]:
    """The 95 % interval of shares that were found in so many samples of one weight."""
    hits, misses = share * samples, (1 - share) * samples
    few: NDArray[np.bool_] = hits < _COUNTS[-1]
    many = ~few & (misses < _COUNTS[-1])
    inner = np.where(few | many, 0.5, share)
    centre = np.log(inner / (1 - inner))
    half = Z95 / np.sqrt(samples * inner * (1 - inner))
    low, high = _logistic(centre - half), _logistic(centre + half)
    low[few], high[few] = _poisson(hits[few], samples[few])
    rest_low, rest_high = _poisson(misses[many], samples[many])
    low[many], high[many] = 1 - rest_high, 1 - rest_low
    return low, high


def _logistic(value: Floats) -> Floats:
    result: Floats = 1 / (1 + np.exp(-value))
    return result


def _poisson(hits: Floats, samples: Floats) -> tuple[Floats, Floats]:
    low = np.interp(hits, _COUNTS, _POISSON_LOW) / samples
    high = np.interp(hits, _COUNTS, _POISSON_HIGH) / samples
    return np.minimum(low, 1.0), np.minimum(high, 1.0)
