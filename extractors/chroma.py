"""Chromagram of the constant-Q transform, and the tuning it is taken at.

C. Schörkhuber and A. Klapuri, "Constant-Q transform toolbox for music processing", SMC 2010: the wavelets of
one octave, held as the sparse spectra of section 2.2, serve every octave, the signal being halved in rate from
one to the next (section 2.3). librosa builds them anew for each octave of each clip. Here they are built once
a tuning; and a frame's DFT, of which the wavelets read a tenth, is put together from DFTs of its hops, which
matters in the low octaves, where a frame holds up to 128.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import librosa
import numpy as np
import soxr
from numba import njit
from numpy.typing import NDArray

from extractors.spectra import HOP, N_FFT

BINS_PER_OCTAVE = 36
OCTAVES = 7
N_CHROMA = 12
SPARSITY = 0.01  # what of a wavelet's summed magnitude its sparse spectrum leaves out
PEAK_RANGE = (150.0, 4000.0)  # Hz, where the tuning looks for peaks
PEAK_THRESHOLD = 0.1  # of the frame's largest magnitude

# Tuning


def spectral_peaks(
    spectra: NDArray[np.float32], sample_rate: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Frequencies (Hz) and magnitudes of all peaks of spectra of shape (T, 1025), as `librosa.piptrack`'s."""
    frequencies = librosa.fft_frequencies(sr=sample_rate, n_fft=N_FFT)
    first, stop = np.searchsorted(frequencies, [PEAK_RANGE[0], min(PEAK_RANGE[1], sample_rate / 2)])
    pitches, heights, count = _peaks(spectra, first, stop, float(sample_rate))
    return pitches[:count], heights[:count]


