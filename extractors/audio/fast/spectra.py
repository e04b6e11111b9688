"""One DFT of every hop; the spectrum of a frame is a sum over its hops.

The DFT is linear, and moving samples by `HOP` within a frame rotates bin f by a fixed angle. So frames are not
transformed: each hop is transformed once, and is rotated and added in every frame that contains it. The
mel spectrum, the tuning, pYIN's autocorrelation and the top octave of the constant-Q transform all read the
same hops.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.fft
from numba import njit
from numpy.typing import NDArray

HOP = 512
N_FFT = 2048
N_BINS = N_FFT // 2 + 1
HOPS_A_FRAME = N_FFT // HOP
_ONE_BIN = np.exp(-2j * np.pi * np.arange(HOP) / N_FFT)


def centred(waveform: NDArray[np.float32], frame_length: int, start: int, stop: int) -> NDArray[np.float32]:
    """Cut out the samples of some frames, padded with silence where they are outside the waveform.

    Frame k is centred on sample ``k * HOP``.

    Parameters
    ----------
    waveform
        Shape (n,), n >= 1.
    frame_length
        A multiple of ``2 * HOP``.
    start, stop
        The first frame, and the one after the last.

    Returns
    -------
    NDArray
        Whole hops; the k-th frame begins with the k-th.
    """
    padded = np.zeros((stop - start - 1) * HOP + frame_length, dtype=np.float32)
    first = start * HOP - frame_length // 2
    inside = waveform[max(first, 0) : max(first + len(padded), 0)]
    padded[max(-first, 0) :][: len(inside)] = inside
    return padded


class Hops(NamedTuple):
    """DFTs of n hops, each padded with silence to `N_FFT` samples.

    Attributes
    ----------
    even
        Bins 0, 2, ... 1024, shape (n, 513).
    odd
        Bins 1, 5, ... 2045, shape (n, 512); the others are mirrored, bin f the conjugate of bin 2048 - f.
    """

    even: NDArray[np.complex128]
    odd: NDArray[np.complex128]

    def every_bin(self) -> NDArray[np.complex128]:
        """Put the bins in order; shape (n, 1025)."""
        bins = np.empty((len(self.even), N_BINS), np.complex128)
        bins[:, ::2] = self.even
        bins[:, 1::4] = self.odd[:, : HOP // 2]
        bins[:, 3::4] = self.odd[:, : HOP // 2 - 1 : -1].conj()
        return bins

    def part(self, start: int, stop: int) -> Hops:
        """Select a range of hops; the end is not included."""
        return Hops(self.even[start:stop], self.odd[start:stop])


def hop_spectra(samples: NDArray[np.float32]) -> Hops:
    """Transform each hop of a whole number of hops.

    Three quarters of the DFT's input would be zeros. A DFT of half the length gives every other bin; a DFT of the hop
    alone, after a rotation by one bin, gives every fourth.
    """
    hops = samples.reshape(-1, HOP).astype(np.float64)
    return Hops(
        scipy.fft.rfft(hops, N_FFT // 2, axis=1), scipy.fft.fft(hops * _ONE_BIN, axis=1, overwrite_x=True)
    )


def magnitudes(hops: Hops) -> NDArray[np.float32]:
    """Magnitude spectra of Hann-windowed frames of `N_FFT` samples.

    Parameters
    ----------
    hops
        Of T + 3 hops.

    Returns
    -------
    NDArray
        Shape (T, 1025), as ``abs(librosa.stft(...))`` has them: rounded to single precision before the
        magnitude is taken. Of a click, whose spectrum is flat, the rounding alone decides where the peaks lie.
    """
    size: NDArray[np.float32] = np.abs(_hann_windowed(hops.even, hops.odd))
    return size


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _hann_windowed(even: NDArray[np.complex128], odd: NDArray[np.complex128]) -> NDArray[np.complex64]:
    """Add up each frame's four hops, bin f of the j-th turned by (-i)^(f j); window by Hann's three bins."""
    windowed = np.empty((even.shape[0] - HOPS_A_FRAME + 1, N_BINS), np.complex64)
    frame = np.empty(N_BINS, np.complex128)
    last = N_BINS - 1
    for t in range(windowed.shape[0]):
        a, b, c, d = even[t], even[t + 1], even[t + 2], even[t + 3]
        for f in range(0, last // 2, 2):
            frame[2 * f] = (a[f] + c[f]) + (b[f] + d[f])
            frame[2 * f + 2] = (a[f + 1] + c[f + 1]) - (b[f + 1] + d[f + 1])
        frame[last] = (a[last // 2] + c[last // 2]) + (b[last // 2] + d[last // 2])
        a, b, c, d = odd[t], odd[t + 1], odd[t + 2], odd[t + 3]
        for f in range(last // 4):
            near, far = a[f] - c[f], b[f] - d[f]
            frame[4 * f + 1] = complex(near.real + far.imag, near.imag - far.real)
            mirror = len(a) - 1 - f
            near, far = a[mirror] - c[mirror], b[mirror] - d[mirror]
            frame[4 * f + 3] = complex(near.real + far.imag, far.real - near.imag)
        row = windowed[t]
        row[0] = 0.5 * (frame[0].real - frame[1].real)  # the spectrum is symmetric about both ends
        row[last] = 0.5 * (frame[last].real - frame[last - 1].real)
        for f in range(1, last):
            below, here, above = frame[f - 1], frame[f], frame[f + 1]
            row[f] = complex(
                0.5 * here.real - 0.25 * (below.real + above.real),
                0.5 * here.imag - 0.25 * (below.imag + above.imag),
            )
    return windowed
