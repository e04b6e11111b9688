"""Mel-frequency cepstral coefficients from magnitude spectra, with librosa's filters and decibels."""

from __future__ import annotations

from functools import lru_cache

import librosa
import numpy as np
import scipy.fft
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
    """Cepstrum of a whole clip's mel power, shape (T, 128): decibels no more than 80 below its loudest, then
    the first 20 of an orthonormal DCT-II; shape (T, 20).
    """  # noqa: D205
    decibels: NDArray[np.float64] = librosa.power_to_db(mel) @ _cosines()
    return decibels


@lru_cache(maxsize=8)
def _mel_filters(
    sample_rate: int, htk: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Give each filter's first bin, where its weights begin (with an end behind the last), and the weights."""
    filters = librosa.filters.mel(sr=sample_rate, n_fft=N_FFT, n_mels=N_MELS, htk=htk)
    first, weights = [], []
    for row in filters:
        bins = np.flatnonzero(row)  # narrow filters between two bins have none
        first.append(bins[0] if len(bins) else 0)
        weights.append(row[bins[0] : bins[-1] + 1] if len(bins) else row[:0])
    begin = np.cumsum([0, *map(len, weights)])
    return np.array(first), begin, np.concatenate(weights)


@lru_cache(maxsize=1)
def _cosines() -> NDArray[np.float64]:
    table: NDArray[np.float64] = scipy.fft.dct(np.eye(N_MELS), type=2, norm="ortho")[:, :N_MFCC]
    return table


# Sums in any order: what that changes lies below single precision.
@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})  # type: ignore[untyped-decorator]
def _mel_power(
    spectra: NDArray[np.float32],
    first: NDArray[np.int64],
    begin: NDArray[np.int64],
    weights: NDArray[np.float32],
) -> NDArray[np.float32]:
    bands = np.empty((spectra.shape[0], len(first)), np.float32)
    for t in range(spectra.shape[0]):
        power = spectra[t] * spectra[t]
        for m in range(len(first)):
            total = np.float32(0)
            bin_of = first[m] - begin[m]
            for w in range(begin[m], begin[m + 1]):
                total += weights[w] * power[bin_of + w]
            bands[t, m] = total
    return bands
