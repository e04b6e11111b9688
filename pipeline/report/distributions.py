"""Histograms of numbers, as the page draws them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

BINS = 30
_FAR = 1.5  # a few clips far beyond this multiple of the 99.5th percentile do not decide the axis


@dataclass(frozen=True)
class Histogram:
    """A histogram, and the numbers that sum it up.

    Attributes
    ----------
    counts
        Clips in each bin.
    low, high
        Where the first bin starts and the last one ends.
    beyond
        Clips above `high`, which no bin holds.
    median, lowest, highest
        Of all clips, those beyond included.
    """

    name: str
    unit: str
    counts: tuple[int, ...]
    low: float
    high: float
    beyond: int
    count: int
    lowest: float
    median: float
    highest: float


def histogram(name: str, unit: str, values: Iterable[float], *, share: bool = False) -> Histogram | None:
    """Count values in equal bins from 0; None if no value is known.

    Parameters
    ----------
    share
        The values are shares, so the axis ends at 1.
    """
    known = np.array([value for value in values if not math.isnan(value)])
    if not len(known):
        return None
    high = 1.0 if share else _axis_end(known)
    counts, _ = np.histogram(known[known <= high], BINS, (0.0, high))
    return Histogram(
        name,
        unit,
        tuple(int(count) for count in counts),
        0.0,
        high,
        int((known > high).sum()),
        len(known),
        float(known.min()),
        float(np.median(known)),
        float(known.max()),
    )


def _axis_end(known: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """Round the end of the axis up to a number that reads well."""
    highest, usual = float(known.max()), float(np.percentile(known, 99.5))
    end = highest if highest <= _FAR * usual else _FAR * usual
    if end <= 0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(end))
    return next(step * size for step in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * size >= end)


def label_bins(values: Iterable[float], low: float, high: float, levels: int = 11) -> tuple[int, ...]:
    """Count labels at equally spaced levels of their range, each at the nearest."""
    known = np.array([value for value in values if not math.isnan(value)])
    places = np.clip(np.rint((known - low) / (high - low) * (levels - 1)), 0, levels - 1).astype(np.intp)
    return tuple(int(count) for count in np.bincount(places, minlength=levels))
