"""The fast audio kernels against librosa, and against what their sources define."""

from __future__ import annotations

import warnings

import librosa
import numpy as np
import pytest
import scipy.signal
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extractors import audio_fast, audio_librosa, chroma, mfcc, pyin, spectra
from extractors.audio import Audio, warm
from extractors.base import ExtractionError
from extractors.media import MediaSource
from extractors.settings import AudioSettings, MediaSettings

RATE = 22050
AUTHORS = AudioSettings(first="zcr", mfcc_htk=True)


def tuning_of(waveform: np.ndarray, rate: int = RATE) -> float:
    hops = spectra.hop_spectra(spectra.centred(waveform, spectra.N_FFT))
    return chroma.tuning(*chroma.spectral_peaks(spectra.magnitudes(hops), rate))


def assert_agrees(waveform: np.ndarray, rate: int = RATE, **pitch: float) -> tuple[int, int]:
    """Hold every column to its tolerance but the pitch; return its rows that differ, and all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        paper = AudioSettings(**pitch)
        ours, theirs = (kernels.streams(waveform, paper, rate) for kernels in (audio_fast, audio_librosa))
        ours_zcr, theirs_zcr = (
            kernels.streams(waveform, AUTHORS, rate) for kernels in (audio_fast, audio_librosa)
        )
        tuning = librosa.estimate_tuning(y=waveform, sr=rate, bins_per_octave=36)
        assert tuning_of(waveform, rate) == tuning
        cqt = librosa.cqt(waveform, sr=rate, tuning=tuning, n_bins=7 * 36, bins_per_octave=36)
    assert len(ours.first) == len(theirs.first) == 1 + len(waveform) // 512
    np.testing.assert_array_equal(ours_zcr.first, theirs_zcr.first)
    for mine, librosas in ((ours, theirs), (ours_zcr, theirs_zcr)):
        assert np.abs(mine.mfcc - librosas.mfcc).max() <= 1e-5 * np.abs(librosas.mfcc).max()
        peaks = np.abs(cqt).max(axis=0)
        tolerance = np.where(peaks > 1e-3 * peaks.max(), 1e-5, 1e-4)
        assert (np.abs(mine.chroma - librosas.chroma).max(axis=1) <= tolerance).all()
    differs = (ours.voiced != theirs.voiced) | (np.abs(ours.first - theirs.first) > 1e-9)
    return int(differs.sum()), len(differs)


# Real speech


def test_all_clips_agree(test_data):
    differ = rows = 0
    for path in sorted((test_data / "clips").rglob("*.*")):
        if path.suffix == ".csv":
            continue
        try:
            waveform = MediaSource(path, MediaSettings()).waveform()
        except ExtractionError:
            continue
        found = assert_agrees(waveform)
        differ, rows = differ + found[0], rows + found[1]
    assert rows > 4000
    assert differ <= 0.001 * rows


# Generated sounds

KINDS = ("silence", "noise", "tone", "chord", "speech", "clicks", "steps", "chirp")


def sound(kind: str, n: int, rate: int, seed: int) -> np.ndarray:
    """One second's worth of variety in n samples at a rate."""
    rng = np.random.default_rng(seed)
    t = np.arange(n) / rate
    f0 = rng.uniform(70, 400)
    if kind == "silence":
        return np.zeros(n)
    if kind == "noise":
        return 0.1 * rng.standard_normal(n)
    if kind == "tone":
        return 0.3 * np.sin(2 * np.pi * rng.uniform(40, rate / 2) * t)
    if kind == "chord":
        return sum(np.sin(2 * np.pi * f0 * k * t + k) for k in (1, 1.25, 1.5, 2)) / 10
    if kind == "clicks":
        return (np.arange(n) % int(rng.integers(50, 9000)) == 7).astype(float)
    if kind == "steps":  # a pure pitch that leaps further than the model's band
        return 0.3 * scipy.signal.sawtooth(2 * np.pi * np.cumsum(np.where(t % 0.4 < 0.2, 90, 410)) / rate)
    if kind == "chirp":
        return 0.3 * scipy.signal.chirp(t, 50, max(t[-1], 0.01), rate / 2)
    glide = f0 * 2 ** (0.3 * np.sin(2 * np.pi * rng.uniform(0.5, 3) * t))
    voice = sum(np.sin(k * 2 * np.pi * np.cumsum(glide) / rate) / k for k in range(1, 15))
    syllables = np.clip(np.sin(2 * np.pi * rng.uniform(1, 4) * t), 0, None)
    return 0.2 * voice * syllables + 0.003 * rng.standard_normal(n)


sounds = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(KINDS),
        "then": st.sampled_from(KINDS),
        "rate": st.sampled_from([8000, 11025, 16000, 22050, 32000, 44100, 48000]),
        "gain": st.floats(-80, 6),
        "offset": st.sampled_from([0.0, 0.0, 0.01, -1.0, 4.0]),
        "seed": st.integers(0, 2**16),
    }
)


def made(seconds: float, spec: dict) -> np.ndarray:
    n = max(1, int(seconds * spec["rate"]))
    first = sound(spec["kind"], n, spec["rate"], spec["seed"])
    whole = np.concatenate([first, sound(spec["then"], n // 2, spec["rate"], spec["seed"] + 1)]) if n > 1 else first
    # An offset of a hundred times the sound would leave librosa, whose autocorrelation is of single precision,
    # nothing but rounding to find a pitch in.
    offset = spec["offset"] * np.abs(whole).max()
    scaled = ((whole + offset) * 10 ** (spec["gain"] / 20)).astype(np.float32)
    resampled = soxr.resample(scaled, spec["rate"], RATE, "soxr_hq") if spec["rate"] != RATE else scaled
    return resampled if len(resampled) else np.zeros(1, np.float32)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seconds=st.floats(0, 1.2), spec=sounds)
def test_generated_sounds_agree(seconds, spec):
    differ, rows = assert_agrees(made(seconds, spec))
    assert differ <= 0.001 * rows


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seconds=st.floats(1, 13.3), spec=sounds)
def test_long_generated_sounds_agree(seconds, spec):
    differ, rows = assert_agrees(made(seconds, spec))
    assert differ <= 0.001 * rows
