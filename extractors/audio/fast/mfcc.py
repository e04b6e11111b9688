"""Mel-frequency cepstral coefficients from magnitude spectra, with librosa's filters and decibels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft
from numba import njit
from numpy.typing import NDArray

from triptych.extractors.audio.fast.spectra import N_FFT
from triptych.extractors.scratch import parts

N_MELS = 128
N_MFCC = 20
ROWS_AT_A_TIME = 16384  # so that the decibels of a long clip are not all in memory at once
QUIETEST, RANGE = 1e-10, 80.0  # lowest power, and lowest level in decibels below a clip's loudest


def mel_power(spectra: NDArray[np.float32], sample_rate: int, htk: bool) -> NDArray[np.float32]:
    """Compute the power in librosa's triangular mel bands, from shape (T, 1025) to shape (T, 128)."""
    bands: NDArray[np.float32] = _mel_power(spectra, *_mel_filters(sample_rate, htk))
    return bands


def mfcc(mel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute 20 MFCC of a clip: the orthonormal DCT-II of its mel power in dB, at most 80 dB below its maximum.

    Shape (T, 128) gives shape (T, 20).
    """
    loudest = max(_decibels(part).max() for part in parts(mel, ROWS_AT_A_TIME))
    cepstra = (
        np.maximum(_decibels(part), loudest - RANGE) @ _cosines() for part in parts(mel, ROWS_AT_A_TIME)
    )
    return np.concatenate([part.astype(np.float32) for part in cepstra])


def _decibels(mel: NDArray[np.float32]) -> NDArray[np.float32]:
    decibels: NDArray[np.float32] = 10 * np.log10(np.maximum(QUIETEST, mel))
    return decibels


@lru_cache(maxsize=8)
def _mel_filters(
    sample_rate: int, htk: bool
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Give the weights, shape (2, 1025), and the bins from which and up to which each filter reads.

    A triangle overlaps its two neighbours only, so the even ones are stored in one row and the odd ones in the other.
    """
    filters = _triangles(sample_rate, htk)
    read = filters > 0  # a narrow filter between two bins reads none
    begin = read.argmax(axis=1)
    weights = np.stack([filters[0::2].sum(axis=0), filters[1::2].sum(axis=0)])
    return weights, begin, begin + read.sum(axis=1)


def _triangles(sample_rate: int, htk: bool) -> NDArray[np.float32]:
    """Filters of one area, shape (128, 1025), equally wide in mel: Slaney's Auditory Toolbox's, or HTK's."""
    corners = _mel_to_hz(np.linspace(0, _hz_to_mel(sample_rate / 2, htk), N_MELS + 2), htk)
    bins = np.fft.rfftfreq(N_FFT, 1 / sample_rate)
    widths, ramps = np.diff(corners)[:, np.newaxis], corners[:, np.newaxis] - bins
    rising, falling = -ramps[:-2] / widths[:-1], ramps[2:] / widths[1:]
    filters: NDArray[np.float32] = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    filters *= (2 / (corners[2:] - corners[:-2]))[:, np.newaxis]
    return filters


# Slaney's scale: linear up to 1 kHz, then logarithmic.
_LINEAR, _KNEE = 200 / 3, 1000.0  # Hz a mel; Hz
_STEP = np.log(6.4) / 27  # of the logarithm, a mel


def _hz_to_mel(hz: float, htk: bool) -> float:
    if htk:
        return float(2595 * np.log10(1 + hz / 700))
    return float(_KNEE / _LINEAR + np.log(hz / _KNEE) / _STEP) if hz >= _KNEE else hz / _LINEAR


def _mel_to_hz(mel: NDArray[np.float64], htk: bool) -> NDArray[np.float64]:
    if htk:
        return 700 * (10 ** (mel / 2595) - 1)
    knee = _KNEE / _LINEAR
    return np.where(mel >= knee, _KNEE * np.exp(_STEP * (mel - knee)), _LINEAR * mel)


@lru_cache(maxsize=1)
def _cosines() -> NDArray[np.float64]:
    table: NDArray[np.float64] = scipy.fft.dct(np.eye(N_MELS), type=2, norm="ortho")[:, :N_MFCC]
    return table


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _mel_power(
    spectra: NDArray[np.float32],
    weights: NDArray[np.float32],
    begin: NDArray[np.int64],
    end: NDArray[np.int64],
) -> NDArray[np.float32]:
    rows, bins = spectra.shape
    bands = np.empty((rows, len(begin)), np.float32)
    weighted = np.empty((2, bins), np.float32)
    for t in range(rows):
        for f in range(bins):
            power = spectra[t, f] * spectra[t, f]
            weighted[0, f] = weights[0, f] * power
            weighted[1, f] = weights[1, f] * power
        for m in range(len(begin)):
            total = np.float32(0)
            for f in range(begin[m], end[m]):
                total += weighted[m % 2, f]
            bands[t, m] = total
    return bands
