"""The audio columns by our own kernels: librosa's numbers at a fraction of its CPU time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.audio.fast import chroma, mfcc, pyin
from triptych.extractors.audio.fast.spectra import HOP, HOPS_A_FRAME, N_FFT, centred, hop_spectra, magnitudes
from triptych.extractors.audio.fast.tuning import estimate_tuning, spectral_peaks
from triptych.extractors.audio.stage import AudioSettings
from triptych.extractors.scratch import Scratch, release

ROWS_AT_A_TIME = 64  # so that their spectra stay in a core's own cache
INAUDIBLE = np.float32(1e-10)  # librosa.zero_crossings counts this much as 0


class Streams(NamedTuple):
    """The columns before they are joined, T rows each.

    Attributes
    ----------
    first
        Natural logarithm of F0 in Hz, 0 where unvoiced, or the zero-crossing rate; shape (T,).
    voiced
        pYIN's decision, shape (T,); all True with the zero-crossing rate.
    mfcc
        Shape (T, 20).
    chroma
        Shape (T, 12).
    """

    first: NDArray[np.floating[Any]]
    voiced: NDArray[np.bool_]
    mfcc: NDArray[np.floating[Any]]
    chroma: NDArray[np.floating[Any]]


def check(settings: AudioSettings, sample_rate: int) -> None:
    """Refuse settings that these kernels do not support.

    Raises
    ------
    ValueError
        The text says why, and that the reference kernels support the settings.
    """
    try:
        if settings.hop_length != HOP:
            raise ValueError(f"hop_length {settings.hop_length} is not {HOP}")
        chroma.pyramid(sample_rate)
        _pitch_model(settings, sample_rate)
    except ValueError as error:
        raise ValueError(
            f"the fast audio kernels cannot take this: {error}; set kernels = librosa"
        ) from error


def streams(waveform: NDArray[np.float32], settings: AudioSettings, sample_rate: int) -> Streams:
    """Compute the columns of one waveform, shape (n,), n >= 1; ``T = 1 + n // HOP``."""
    rows, pitch, octave = (
        1 + len(waveform) // HOP,
        _pitch_model(settings, sample_rate),
        chroma.pyramid(sample_rate),
    )
    hops_a_frame = max(HOPS_A_FRAME, pitch.hops if pitch else 0)
    mel = Scratch(np.float32, (mfcc.N_MELS,))
    probabilities = pyin.Candidates(len(pitch.frequencies) if pitch else 0)
    shares_hops = octave.shares_hops and rows <= chroma.ROWS_AT_A_TIME
    top_octave = np.empty((2, octave.stop - octave.first, rows + 1 if shares_hops else 0))
    pitches, heights = Scratch(np.float32), Scratch(np.float32)
    for row in range(0, rows, ROWS_AT_A_TIME):
        stop = min(row + ROWS_AT_A_TIME, rows)
        samples = centred(waveform, hops_a_frame * HOP, row, stop)
        hops = hop_spectra(samples)
        if pitch:
            inner = _about_centre(hops_a_frame, pitch.hops, stop - row)
            probabilities.append(pyin.candidates(samples[inner[0] * HOP :], hops.part(*inner), pitch))
        spectra = magnitudes(hops.part(*_about_centre(hops_a_frame, HOPS_A_FRAME, stop - row)))
        mel.write(mfcc.mel_power(spectra, sample_rate, settings.mfcc_htk))
        for scratch, found in zip((pitches, heights), spectral_peaks(spectra, sample_rate), strict=True):
            scratch.write(found)
        if shares_hops:
            inner = _about_centre(hops_a_frame, 2, stop - row)
            top_octave[:, :, row : stop + 1] = octave.top_octave(hops.part(*inner))
        release(waveform)
    tuning = estimate_tuning(pitches.array(), heights.array())
    chromagram = chroma.chroma_cqt(waveform, sample_rate, tuning, top_octave if shares_hops else None)
    first, voiced = _pitch(probabilities, pitch) if pitch else _zero_crossing_rate(waveform)
    return Streams(first, voiced, mfcc.mfcc(mel.array()), chromagram.T)


def _about_centre(hops: int, wanted: int, rows: int) -> tuple[int, int]:
    """Return the range of hops of frames of `wanted` hops with the same centres as frames of `hops` hops."""
    before = (hops - wanted) // 2
    return before, before + rows + wanted - 1


def _pitch_model(settings: AudioSettings, sample_rate: int) -> pyin.Model | None:
    if settings.first != "log_f0":
        return None
    return pyin.model(sample_rate, settings.fmin, settings.fmax, settings.frame_length)


def _pitch(
    probabilities: pyin.Candidates, model: pyin.Model
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    f0, voiced = pyin.track(probabilities, model)
    return np.where(voiced, np.log(f0), 0.0), voiced


def _zero_crossing_rate(waveform: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Compute the share of sign changes in frames of `N_FFT` samples; a clip's first and last sign are continued."""
    hops = len(waveform) // HOP + HOPS_A_FRAME
    negative = np.empty(hops * HOP, dtype=np.bool_)
    half = N_FFT // 2
    negative[:half] = waveform[0] < -INAUDIBLE
    np.less(waveform, -INAUDIBLE, out=negative[half : half + len(waveform)])
    negative[half + len(waveform) :] = waveform[-1] < -INAUDIBLE
    changes = np.zeros((hops, HOP), dtype=np.bool_)
    np.not_equal(negative[1:], negative[:-1], out=changes.reshape(-1)[1:])
    counts = changes.sum(axis=1)
    rows = hops - HOPS_A_FRAME + 1
    within = sum(counts[hop : hop + rows] for hop in range(HOPS_A_FRAME)) - changes[:rows, 0]
    return within / N_FFT, np.ones(rows, dtype=np.bool_)
