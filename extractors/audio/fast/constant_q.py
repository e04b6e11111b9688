"""The constant-Q transform's frequencies and wavelets, as librosa lays them out.

C. Schörkhuber and A. Klapuri, "Constant-Q transform toolbox for music processing", SMC 2010: at every frequency
a Hann window over as many periods, stored as a sparse spectrum.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.fft
from numpy.typing import NDArray

BINS_PER_OCTAVE = 36
OCTAVES = 7
C1 = 440 * 2 ** ((24 - 69) / 12)  # Hz
SPARSITY = 0.01  # share of a wavelet's summed magnitude that its sparse spectrum leaves out
HANN_BANDWIDTH = 1.50018310546875  # of the window's main lobe, DFT bins; librosa's number


def frequencies(tuning: float) -> NDArray[np.float64]:
    """Compute the frequency of every bin [Hz], shape (252,), for a tuning in bins."""
    steps = 2.0 ** (np.arange(BINS_PER_OCTAVE) / BINS_PER_OCTAVE)
    every: NDArray[np.float64] = np.outer(2.0 ** np.arange(OCTAVES), steps).ravel()
    every *= C1 * 2.0 ** (tuning / BINS_PER_OCTAVE)
    return every


def wavelet_lengths(frequencies: NDArray[np.float64], sample_rate: float) -> NDArray[np.float64]:
    """Compute the length of each frequency's wavelet, in samples (not a whole number)."""
    return _quality(frequencies) * sample_rate / frequencies


def highest(frequencies: NDArray[np.float64]) -> float:
    """Compute the highest frequency of any wavelet's main lobe [Hz]."""
    return float(max(frequencies * (1 + 0.5 * HANN_BANDWIDTH / _quality(frequencies))))


def wavelet_spectra(
    sample_rate: int, tuning: float
) -> tuple[int, NDArray[np.complex64], NDArray[np.float64]]:
    """Return the halvings before the top octave, its wavelets' spectra as in `librosa.cqt`, and their lengths."""
    every = frequencies(tuning)
    halvings = max(0, math.ceil(math.log2(sample_rate / 2 / highest(every))) - 2)
    top, rate = every[-BINS_PER_OCTAVE:], sample_rate / 2**halvings
    lengths = wavelet_lengths(top, rate)
    n_fft = 2 ** math.ceil(math.log2(max(lengths)))
    kernels = np.zeros((len(top), n_fft), dtype=np.complex64)
    for kernel, frequency, length in zip(kernels, top, lengths, strict=True):
        samples = np.arange(-length // 2, length // 2)
        turns = samples * 2 * np.pi * frequency / rate
        wave = (np.cos(turns) + 1j * np.sin(turns)) * _hann(len(samples))
        begin = (n_fft - len(wave)) // 2
        kernel[begin : begin + len(wave)] = wave / np.abs(wave).sum()
    kernels *= lengths[:, np.newaxis] / n_fft  # in single precision, as in librosa
    spectra = scipy.fft.fft(kernels, axis=1)[:, : n_fft // 2 + 1]
    sizes = np.abs(spectra)
    ordered = np.sort(sizes, axis=1)
    share = np.cumsum(ordered / sizes.sum(axis=1, keepdims=True), axis=1)
    least = np.take_along_axis(ordered, np.argmin(share < SPARSITY, axis=1)[:, np.newaxis], axis=1)
    return halvings, np.where(sizes >= least, spectra, 0), lengths


def _quality(frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute frequency over bandwidth, from the distance of neighbouring frequencies."""
    octaves = np.gradient(np.log2(frequencies))
    squared: NDArray[np.float64] = 2.0 ** (2 * octaves)
    return (squared + 1) / (squared - 1)


def _hann(length: int) -> NDArray[np.float64]:
    window: NDArray[np.float64] = 0.5 + 0.5 * np.cos(np.linspace(-np.pi, np.pi, length + 1)[:-1])
    return window
