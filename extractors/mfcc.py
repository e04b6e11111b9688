"""Mel-frequency cepstral coefficients from magnitude spectra, with librosa's filters and decibels."""

from __future__ import annotations

from functools import lru_cache

import librosa
import numpy as np
import scipy.fft
from librosa.filters import mel as mel_filters
from numba import njit
from numpy.typing import NDArray

from extractors.spectra import N_FFT

N_MELS = 128
N_MFCC = 20


def mel_power(spectra: NDArray[np.float32], sample_rate: int, htk: bool) -> NDArray[np.float32]:
    """Power in librosa's triangular mel bands; spectra of shape (T, 1025) give shape (T, 128)."""
    bands: NDArray[np.float32] = _mel_power(spectra, *_mel_filters(sample_rate, htk))
    return bands


def mfcc(mel: NDArray[np.float32]) -> NDArray[np.float64]:
    """First 20 of the orthonormal DCT-II of a whole clip's mel power in decibels, cut 80 below its loudest.

    Shape (T, 128) gives shape (T, 20).
    """
    decibels: NDArray[np.float64] = librosa.power_to_db(mel) @ _cosines()
    return decibels


@lru_cache(maxsize=8)
def _mel_filters(
    sample_rate: int, htk: bool
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Give the weights, shape (2, 1025), and the bins from which and up to which each filter reads.

    Triangles overlap their neighbours but not the next but one, so that every second shares a row.
    """
    filters = mel_filters(sr=sample_rate, n_fft=N_FFT, n_mels=N_MELS, htk=htk)
    read = filters > 0  # a narrow filter between two bins reads none
    begin = read.argmax(axis=1)
    weights = np.stack([filters[0::2].sum(axis=0), filters[1::2].sum(axis=0)])
    return weights, begin, begin + read.sum(axis=1)


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
