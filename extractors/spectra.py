"""One DFT of every hop, of which the spectra of all frames on that hop are sums.

The DFT is linear, and moving samples by `HOP` within a frame turns bin f by a fixed angle. So a frame of
several hops need not be transformed: its hops are, once each, and turned and added wherever they occur. The
mel spectrum, the tuning, pYIN's autocorrelation and the top octave of the constant-Q transform all read the
same hops.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numba import njit
from numpy.typing import NDArray

HOP = 512
N_FFT = 2048
N_BINS = N_FFT // 2 + 1
HOPS_A_FRAME = N_FFT // HOP


def centred(waveform: NDArray[np.float32], frame_length: int) -> NDArray[np.float32]:
    """Pad with silence, so that frame k is samples ``k * HOP`` to ``k * HOP + frame_length``.

    Parameters
    ----------
    waveform
        Shape (n,), n >= 1.
    frame_length
        A multiple of ``2 * HOP``.

    Returns
    -------
    NDArray
        Whole hops, of which ``1 + n // HOP`` frames are made; frame k is centred on sample ``k * HOP``.
    """
    hops = 1 + len(waveform) // HOP + frame_length // HOP - 1
    padded = np.zeros(hops * HOP, dtype=np.float32)
    padded[frame_length // 2 :][: len(waveform)] = waveform
    return padded


def hop_spectra(samples: NDArray[np.float32]) -> NDArray[np.complex128]:
    """Transform each hop of a whole number of hops, silence up to `N_FFT` behind it; shape (hops, 1025)."""
    hops = samples.reshape(-1, HOP).astype(np.float64)
    spectra: NDArray[np.complex128] = scipy.fft.rfft(hops, N_FFT, axis=1)
    return spectra


def magnitudes(hops: NDArray[np.complex128]) -> NDArray[np.float32]:
    """Magnitude spectra of Hann-windowed frames of `N_FFT` samples.

    Parameters
    ----------
    hops
        Of `hop_spectra`, shape (T + 3, 1025).

    Returns
    -------
    NDArray
        Shape (T, 1025), as ``abs(librosa.stft(...))`` has them: rounded to single precision before the
        magnitude is taken. Of a click, whose spectrum is flat, the rounding alone decides where the peaks lie.
    """
    return np.abs(_hann_windowed(hops))


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _hann_windowed(hops: NDArray[np.complex128]) -> NDArray[np.complex64]:
    """Add up each frame's four hops, bin f of the j-th turned by (-i)^(f j); window by Hann's three bins."""
    windowed = np.empty((hops.shape[0] - HOPS_A_FRAME + 1, N_BINS), np.complex64)
    frame = np.empty(N_BINS, np.complex128)
    last = N_BINS - 1
    for t in range(windowed.shape[0]):
        a, b, c, d = hops[t], hops[t + 1], hops[t + 2], hops[t + 3]
        for f in range(0, last, 4):
            frame[f] = (a[f] + c[f]) + (b[f] + d[f])
            odd, turned = a[f + 1] - c[f + 1], b[f + 1] - d[f + 1]
            frame[f + 1] = complex(odd.real + turned.imag, odd.imag - turned.real)
            frame[f + 2] = (a[f + 2] + c[f + 2]) - (b[f + 2] + d[f + 2])
            odd, turned = a[f + 3] - c[f + 3], b[f + 3] - d[f + 3]
            frame[f + 3] = complex(odd.real - turned.imag, odd.imag + turned.real)
        frame[last] = (a[last] + c[last]) + (b[last] + d[last])
        row = windowed[t]
        row[0] = 0.5 * (frame[0].real - frame[1].real)  # the spectrum is its own mirror about both ends
        row[last] = 0.5 * (frame[last].real - frame[last - 1].real)
        for f in range(1, last):
            below, here, above = frame[f - 1], frame[f], frame[f + 1]
            row[f] = complex(
                0.5 * here.real - 0.25 * (below.real + above.real),
                0.5 * here.imag - 0.25 * (below.imag + above.imag),
            )
    return windowed
