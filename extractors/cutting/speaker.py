"""Whether a mouth moves with the sound: its motion and opening against the energy of speech."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.cutting.energy import ENERGY_RATE
from triptych.extractors.cutting.tracks import Track

RATE = 25.0  # values a second, of both signals [Hz]
MOST_LAG = 0.12  # between sound and frames [s]
AROUND = 0.5  # pauses beside a span are looked at too, since mouths rest in them [s]
SMOOTH = 0.06  # standard deviation of the smoothing [s]: syllables, not frames
FEWEST = 12  # values of a mouth in a span, to compare at all


@dataclass(frozen=True)
class Fit:
    """How well a mouth fits the sound of a span.

    Attributes
    ----------
    correlation
        Mean of the correlations of the mouth's motion, and of its opening, with the sound's energy, at the lag that
        fits best: about 0 by chance, and seldom over 0.7. NaN where the face has too few values.
    motion
        The mouth's motion in the span, relative to that of the upper face; about 1 for a mouth at rest.
    """

    correlation: float
    motion: float


NO_FIT = Fit(float("nan"), float("nan"))


def fit(track: Track, energy: NDArray[np.float32], start: float, end: float) -> Fit:
    """Compare a track's mouth with the sound of a span.

    Parameters
    ----------
    energy
        As `triptych.extractors.cutting.energy.speech_energy` gives it, of the whole recording.
    start, end
        The span [s].
    """
    first, last = np.searchsorted(track.times, (start - AROUND, end + AROUND))
    times, mouth = track.times[first:last], track.mouth[first:last]
    known = ~np.isnan(mouth[:, 0])
    times, mouth = times[known], mouth[known]
    inside = (times >= start) & (times < end)
    if int(inside.sum()) < FEWEST:
        return NO_FIT
    motion = float(np.mean(mouth[inside, 0]) / (np.mean(mouth[inside, 2]) + 1e-6))
    grid = np.arange(times[0], times[-1], 1 / RATE)
    lags = int(MOST_LAG * RATE)
    sound = _sound_at(grid[0] - lags / RATE, len(grid) + 2 * lags, energy)
    signals = [_smooth(np.interp(grid, times, mouth[:, k])) for k in (0, 1)]
    correlations = [
        np.mean([_correlation(signal, sound[lag : lag + len(grid)]) for signal in signals])
        for lag in range(2 * lags + 1)
    ]
    return Fit(float(np.max(correlations)), motion)


def _sound_at(start: float, count: int, energy: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the smoothed energy at `count` times from `start` [s]; its square root makes loud syllables count less."""
    times = start + np.arange(count) / RATE
    margin = 1.0
    first = max(int((times[0] - margin) * ENERGY_RATE), 0)
    piece = np.sqrt(energy[first : int((times[-1] + margin) * ENERGY_RATE) + 1].astype(np.float64))
    if not len(piece):
        return np.zeros(count)
    own = (first + np.arange(len(piece)) + 0.5) / ENERGY_RATE
    return np.interp(times, own, _smooth(piece, ENERGY_RATE))


def _smooth(values: NDArray[np.float64], rate: float = RATE) -> NDArray[np.float64]:
    from scipy.ndimage import gaussian_filter1d

    smoothed: NDArray[np.float64] = gaussian_filter1d(values, SMOOTH * rate, mode="nearest")
    return smoothed


def _correlation(these: NDArray[np.float64], those: NDArray[np.float64]) -> float:
    one, other = these - these.mean(), those - those.mean()
    power = float(np.sqrt((one * one).sum() * (other * other).sum()))
    return float((one * other).sum()) / power if power > 1e-9 else 0.0
