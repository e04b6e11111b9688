"""The tuning of a clip, as librosa estimates it, from the magnitude spectra of its frames."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from triptych.extractors.audio.fast.constant_q import BINS_PER_OCTAVE
from triptych.extractors.audio.fast.spectra import N_FFT
from triptych.extractors.scratch import parts

PEAK_RANGE = (150.0, 4000.0)  # Hz, where peaks are looked for
PEAK_THRESHOLD = 0.1  # of the frame's largest magnitude
C0 = 440 / 16  # Hz, the start of librosa's octaves: an A, although librosa calls it C0
RESOLUTION = 100  # tunings a bin


def spectral_peaks(
    spectra: NDArray[np.float32], sample_rate: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Find the frequencies [Hz] and magnitudes of all peaks of spectra of shape (T, 1025), as `librosa.piptrack`'s."""
    first, stop = _peak_bins(sample_rate)
    floors = np.float32(PEAK_THRESHOLD) * spectra.max(axis=1)
    pitches, heights, count = _peaks(spectra, floors, first, stop, float(sample_rate))
    return pitches[:count].copy(), heights[:count].copy()  # the arrays have room for many more


@lru_cache(maxsize=8)
def _peak_bins(sample_rate: int) -> tuple[int, int]:
    frequencies = np.fft.rfftfreq(N_FFT, 1 / sample_rate)
    first, stop = np.searchsorted(frequencies, [PEAK_RANGE[0], min(PEAK_RANGE[1], sample_rate / 2)])
    return int(first), int(stop)


def estimate_tuning(pitches: NDArray[np.float32], heights: NDArray[np.float32]) -> float:
    """Estimate a clip's tuning, in bins of 1/36 octave, from the peaks that are not below their median."""
    edges = np.linspace(-0.5, 0.5, RESOLUTION + 1)
    counts = np.zeros(RESOLUTION, np.int64)
    median = _median(heights) if len(heights) else 0
    for some, high in zip(parts(pitches), parts(heights), strict=True):
        loud = some[high >= median]
        off = np.mod(BINS_PER_OCTAVE * np.log2(loud[loud > 0] / C0), 1.0)
        off[off >= 0.5] -= 1
        counts += np.histogram(off, edges)[0]
    return float(edges[counts.argmax()]) if counts.any() else 0.0


def _median(heights: NDArray[np.float32]) -> np.float32:
    """Return the median, as `numpy.median` does, of numbers > 0 that need not be in memory at the same time.

    The bits of such numbers are in their order. One reading finds the first half of the median's bits, another takes
    the few numbers that begin with it.
    """
    counts = np.zeros(2**16, np.int64)
    for part in parts(heights):
        counts += np.bincount(_upper(part), minlength=2**16)
    until = np.cumsum(counts)
    ranks = np.array([(len(heights) - 1) // 2, len(heights) // 2])
    low, high = np.searchsorted(until, ranks, side="right")
    near = [part[(_upper(part) >= low) & (_upper(part) <= high)] for part in parts(heights)]
    middle: np.float32 = np.sort(np.concatenate(near))[ranks - (until[low] - counts[low])].mean()
    return middle


def _upper(heights: NDArray[np.float32]) -> NDArray[np.int64]:
    return (heights.view(np.uint32) >> 16).astype(np.int64)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _peaks(
    spectra: NDArray[np.float32], floors: NDArray[np.float32], first: int, stop: int, sample_rate: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], int]:
    """Peaks and their parabolas, rounded wherever librosa rounds."""
    rows, bins = spectra.shape
    room = rows * ((stop - first + 1) // 2 + 1)
    pitches, heights, count = np.empty(room, np.float32), np.empty(room, np.float32), 0
    for t in range(rows):
        row, floor = spectra[t], floors[t]
        for f in range(first, stop):
            below, here, above = row[f - 1], row[f], row[f + 1]
            if not here > floor or (below > floor and below >= here) or above > here:
                continue
            rise = above - below
            bend, slope = np.float64(above + below) - 2.0 * here, np.float64(rise) / 2
            shift = np.float32(0) if abs(slope) >= abs(bend) else np.float32(-slope / bend)
            pitches[count] = (f + np.float64(shift)) * sample_rate / (2 * (bins - 1))
            heights[count] = here + np.float32(0.5) * (rise / np.float32(2)) * shift
            count += 1
    return pitches, heights, count
