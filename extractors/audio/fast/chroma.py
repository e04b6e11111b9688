"""Chromagram of the constant-Q transform.

C. Schörkhuber and A. Klapuri, "Constant-Q transform toolbox for music processing", SMC 2010: the wavelets of
one octave, stored as sparse spectra, serve every octave, because the sample rate is halved from one octave to the next.
librosa builds the wavelets again for each octave of each clip; here they are built once for each tuning. The wavelets
read only a tenth of a frame's DFT bins, and these are computed from the DFTs of the frame's hops. This saves most in
the low octaves, where a frame has up to 128 hops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import soxr
from numba import njit
from numpy.typing import NDArray

from triptych.extractors.audio.fast.constant_q import BINS_PER_OCTAVE, OCTAVES, wavelet_spectra
from triptych.extractors.audio.fast.spectra import HOP, Hops
from triptych.extractors.scratch import Scratch, parts, release

N_CHROMA = 12
ROWS_AT_A_TIME = 4096  # 95 s: a longer clip is computed in parts, so that memory stays bounded


@dataclass(frozen=True)
class Pyramid:
    """The layout of the octaves at one sample rate; it is the same for all tunings.

    Attributes
    ----------
    halvings
        How often the sample rate is halved before the top octave is computed, since that lies far below the
        Nyquist frequency.
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

    def top_octave(self, hops: Hops) -> NDArray[np.float64]:
        """Select the DFT bins that wavelets read, for n hops; shape (2, stop - first, n)."""
        read = hops.even[:, self.first : self.stop].T
        return np.stack([read.real, read.imag])


