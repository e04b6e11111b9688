"""Statistics of columns over their usable rows, named as openSMILE names its functionals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (5, 20, 25, 50, 75, 80, 95)
# The names that follow a column's name and an underscore. All but `usable` are openSMILE's.
FUNCTIONALS = (
    "amean",
    "stddev",
    "stddevNorm",
    *(f"percentile{percent}.0" for percent in PERCENTILES),
    "min",
    "max",
    "usable",
)


def functionals(values: NDArray[np.float32], usable: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Compute the functionals of each column.

    `stddev` is that of the population; `stddevNorm` is divided by the mean, and so negative where that is; a
    percentile p is the value at p % of the way from the first to the last of the sorted rows, linear between two
    rows. All as in openSMILE.
    `usable` is the share of usable rows.

    Parameters
    ----------
    values
        Shape (T, D), T at least 1.
    usable
        Shape (T, D): the cells that count.

    Returns
    -------
    ndarray
        Shape (D, len(FUNCTIONALS)); NaN for a column without usable rows, except its share.
    """
    rows = len(values)
    count = usable.sum(axis=0)
    ordered = np.sort(
        np.ascontiguousarray(np.where(usable, values, np.nan).T, np.float32), axis=1
    )  # NaN last
    mean = np.where(usable, values, 0).sum(axis=0, dtype=np.float64) / np.maximum(count, 1)
    squares = np.where(usable, values - mean, 0) ** 2
    deviation = np.sqrt(squares.sum(axis=0) / np.maximum(count, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(mean != 0, deviation / mean, np.nan)
    found = np.column_stack(
        [
            mean,
            deviation,
            relative,
            *(_percentile(ordered, count, percent) for percent in (*PERCENTILES, 0, 100)),
        ]
    )
    found[count == 0] = np.nan
    return np.column_stack([found, count / rows])


def _percentile(ordered: NDArray[np.float32], count: NDArray[np.intp], percent: int) -> NDArray[np.float64]:
    """Interpolate in the first `count` values of each row, which are sorted."""
    last = np.maximum(count - 1, 0)
    position = percent / 100 * last
    low = np.floor(position).astype(np.intp)
    rows = np.arange(len(ordered))
    below = ordered[rows, low].astype(np.float64)
    above = ordered[rows, np.minimum(low + 1, last)]
    # Written so that equal neighbours give exactly their value.
    return below + (position - low) * (above - below)
