"""Fundamental frequency by pYIN: YIN under a distribution of thresholds, then a hidden Markov model.

M. Mauch and S. Dixon, "pYIN: a fundamental frequency estimator using probabilistic threshold distributions",
ICASSP 2014, with the constants of the authors' software as librosa has them: beta(2, 18) thresholds, and
Boltzmann weights among the troughs below each. YIN itself is A. de Cheveigné and H. Kawahara, "YIN, a
fundamental frequency estimator for speech and music", JASA 111 (2002).

Three things make it fast. Autocorrelations are computed from the spectra of the hops. Thresholds between the same two
troughs give the same result, so only their total prior mass is used. A transition of the model is a triangle over the
change of pitch times a change of voicing, so a step is one banded max-plus product for each voicing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.fft
import scipy.special
from numba import njit
from numpy.typing import NDArray

from triptych.extractors.audio.fast.pitch_path import TINY, viterbi
from triptych.extractors.audio.fast.spectra import HOP, N_FFT, Hops
from triptych.extractors.scratch import Scratch, release

BINS_PER_SEMITONE = 10
ROWS_A_BLOCK = 4096  # of the hidden Markov model, in memory at a time
MAX_OCTAVES_PER_SECOND = 35.92
N_THRESHOLDS = 100
THRESHOLD_PRIOR = (2, 18)
TROUGH_DECAY = 2.0
NO_TROUGH_PROBABILITY = 0.01

_QUARTER_TURNS = np.array([1, -1j, -1, 1j])


@dataclass(frozen=True, eq=False)
class Model:
    """The tables of a sample rate, an F0 range and a frame length.

    Attributes
    ----------
    hops
        Hops in a frame.
    shortest, longest
        Range of the periods that are examined, in samples.
    turns
        Phase factors that shift a hop's spectrum by 0, 1, ... hops, shape (span + 1, bins of the
        autocorrelation's spectrum); the longest period covers `span` hops.
    thresholds, cumulative
        YIN thresholds and the prior's mass up to each, shape (101,).
    decay, norm
        ``norm[n] * decay[k]`` is the Boltzmann weight of the k-th of n troughs.
    frequencies
        Frequency of each pitch bin [Hz], shape (bins,).
    triangle, edge
        ``triangle[abs(j - k)] + edge[k]`` is the logarithm of the transition from pitch bin k to j.
    """

    sample_rate: int
    hops: int
    shortest: int
    longest: int
    turns: NDArray[np.complex128]
    thresholds: NDArray[np.float64]
    cumulative: NDArray[np.float64]
    decay: NDArray[np.float64]
    norm: NDArray[np.float64]
    frequencies: NDArray[np.float64]
    triangle: NDArray[np.float64]
    edge: NDArray[np.float64]


@lru_cache(maxsize=8)
def model(sample_rate: int, fmin: float, fmax: float, frame_length: int) -> Model:
    """Compute the tables for frames that start every `HOP` samples.

    Raises
    ------
    ValueError
        Frames are not made of whole hops about their centre, or a period reaches over more hops than a spectrum
        of `N_FFT` can hold.
    """
    if frame_length % (2 * HOP):
        raise ValueError(f"frame_length {frame_length} is no multiple of {2 * HOP}")
    shortest, longest = math.floor(sample_rate / fmax), math.ceil(sample_rate / fmin)
    longest = min(longest, frame_length - 1)
    span = min(-(-longest // HOP), frame_length // HOP - 1)
    if (span + 1) * HOP > N_FFT:
        raise ValueError(f"fmin {fmin} has a period of more than {N_FFT - HOP} samples at {sample_rate} Hz")
    length = 2 * HOP if span <= 1 else N_FFT  # no lag of two hops wraps onto a period looked at
    quarters = np.outer(np.arange(span + 1), np.arange(length // 2 + 1)) * (4 * HOP // length)

    troughs = np.arange((longest - shortest) // 2 + 3)
    bins = math.floor(12 * BINS_PER_SEMITONE * math.log2(fmax / fmin)) + 1
    width = round(MAX_OCTAVES_PER_SECOND * 12 * HOP / sample_rate) * BINS_PER_SEMITONE + 1
    triangle = 1 - np.arange(width // 2 + 1) / (width // 2 + 1)
    # What of the triangle about each bin lies within the range, over which it is shared out.
    reach = np.minimum(np.arange(bins), width // 2)
    inside = np.cumsum(triangle)[reach] + np.cumsum(triangle)[reach[::-1]] - 1
    thresholds = np.linspace(0, 1, N_THRESHOLDS + 1)
    return Model(
        sample_rate=sample_rate,
        hops=frame_length // HOP,
        shortest=shortest,
        longest=longest,
        turns=_QUARTER_TURNS[quarters % 4],
        thresholds=thresholds,
        cumulative=scipy.special.betainc(*THRESHOLD_PRIOR, thresholds),
        decay=np.exp(-TROUGH_DECAY * troughs),
        norm=(1 - math.exp(-TROUGH_DECAY)) / (1 - np.exp(-TROUGH_DECAY * np.maximum(troughs, 1))),
        frequencies=fmin * 2 ** (np.arange(bins) / (12 * BINS_PER_SEMITONE)),
        triangle=np.log(triangle),
        edge=-np.log(inside),
    )


def candidates(samples: NDArray[np.float32], hops: Hops, model: Model) -> NDArray[np.float64]:
    """Compute the probabilities of the pitch candidates (stage 1 of Mauch and Dixon).

    Parameters
    ----------
    samples
        Shape (hops * HOP,).
    hops
        Their `hop_spectra`, of T + model.hops - 1 hops.

    Returns
    -------
    NDArray
        P(f0 | frame), shape (T, bins), mostly 0; a row sums up to the probability that its frame is voiced.
    """
    bins = hops.even if model.turns.shape[1] == hops.even.shape[1] else hops.every_bin()
    acf = scipy.fft.irfft(_autocorrelation_spectra(bins, model.turns, model.hops), axis=1)
    probabilities: NDArray[np.float64] = _candidates(
        samples,
        acf,
        model.shortest,
        model.longest,
        model.thresholds,
        model.cumulative,
        model.decay,
        model.norm,
        float(model.sample_rate),
        model.frequencies,
    )
    return probabilities


class Candidates(Sequence[NDArray[np.float64]]):
    """The candidates of a clip, stored without their zeros; a sequence of blocks of shape (`ROWS_A_BLOCK`, bins)."""

    def __init__(self, bins: int) -> None:
        self._bins = bins
        self._rows = 0
        self._until = [0]  # candidates before each row
        self._scratch = Scratch([("bin", np.int16), ("probability", np.float64)])
        self._stored: NDArray[Any] | None = None

    def append(self, probabilities: NDArray[np.float64]) -> None:
        """Add the rows that `candidates` has computed, before any block is read."""
        rows, bins = np.nonzero(probabilities)
        stored = np.empty(len(rows), [("bin", np.int16), ("probability", np.float64)])
        stored["bin"], stored["probability"] = bins, probabilities[rows, bins]
        self._until.extend(self._until[-1] + np.cumsum(np.bincount(rows, minlength=len(probabilities))))
        self._scratch.write(stored)
        self._rows += len(probabilities)

    def __len__(self) -> int:
        return -(-self._rows // ROWS_A_BLOCK)

    def __getitem__(self, number: Any) -> Any:
        if self._stored is None:
            self._stored = self._scratch.array()
        start = range(len(self))[number] * ROWS_A_BLOCK
        until = np.array(self._until[start : start + ROWS_A_BLOCK + 1])
        block = np.zeros((len(until) - 1, self._bins))
        stored = self._stored[until[0] : until[-1]]
        block[np.repeat(np.arange(len(block)), np.diff(until)), stored["bin"]] = stored["probability"]
        release(self._stored)
        return block


def track(
    probabilities: Sequence[NDArray[np.float64]], model: Model
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Find the most likely pitch track (stage 2 of Mauch and Dixon).

    Parameters
    ----------
    probabilities
        Of a whole clip's `candidates`, blocks of shape (rows, bins).

    Returns
    -------
    f0
        Hz, shape (T,); a guess where unvoiced.
    voiced
        Shape (T,).
    """
    states: NDArray[np.int64] = viterbi(probabilities, model.triangle, model.edge)
    bins = len(model.frequencies)
    return model.frequencies[states % bins], states < bins


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _autocorrelation_spectra(
    hops: NDArray[np.complex128], turns: NDArray[np.complex128], hops_a_frame: int
) -> NDArray[np.complex128]:
    """Compute the spectra whose inverse DFT is each frame's autocorrelation, at lags up to the longest period.

    A frame's autocorrelation is the sum of the cross-correlations of all pairs of its hops. Pairs at a distance
    greater than the span add nothing at these lags. The pairs that start with one hop are the same in every frame
    that has it, but a frame in which it is near the end has fewer of them: `led[k]` stores, for the last few hops,
    the sum over the pairs at a distance of at most k.
    """
    pairs, bins = turns.shape
    spectra = np.empty((hops.shape[0] - hops_a_frame + 1, bins), np.complex128)
    led = np.empty((pairs, hops_a_frame, bins), np.complex128)
    for late in range(hops.shape[0]):
        y = hops[late]
        for distance in range(min(pairs, late + 1)):
            x, turn, sums = (
                hops[late - distance],
                turns[distance],
                led[distance, (late - distance) % hops_a_frame],
            )
            for f in range(bins):
                sums[f] = x[f].conjugate() * y[f] * turn[f]
            if distance:
                nearer = led[distance - 1, (late - distance) % hops_a_frame]
                for f in range(bins):
                    sums[f] += nearer[f]
        first = late - hops_a_frame + 1
        if first >= 0:
            frame = spectra[first]
            frame[:] = led[0, late % hops_a_frame]
            for leads in range(first, late):
                sums = led[min(pairs - 1, late - leads), leads % hops_a_frame]
                for f in range(bins):
                    frame[f] += sums[f]
    return spectra


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _normalised_difference(
    samples: NDArray[np.float32], acf: NDArray[np.float64], shortest: int, out: NDArray[np.float64]
) -> None:
    """YIN's cumulative mean normalised difference d' (de Cheveigné and Kawahara, equations 7 and 8).

    The running sums have single precision, like librosa's: near a period d is almost 0, and the remaining value is
    their rounding error. As in librosa, d(1) includes the energy of the first sample, which changes the means of a
    signal that is small compared with its offset.
    """
    longest = shortest + len(out) - 1
    energy, total = np.float32(0), np.float32(0)
    for period in range(1, longest + 1):
        energy += samples[period - 1] * samples[period - 1]
        left = energy if period > 1 else np.float32(0)
        difference = np.float32(2 * (acf[0] - acf[period]) - left)
        total += difference
        if period >= shortest:
            out[period - shortest] = difference / (total / np.float64(period) + TINY)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _find_troughs(
    difference: NDArray[np.float64],
    thresholds: NDArray[np.float64],
    position: NDArray[np.int64],
    rank: NDArray[np.int64],
) -> tuple[int, int]:
    """Write each trough's position and how many thresholds, 0 aside, lie at or below it.

    Return how many troughs there are, and which of them is the deepest.
    """
    last, top = len(difference) - 1, len(thresholds) - 1
    count = deepest = 0
    for i in range(last + 1):
        here = difference[i]
        falls = here < difference[i - 1] if i else here < difference[1]
        if not falls or (0 < i < last and here > difference[i + 1]):
            continue
        lower = min(max(int(here * top), 0), top)  # an estimate, wrong by at most one because of rounding
        while lower > 0 and thresholds[lower] > here:
            lower -= 1
        while lower < top and thresholds[lower + 1] <= here:
            lower += 1
        position[count], rank[count] = i, lower
        if here < difference[position[deepest]]:
            deepest = count
        count += 1
    return count, deepest


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _weigh_troughs(
    rank: NDArray[np.int64],
    deepest: int,
    cumulative: NDArray[np.float64],
    decay: NDArray[np.float64],
    norm: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> None:
    """Write each trough's probability under the prior of thresholds.

    A threshold gives its mass to the troughs below it, by Boltzmann's distribution as in the authors' software,
    or a hundredth of it to the deepest where none is. Thresholds between two ranks have the same troughs below
    them, so they count by the prior's mass.
    """
    top = len(cumulative) - 1
    weight[:] = 0
    weight[deepest] = NO_TROUGH_PROBABILITY * cumulative[rank[deepest]]
    lower = rank[deepest]
    while lower < top:
        upper, below = top, 0
        for i in range(len(rank)):
            if rank[i] <= lower:
                below += 1
            elif rank[i] < upper:
                upper = rank[i]
        share = (cumulative[upper] - cumulative[lower]) * norm[below]
        nth = 0
        for i in range(len(rank)):
            if rank[i] <= lower:
                weight[i] += share * decay[nth]
                nth += 1
        lower = upper


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _vertex(difference: NDArray[np.float64], i: int) -> float:
    """Return the vertex of the parabola through points i - 1, i and i + 1, relative to i."""
    if i in (0, len(difference) - 1):
        return 0.0
    bend = difference[i + 1] + difference[i - 1] - 2 * difference[i]
    slope = (difference[i + 1] - difference[i - 1]) / 2
    return 0.0 if abs(slope) >= abs(bend) else -slope / bend


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _candidates(
    samples: NDArray[np.float32],
    acf: NDArray[np.float64],
    shortest: int,
    longest: int,
    thresholds: NDArray[np.float64],
    cumulative: NDArray[np.float64],
    decay: NDArray[np.float64],
    norm: NDArray[np.float64],
    sample_rate: float,
    frequencies: NDArray[np.float64],
) -> NDArray[np.float64]:
    periods = longest - shortest + 1
    difference, weight = np.empty(periods), np.empty(periods)
    position, rank = np.empty(periods, np.int64), np.empty(periods, np.int64)
    probabilities = np.zeros((acf.shape[0], len(frequencies)))
    for t in range(acf.shape[0]):
        _normalised_difference(samples[t * HOP :], acf[t], shortest, difference)
        count, deepest = _find_troughs(difference, thresholds, position, rank)
        if not count:
            continue
        _weigh_troughs(rank[:count], deepest, cumulative, decay, norm, weight[:count])
        for i in range(count):
            if weight[i] > 0:
                f0 = sample_rate / (shortest + position[i] + _vertex(difference, position[i]))
                pitch = round(12 * BINS_PER_SEMITONE * math.log2(f0 / frequencies[0]))
                if pitch < len(frequencies):
                    probabilities[t, max(pitch, 0)] = weight[i]
    return probabilities