@dataclass(frozen=True, eq=False)
class Wavelets:
    """One octave of the wavelets of a tuning.

    Attributes
    ----------
    first, count
        Each wavelet's first DFT bin, counted from the pyramid's, and how many it reads; shape (36,).
    weights
        Their spectra, shape (36, largest count).
    scale
        Factor on each wavelet's magnitude: one over the square root of its length; shape (36,).
    chroma
        Each wavelet's chroma class, shape (36,).
    """

    first: NDArray[np.int64]
    count: NDArray[np.int64]
    weights: NDArray[np.complex64]
    scale: NDArray[np.float64]
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
        halvings, spectra, _ = wavelet_spectra(sample_rate, extreme)
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
    _, spectra, lengths = wavelet_spectra(sample_rate, tuning)
    spectra = spectra[:, shared.first : shared.stop]
    read = [np.flatnonzero(row) for row in spectra]
    first, count = np.array([b[0] for b in read]), np.array([b[-1] - b[0] + 1 for b in read])
    weights = np.zeros((BINS_PER_OCTAVE, count.max()), dtype=np.complex64)
    for row, spectrum, begin, width in zip(weights, spectra, first, count, strict=True):
        row[:width] = spectrum[begin : begin + width]
    bins_a_class = BINS_PER_OCTAVE // N_CHROMA
    classes = (np.arange(BINS_PER_OCTAVE) + bins_a_class // 2) // bins_a_class % N_CHROMA
    return Wavelets(first, count, weights, 1 / np.sqrt(lengths), classes)


def chroma_cqt(
    waveform: NDArray[np.float32],
    sample_rate: int,
    tuning: float,
    top_octave: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]:
    """Chromagram, a row every `HOP` samples, each divided by its largest value.

    Parameters
    ----------
    waveform
        Shape (n,), n >= 1.
    tuning
        In bins.
    top_octave
        Where the pyramid `shares_hops`, its bins of all hops from ``HOP`` samples before the waveform on: real
        and imaginary parts, shape (2, stop - first, T + 1), for clips of at most `ROWS_AT_A_TIME` rows. Overwritten.

    Returns
    -------
    NDArray
        Shape (12, T), T = 1 + n // HOP.
    """
    shared, bank = pyramid(sample_rate), wavelets(sample_rate, tuning)
    rows = 1 + len(waveform) // HOP
    octaves, workspace = _octaves(waveform, shared.halvings), _Workspace()
    chromagram = np.empty((N_CHROMA, rows), np.float32)
    for start in range(0, rows, ROWS_AT_A_TIME):
        stop = min(start + ROWS_AT_A_TIME, rows)
        part = np.zeros((N_CHROMA, stop - start))
        for octave, (samples, hop) in enumerate(octaves):
            growth = np.float32(
                math.sqrt(2**octave)
            )  # goes in and out again, as in librosa, for its rounding
            if octave == 0 and shared.shares_hops and top_octave is not None:
                blocks, size, middle = top_octave, HOP, 0.0
            else:
                size = min(hop, shared.n_fft // 2)
                blocks, middle = _block_spectra(
                    samples, size, (stop - start - 1) * (hop // size), start * hop, shared, workspace
                )
            frames = np.empty((2, shared.stop - shared.first, stop - start), np.float32)
            _join_blocks(blocks, _turns(size, shared), _phases(middle, shared), hop // size, frames)
            _add_wavelets(
                frames, bank.first, bank.count, bank.weights * growth, bank.scale / growth, bank.chroma, part
            )
            release(samples)
        peak = part.max(axis=0)
        chromagram[:, start:stop] = part / np.where(peak < np.finfo(np.float32).tiny, 1, peak)
    return chromagram


def _octaves(waveform: NDArray[np.float32], halvings: int) -> list[tuple[NDArray[np.float32], int]]:
    """Return the samples of each octave, the highest first, and its samples a row."""
    octaves = [(waveform, HOP)]
    for _ in range(halvings + OCTAVES - 1):
        samples, hop = octaves[-1]
        octaves.append((_halved(samples), hop // 2))
    return octaves[halvings:]


class _Workspace:
    """Two arrays that are reused and grow as needed, since allocating memory costs more than using it."""

    def __init__(self) -> None:
        self._arrays = [np.empty(0), np.empty(0)]

    def array(self, which: int, *shape: int) -> NDArray[np.float64]:
        size = math.prod(shape)
        if len(self._arrays[which]) < size:
            self._arrays[which] = np.empty(size)
        return self._arrays[which][:size].reshape(shape)


def _halved(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Halve the rate and keep the energy, as `librosa.resample` does."""
    halved = Scratch(np.float32)
    stream = soxr.ResampleStream(2, 1, 1, quality="HQ")
    for part in parts(samples):
        halved.write(_louder(stream.resample_chunk(part)))
    missing = -(-len(samples) // 2) - halved.rows
    end = _louder(stream.resample_chunk(samples[:0], last=True)[:missing])
    halved.write(np.pad(end, (0, missing - len(end))))
    return halved.array()


def _louder(halved: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give the energy back; a quotient of single precision, as librosa's: the last bit is heard in silences."""
    louder: NDArray[np.float32] = halved / np.sqrt(0.5)
    return louder


@lru_cache(maxsize=64)
def _block_dft(size: int, shared: Pyramid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the DFT's cosines and negative sines for the second half of a block, relative to its middle."""
    bins = np.arange(shared.first, shared.stop)
    angles = 2 * np.pi / shared.n_fft * np.outer(bins, np.arange(size // 2) + 0.5)
    return np.cos(angles), -np.sin(angles)


@lru_cache(maxsize=64)
def _phases(middle: float, shared: Pyramid) -> NDArray[np.complex128]:
    """Compute the phase factors that move the DFT's time origin from a block's middle to its first sample."""
    phases: NDArray[np.complex128] = np.exp(
        -2j * np.pi * middle * np.arange(shared.first, shared.stop) / shared.n_fft
    )
    return phases


@lru_cache(maxsize=64)
def _turns(size: int, shared: Pyramid) -> NDArray[np.complex128]:
    """Compute the phase factors of a shift by 1, 2, 4, ... blocks, up to half a frame; shape (shifts, bins)."""
    bins = np.arange(shared.first, shared.stop)
    blocks = 2 ** np.arange(int(math.log2(shared.n_fft // size)))
    turns: NDArray[np.complex128] = np.exp(
        -2j * np.pi * (np.outer(blocks * size, bins) % shared.n_fft) / shared.n_fft
    )
    return turns


def _block_spectra(
    samples: NDArray[np.float32], size: int, last: int, begin: int, shared: Pyramid, workspace: _Workspace
) -> tuple[NDArray[np.float64], float]:
    """Compute the DFT of every block that the frames starting at blocks 0 to `last` read; shape (2, bins, n).

    Blocks are counted from sample `begin`. Half a frame of silence is put before the samples, so that frames are
    centred. The DFT of a block relative to its
    middle, which is returned too, needs only cosines for the block's even part and only sines for its odd part.
    """
    blocks = last + shared.n_fft // size
    even_odd = workspace.array(0, 2, blocks, size // 2)
    _fold(samples, shared.n_fft // 2 - begin, even_odd)
    spectra = workspace.array(1, 2, shared.stop - shared.first, blocks)
    for part, folded, table in zip(spectra, even_odd, _block_dft(size, shared), strict=True):
        np.matmul(table, folded.T, out=part)
    return spectra, (size - 1) / 2


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _fold(samples: NDArray[np.float32], silence: int, even_odd: NDArray[np.float64]) -> None:
    """Fold each block at its middle: the sums of mirrored samples, and the later minus the earlier ones."""
    _, blocks, half = even_odd.shape
    block = np.zeros(2 * half)
    for b in range(blocks):
        begin = b * 2 * half - silence
        if 0 <= begin <= len(samples) - 2 * half:
            block[:] = samples[begin : begin + 2 * half]
        else:
            for i in range(2 * half):
                block[i] = samples[begin + i] if 0 <= begin + i < len(samples) else 0.0
        for i in range(half):
            even_odd[0, b, i] = block[half + i] + block[half - 1 - i]
            even_odd[1, b, i] = block[half + i] - block[half - 1 - i]


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _join_blocks(
    spectra: NDArray[np.float64],
    turns: NDArray[np.complex128],
    phases: NDArray[np.complex128],
    stride: int,
    frames: NDArray[np.float32],
) -> None:
    """Write the DFT of the frame that begins with every stride-th block; overwrite the blocks'.

    Two neighbouring blocks are joined into a pair, two pairs into four blocks, and so on, so that frames share the
    DFTs of their common parts. Like librosa's, frames are rounded to single precision with their first sample as the
    phase reference: where loud samples near a frame's ends cancel in a wavelet, the rounding error remains.
    """
    spare_re, spare_im = np.empty(spectra.shape[2]), np.empty(spectra.shape[2])
    for f in range(spectra.shape[1]):
        re, im, to_re, to_im = spectra[0, f], spectra[1, f], spare_re, spare_im
        distance, blocks = 1, len(re)
        for level in range(turns.shape[0]):
            cos, sin = turns[level, f].real, turns[level, f].imag
            later_re, later_im = re[distance:], im[distance:]
            blocks -= distance
            for t in range(blocks):
                to_re[t] = re[t] + cos * later_re[t] - sin * later_im[t]
            for t in range(blocks):
                to_im[t] = im[t] + cos * later_im[t] + sin * later_re[t]
            re, to_re = to_re, re
            im, to_im = to_im, im
            distance *= 2
        cos, sin = phases[f].real, phases[f].imag
        for t in range(frames.shape[2]):
            frames[0, f, t] = cos * re[t * stride] - sin * im[t * stride]
        for t in range(frames.shape[2]):
            frames[1, f, t] = cos * im[t * stride] + sin * re[t * stride]


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _add_wavelets(
    frames: NDArray[np.float32],
    first: NDArray[np.int64],
    count: NDArray[np.int64],
    weights: NDArray[np.complex64],
    scale: NDArray[np.float64],
    classes: NDArray[np.int64],
    chroma: NDArray[np.float64],
) -> None:
    """Add each wavelet's magnitude to its chroma class; sums of single precision, in librosa's order."""
    rows = chroma.shape[1]
    re, im = np.empty(rows, np.float32), np.empty(rows, np.float32)
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
            total[t] += scale[k] * math.sqrt(np.float64(re[t]) ** 2 + np.float64(im[t]) ** 2)
