"""The audio columns by librosa's own functions: the reference for the package `fast`."""

from __future__ import annotations

from typing import Any

import librosa
import numpy as np
from numpy.typing import NDArray

from triptych.extractors.audio.fast.constant_q import BINS_PER_OCTAVE, OCTAVES
from triptych.extractors.audio.fast.mfcc import N_MFCC
from triptych.extractors.audio.fast.spectra import N_FFT
from triptych.extractors.audio.fast.streams import Streams
from triptych.extractors.audio.stage import AudioSettings


def streams(waveform: NDArray[np.float32], settings: AudioSettings, sample_rate: int) -> Streams:
    """Compute the columns of one waveform, shape (n,), n >= 1; ``T = 1 + n // settings.hop_length``."""
    return Streams(
        *_first(waveform, settings, sample_rate), *_timbre_and_chroma(waveform, settings, sample_rate)
    )


def _first(
    waveform: NDArray[np.float32], settings: AudioSettings, sample_rate: int
) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_]]:
    hop = settings.hop_length
    if settings.first == "zcr":
        rate = librosa.feature.zero_crossing_rate(waveform, hop_length=hop)[0]
        return rate, np.ones(len(rate), dtype=np.bool_)
    f0, voiced, _ = librosa.pyin(
        waveform,
        sr=sample_rate,
        fmin=settings.fmin,
        fmax=settings.fmax,
        frame_length=settings.frame_length,
        hop_length=hop,
        fill_na=1.0,  # of which the logarithm is 0
    )
    return np.log(f0), voiced


def _timbre_and_chroma(
    waveform: NDArray[np.float32], settings: AudioSettings, sample_rate: int
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    hop = settings.hop_length
    spectrum = np.abs(librosa.stft(waveform, n_fft=N_FFT, hop_length=hop))
    mel = librosa.feature.melspectrogram(S=spectrum**2, sr=sample_rate, n_fft=N_FFT, htk=settings.mfcc_htk)
    mfcc = librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=N_MFCC)
    # librosa always estimates the tuning at a hop of a quarter window, for any hop of the rows.
    at_quarter = spectrum if hop == N_FFT // 4 else None
    tuning = librosa.estimate_tuning(
        y=waveform, sr=sample_rate, S=at_quarter, n_fft=N_FFT, bins_per_octave=BINS_PER_OCTAVE
    )
    chroma = librosa.feature.chroma_cqt(
        y=waveform,
        sr=sample_rate,
        hop_length=hop,
        tuning=tuning,
        n_octaves=OCTAVES,
        bins_per_octave=BINS_PER_OCTAVE,
    )
    return mfcc.T, chroma.T