def tuning(pitches: NDArray[np.float32], heights: NDArray[np.float32]) -> float:
    """Tuning of a whole clip in bins of 1/36 octave, of its peaks no lower than their median."""
    loud = pitches[heights >= np.median(heights)] if len(pitches) else pitches
    return float(librosa.pitch_tuning(loud, bins_per_octave=BINS_PER_OCTAVE))


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _peaks(
    spectra: NDArray[np.float32], first: int, stop: int, sample_rate: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], int]:
    """Peaks and their parabolas, rounded wherever librosa rounds."""
    rows, bins = spectra.shape
    room = rows * ((stop - first + 1) // 2 + 1)
    pitches, heights, count = np.empty(room, np.float32), np.empty(room, np.float32), 0
    for t in range(rows):
        row = spectra[t]
        floor = np.float32(PEAK_THRESHOLD) * row.max()
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


# Constant-Q transform


@dataclass(frozen=True)
class Pyramid:
    """What all tunings share at one sample rate.

    Attributes
    ----------
    halvings
        Of the rate before the top octave, which lies that far below the Nyquist frequency.
    n_fft
        Samples of an octave's frames, at its own rate.
    first, stop
        The DFT bins of a frame that any wavelet reads.
    """

    halvings: int
    n_fft: int
    first: int
    stop: int

    @property
    def shares_hops(self) -> bool:
        """Whether frames of the top octave are two hops of `spectra.hop_spectra`."""
        return not self.halvings and self.n_fft == 2 * HOP

    def top_octave(self, hops: NDArray[np.complex128]) -> NDArray[np.complex128]:
        """Pick the bins read from hops of shape (n, 1025); shape (stop - first, n)."""
        step = N_FFT // self.n_fft
        return hops[:, self.first * step : self.stop * step : step].T


@dataclass(frozen=True, eq=False)
class Wavelets:
    """One octave of the wavelets of a tuning.

    Attributes
    ----------
    first, count
        Each wavelet's first DFT bin, counted from the pyramid's, and how many it reads; shape (36,).
    weights
        Their conjugate spectra, normalised; shape (36, largest count).
    chroma
        Each wavelet's chroma class, shape (36,).
    """

    first: NDArray[np.int64]
    count: NDArray[np.int64]
    weights: NDArray[np.complex128]
    chroma: NDArray[np.int64]


@lru_cache(maxsize=8)
def pyramid(sample_rate: int) -> Pyramid:
    """Lay out the octaves.

    Raises
    ------
    ValueError
        At this rate they differ from tuning to tuning.
    """
    shapes, bins = set(), []
    for extreme in (-0.5, 0.5):
        halvings, spectra = _wavelet_spectra(sample_rate, extreme)
        shapes.add((halvings, 2 * (spectra.shape[1] - 1)))
        bins.append(np.flatnonzero(spectra.any(axis=0)))
    if len(shapes) > 1:
        raise ValueError(f"at sample_rate {sample_rate} the wavelets' length depends on the tuning")
    (halvings, n_fft), read = shapes.pop(), np.concatenate(bins)
    return Pyramid(halvings, n_fft, int(read.min()), int(read.max()) + 1)


@lru_cache(maxsize=256)
def wavelets(sample_rate: int, tuning: float) -> Wavelets:
    """Build the top octave's wavelets; a clip's tuning is one of a hundred."""
    shared = pyramid(sample_rate)
    spectra = _wavelet_spectra(sample_rate, tuning)[1][:, shared.first : shared.stop]
    read = [np.flatnonzero(row) for row in spectra]
    first, count = np.array([b[0] for b in read]), np.array([b[-1] - b[0] + 1 for b in read])
    weights = np.zeros((BINS_PER_OCTAVE, count.max()), dtype=np.complex128)
    for row, spectrum, begin, width in zip(weights, spectra, first, count, strict=True):
        row[:width] = spectrum[begin : begin + width]
    classes = librosa.filters.cq_to_chroma(
        OCTAVES * BINS_PER_OCTAVE, bins_per_octave=BINS_PER_OCTAVE, n_chroma=N_CHROMA
    )
    return Wavelets(first, count, weights, classes[:, :BINS_PER_OCTAVE].argmax(axis=0))


def chroma_cqt(
    waveform: NDArray[np.float32],
    sample_rate: int,
    tuning: float,
    top_octave: NDArray[np.complex128] | None = None,
) -> NDArray[np.float64]:
    """Chromagram, a row every `HOP` samples, each divided by its largest value.

    Parameters
    ----------
    waveform
        Shape (n,), n >= 1.
    tuning
        In bins.
    top_octave
        Where the pyramid `shares_hops`, its bins of all hops from ``HOP`` samples before the waveform on; shape
        (stop - first, T + 1).

    Returns
    -------
    NDArray
        Shape (12, T), T = 1 + n // HOP.
    """
    shared, bank = pyramid(sample_rate), wavelets(sample_rate, tuning)
    rows = 1 + len(waveform) // HOP
    chroma = np.zeros((N_CHROMA, rows))
    samples, hop = waveform, HOP
    for _ in range(shared.halvings):
        samples, hop = _halved(samples), hop // 2
    for octave in range(OCTAVES):
        if octave:
            samples, hop = _halved(samples), hop // 2
        if octave == 0 and shared.shares_hops and top_octave is not None:
            spectra, size = np.stack([top_octave.real, top_octave.imag]), HOP
        else:
            size = min(hop, shared.n_fft // 2)
            spectra = _block_spectra(samples, size, (rows - 1) * (hop // size), shared)
        _join_blocks(spectra, _turns(size, shared))
        frames = spectra[:, :, :: hop // size] if hop > size else spectra
        _add_wavelets(frames, bank.first, bank.count, bank.weights, bank.chroma, chroma)
    peak = chroma.max(axis=0)
    return chroma / np.where(peak < np.finfo(np.float32).tiny, 1, peak)


def _wavelet_spectra(sample_rate: int, tuning: float) -> tuple[int, NDArray[np.complex128]]:
    """Halvings before the top octave, and the spectra of its wavelets as `librosa.cqt` has them, scaled."""
    bottom = librosa.note_to_hz("C1") * 2.0 ** (tuning / BINS_PER_OCTAVE)
    frequencies = librosa.interval_frequencies(
        OCTAVES * BINS_PER_OCTAVE,
        fmin=bottom,
        intervals="equal",
        bins_per_octave=BINS_PER_OCTAVE,
        sort=True,
    )
    lengths, cutoff = librosa.filters.wavelet_lengths(freqs=frequencies, sr=sample_rate, gamma=0)
    halvings = max(0, math.ceil(math.log2(sample_rate / 2 / cutoff)) - 2)
    kernels, lengths = librosa.filters.wavelet(
        freqs=frequencies[-BINS_PER_OCTAVE:], sr=sample_rate / 2**halvings, gamma=0
    )
    n_fft = kernels.shape[1]
    spectra = np.fft.fft(kernels * (lengths[:, np.newaxis] / n_fft), axis=1)[:, : n_fft // 2 + 1]
    sizes = np.abs(spectra)
    ordered = np.sort(sizes, axis=1)
    share = np.cumsum(ordered / sizes.sum(axis=1, keepdims=True), axis=1)
    least = np.take_along_axis(ordered, np.argmin(share < SPARSITY, axis=1)[:, np.newaxis], axis=1)
    return halvings, np.where(sizes >= least, spectra, 0) / np.sqrt(lengths)[:, np.newaxis]


def _halved(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Halve the rate and keep the energy, as `librosa.resample` does."""
    wanted = -(-len(samples) // 2)
    halved = soxr.resample(samples, 2, 1, "soxr_hq")[:wanted]
    if len(halved) < wanted:
        halved = np.pad(halved, (0, wanted - len(halved)))
    scaled: NDArray[np.float32] = halved * np.float32(math.sqrt(2))
    return scaled


@lru_cache(maxsize=64)
def _block_dft(size: int, shared: Pyramid) -> NDArray[np.float64]:
    """Real rows, then imaginary rows, of the DFT of `size` samples at the bins read."""
    bins = np.arange(shared.first, shared.stop)
    table = np.exp(-2j * np.pi * (np.outer(bins, np.arange(size)) % shared.n_fft) / shared.n_fft)
    return np.concatenate([table.real, table.imag])


@lru_cache(maxsize=64)
def _turns(size: int, shared: Pyramid) -> NDArray[np.complex128]:
    """What turns the bins read by 1, 2, 4, ... blocks, up to half a frame; shape (log2 of blocks, bins)."""
    bins = np.arange(shared.first, shared.stop)
    blocks = 2 ** np.arange(int(math.log2(shared.n_fft // size)))
    return np.exp(-2j * np.pi * (np.outer(blocks * size, bins) % shared.n_fft) / shared.n_fft)


def _block_spectra(
    samples: NDArray[np.float32], size: int, last: int, shared: Pyramid
) -> NDArray[np.float64]:
    """DFT of every block of `size` samples that a frame begun at block 0 to `last` reads; shape (2, bins, n).

    Half a frame of silence lies before the samples, so that frames are centred.
    """
    blocks = last + shared.n_fft // size
    padded = np.zeros(blocks * size)
    held = samples[: len(padded) - shared.n_fft // 2]
    padded[shared.n_fft // 2 :][: len(held)] = held
    return (_block_dft(size, shared) @ padded.reshape(blocks, size).T).reshape(2, -1, blocks)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _join_blocks(spectra: NDArray[np.float64], turns: NDArray[np.complex128]) -> None:
    """Make of each block's DFT that of the frame which begins with it.

    Two blocks make a pair, two pairs apart by two a four, and so on: frames share what they have in common.
    """
    for f in range(spectra.shape[1]):
        re, im = spectra[0, f], spectra[1, f]
        apart, blocks = 1, len(re)
        for level in range(turns.shape[0]):
            cos, sin = turns[level, f].real, turns[level, f].imag
            blocks -= apart
            for t in range(blocks):
                x, y = re[t + apart], im[t + apart]
                re[t] += cos * x - sin * y
                im[t] += cos * y + sin * x
            apart *= 2


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _add_wavelets(
    frames: NDArray[np.float64],
    first: NDArray[np.int64],
    count: NDArray[np.int64],
    weights: NDArray[np.complex128],
    classes: NDArray[np.int64],
    chroma: NDArray[np.float64],
) -> None:
    """Add each wavelet's magnitude (Schörkhuber and Klapuri, equation 9) to its chroma class."""
    rows = chroma.shape[1]
    re, im = np.empty(rows), np.empty(rows)
    for k in range(len(first)):
        re[:] = 0
        im[:] = 0
        for i in range(count[k]):
            a, b = weights[k, i].real, weights[k, i].imag
            x, y = frames[0, first[k] + i], frames[1, first[k] + i]
            for t in range(rows):
                re[t] += a * x[t] - b * y[t]
                im[t] += a * y[t] + b * x[t]
        total = chroma[classes[k]]
        for t in range(rows):
            total[t] += math.sqrt(re[t] * re[t] + im[t] * im[t])
