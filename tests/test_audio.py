"""The 33 audio columns: against plain calls of librosa, and against sounds of known pitch."""

from __future__ import annotations

import warnings
from pathlib import Path

import librosa
import numpy as np
import pytest

from triptych.extractors.audio.columns import audio_columns
from triptych.extractors.audio.features import Audio
from triptych.extractors.audio.stage import STAGE, AudioSettings
from triptych.extractors.base import ExtractionError, Features, Reason
from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings

RATE = 22050
CLIPS = (
    "Raw/pyfeat/0004.mp4",
    "Raw/latentsync/0007.mp4",
    "hard/audio_clipped_noise.mp4",
    "hard/audio_silent.mp4",
)


@pytest.fixture(scope="module")
def paper() -> Audio:
    return Audio(AudioSettings(), RATE)


def harmonic(f0: np.ndarray | float, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    """Ten harmonics falling off as 1/k over an F0 in Hz, constant or sampled."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(f0, int(seconds * rate))) / rate
    return (0.2 * sum(np.sin(k * phase) / k for k in range(1, 11))).astype(np.float32)


def column(features: Features, name: str) -> np.ndarray:
    return features.values[:, features.columns.index(name)]


def cents(features: Features, expected: np.ndarray | float) -> np.ndarray:
    """Return |error| in cents where voiced, the rows at the edges left out."""
    inner = features.extras["voiced"].copy()
    inner[:3] = inner[-3:] = False
    expected = np.broadcast_to(expected, len(features))[inner]
    return np.abs(1200 * (column(features, "log_f0")[inner] - np.log(expected)) / np.log(2))


# librosa's own functions, where they are asked for: equal to the last bit


@pytest.mark.parametrize("name", CLIPS)
def test_equals_librosa_called_plainly(test_data, name):
    waveform = MediaSource(test_data / "clips" / name, MediaSettings()).waveform()
    features = Audio(AudioSettings(kernels="librosa"), RATE).extract(waveform)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        f0, voiced, _ = librosa.pyin(waveform, fmin=60, fmax=500, sr=RATE, frame_length=2048, hop_length=512)
        mfcc = librosa.feature.mfcc(y=waveform, sr=RATE)
        chroma = librosa.feature.chroma_cqt(y=waveform, sr=RATE)
    np.testing.assert_array_equal(features.extras["voiced"], voiced)
    np.testing.assert_array_equal(column(features, "log_f0")[voiced], np.log(f0[voiced]).astype(np.float32))
    np.testing.assert_array_equal(features.values[:, 1:21], mfcc.T)
    np.testing.assert_array_equal(features.values[:, 21:], chroma.T)


@pytest.mark.parametrize("name", CLIPS[:2])
def test_equals_the_authors_functions(test_data, name):
    waveform = MediaSource(test_data / "clips" / name, MediaSettings()).waveform()
    features = Audio(AudioSettings(first="zcr", mfcc_htk=True, kernels="librosa"), RATE).extract(waveform)
    np.testing.assert_array_equal(
        column(features, "zcr"), librosa.feature.zero_crossing_rate(waveform)[0].astype(np.float32)
    )
    np.testing.assert_array_equal(
        features.values[:, 1:21], librosa.feature.mfcc(y=waveform, sr=RATE, htk=True).T
    )
    np.testing.assert_array_equal(features.values[:, 21:], librosa.feature.chroma_cqt(y=waveform, sr=RATE).T)
    assert features.extras["voiced"].all()


def test_another_hop_equals_librosa():
    waveform = harmonic(np.linspace(100, 300, RATE)) + np.float32(0.01)
    settings = AudioSettings(hop_length=220, fmin=70, fmax=400, frame_length=1024, kernels="librosa")
    features = Audio(settings, RATE).extract(waveform)
    f0, voiced, _ = librosa.pyin(waveform, fmin=70, fmax=400, sr=RATE, frame_length=1024, hop_length=220)
    np.testing.assert_array_equal(features.extras["voiced"], voiced)
    np.testing.assert_array_equal(column(features, "log_f0")[voiced], np.log(f0[voiced]).astype(np.float32))
    np.testing.assert_array_equal(
        features.values[:, 1:21], librosa.feature.mfcc(y=waveform, sr=RATE, hop_length=220).T
    )
    np.testing.assert_array_equal(
        features.values[:, 21:], librosa.feature.chroma_cqt(y=waveform, sr=RATE, hop_length=220).T
    )


# Known sounds


@pytest.mark.parametrize("hz", [80.0, 123.4, 220.0, 331.0, 440.0])
def test_pitch_of_a_steady_voice(paper, hz):
    features = paper.extract(harmonic(hz))
    assert features.extras["voiced"][3:-3].all()
    assert np.median(cents(features, hz)) <= 6  # pYIN's bins are 10 cents wide
    assert cents(features, hz).max() <= 20


def test_pitch_of_a_glide(paper):
    f0 = 150 * 2 ** (np.sin(2 * np.pi * 0.8 * np.arange(2 * RATE) / RATE) / 2)
    features = paper.extract(harmonic(f0, 2.0))
    expected = f0[np.minimum(np.round(features.times * RATE).astype(int), len(f0) - 1)]
    assert features.extras["voiced"].mean() > 0.95
    assert np.median(cents(features, expected)) <= 10
    assert np.percentile(cents(features, expected), 95) <= 40


def test_rows_are_centred_on_their_times(paper):
    waveform = np.zeros(2 * RATE, np.float32)
    waveform[RATE:] = harmonic(200.0)
    features = paper.extract(waveform)
    start = features.times[column(features, "mfcc_0") > -300][0]
    assert abs(start - 1.0) <= 1024 / RATE
    voiced = features.times[features.extras["voiced"]]
    assert abs(voiced[0] - 1.0) < 0.06
    assert voiced[-1] > 1.9


def test_noise_is_unvoiced_and_zero(paper):
    noise = np.random.default_rng(3).standard_normal(RATE).astype(np.float32) * 0.1
    features = paper.extract(noise)
    unvoiced = ~features.extras["voiced"]
    assert unvoiced.mean() > 0.9
    assert not column(features, "log_f0")[unvoiced].any()
    assert (column(features, "log_f0")[~unvoiced] >= np.float32(np.log(60))).all()


def test_silence(paper):
    features = paper.extract(np.zeros(RATE, np.float32))
    assert not features.extras["voiced"].any()
    np.testing.assert_allclose(column(features, "mfcc_0"), -1131.371, atol=1e-2)
    rest = [i for i, name in enumerate(features.columns) if name != "mfcc_0"]
    np.testing.assert_allclose(features.values[:, rest], 0, atol=1e-3)


def test_impulse(paper):
    waveform = np.zeros(RATE, np.float32)
    waveform[RATE // 2] = 1.0
    features = paper.extract(waveform)
    energy = column(features, "mfcc_0")
    assert abs(features.times[energy.argmax()] - 0.5) <= 512 / RATE
    assert np.isfinite(features.values).all()


def test_chroma_peaks_at_the_note(paper):
    for hz, name in ((261.626, "chroma_C"), (329.628, "chroma_E"), (440.0, "chroma_A")):
        tone = np.sin(2 * np.pi * hz * np.arange(RATE) / RATE).astype(np.float32)
        features = paper.extract(tone)
        chroma = features.values[5:-5, 21:]
        assert {features.columns[21 + i] for i in chroma.argmax(axis=1)} == {name}
        assert chroma.max() <= 1 + 1e-6


def test_gain_moves_only_the_level(paper):
    waveform = harmonic(180.0)
    loud, quiet = paper.extract(waveform), paper.extract(waveform / 4)
    np.testing.assert_array_equal(loud.extras["voiced"], quiet.extras["voiced"])
    np.testing.assert_allclose(column(loud, "log_f0"), column(quiet, "log_f0"))
    np.testing.assert_allclose(loud.values[:, 21:], quiet.values[:, 21:], atol=1e-4)
    np.testing.assert_allclose(loud.values[:, 2:21], quiet.values[:, 2:21], atol=1e-2)
    expected = 20 * np.log10(4) * np.sqrt(128)  # the orthonormal DCT's first row over 128 equal shifts in dB
    np.testing.assert_allclose(column(loud, "mfcc_0") - column(quiet, "mfcc_0"), expected, rtol=1e-3)


def test_zero_crossing_rate_of_a_tone():
    tone = np.sin(2 * np.pi * 500 * np.arange(RATE) / RATE + 0.1).astype(np.float32)
    features = Audio(AudioSettings(first="zcr"), RATE).extract(tone)
    np.testing.assert_allclose(column(features, "zcr")[4:-4], 2 * 500 / RATE, atol=1 / 2048)


def test_htk_changes_the_mfcc_alone(paper):
    waveform = harmonic(140.0)
    slaney, htk = paper.extract(waveform), Audio(AudioSettings(mfcc_htk=True), RATE).extract(waveform)
    assert np.abs(slaney.values[:, 1:21] - htk.values[:, 1:21]).max() > 1
    np.testing.assert_array_equal(slaney.values[:, 0], htk.values[:, 0])
    np.testing.assert_array_equal(slaney.values[:, 21:], htk.values[:, 21:])


# Shapes, settings, failures


@pytest.mark.parametrize("n", [1, 2, 100, 511, 512, 513, 1024, 2047, 2048, 5120])
@pytest.mark.parametrize("first", ["log_f0", "zcr"])
@pytest.mark.parametrize("kernels", ["fast", "librosa"])
def test_rows_for_any_length_and_no_word_on_the_terminal(n, first, kernels, capfd):
    noise = np.random.default_rng(n).standard_normal(n).astype(np.float32) * 0.1
    audio = Audio(AudioSettings(first=first, kernels=kernels), RATE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = audio.extract(noise)
    assert capfd.readouterr() == ("", "")
    assert features.values.shape == (1 + n // 512, 33)
    assert features.values.dtype == np.float32
    assert np.isfinite(features.values).all()
    assert features.columns == tuple(name for name, _ in audio_columns(first))
    np.testing.assert_array_equal(features.times, np.arange(len(features)) * (512 / RATE))
    assert features.valid.all()
    assert features.extras.keys() == STAGE.extras.keys()
    assert features.extras["voiced"].dtype == np.bool_


@pytest.mark.parametrize(
    ("sample_rate", "hop_length"),
    [
        (11025, 512),
        (16000, 512),
        (48000, 512),
        (16000, 160),
        (48000, 640),
        (RATE, 100),
        (RATE, 441),
        (RATE, 1024),
    ],
)
def test_other_rates_and_hops_keep_the_row_count(sample_rate, hop_length):
    waveform = harmonic(200.0, 0.5, sample_rate)
    settings = AudioSettings(hop_length=hop_length, kernels="fast" if hop_length == 512 else "librosa")
    features = Audio(settings, sample_rate).extract(waveform)
    assert len(features) == 1 + len(waveform) // hop_length
    inner = features.extras["voiced"]
    assert inner.mean() > 0.6
    assert np.median(cents(features, 200.0)) <= 10


@pytest.mark.parametrize(
    ("settings", "sample_rate", "named"),
    [
        (AudioSettings(), 8000, "sample_rate 8000"),
        (AudioSettings(fmax=6000), 11025, "fmax"),
        (AudioSettings(frame_length=256), 22050, "frame_length 256"),
        (AudioSettings(frame_length=2049), 22050, "odd"),
        (AudioSettings(hop_length=1868), 22050, "hop_length 1868"),
        (AudioSettings(fmin=200, fmax=210), 22050, "widen the range"),
        (AudioSettings(hop_length=441), 22050, "hop_length 441 is not 512; set kernels = librosa"),
        (AudioSettings(frame_length=1280), 22050, "frame_length 1280 is no multiple of 1024; set kernels"),
        (AudioSettings(frame_length=4096), 96000, "fmin 60.0 has a period of more than 1536 samples"),
        (AudioSettings(), 20600, "at sample_rate 20600 the wavelets' length depends on the tuning"),
    ],
)
def test_settings_that_cannot_be_computed_are_refused(settings, sample_rate, named):
    with pytest.raises(ValueError, match=named):
        Audio(settings, sample_rate)


@pytest.mark.parametrize(
    "settings",
    [AudioSettings(hop_length=1867, kernels="librosa"), AudioSettings(fmin=22050 / 2046, kernels="librosa")],
)
def test_settings_at_the_limit_are_computed(settings):
    features = Audio(settings, RATE).extract(harmonic(200.0))
    assert np.isfinite(features.values).all()


def test_pitch_settings_do_not_bind_the_zero_crossing_rate():
    settings = AudioSettings(first="zcr", hop_length=4096, kernels="librosa")
    features = Audio(settings, RATE).extract(harmonic(200.0))
    assert len(features) == 1 + RATE // 4096


@pytest.mark.parametrize(
    ("waveform", "reason"),
    [
        (np.zeros(0), Reason.EMPTY_AUDIO),
        (np.array([0, np.nan, 0]), Reason.NON_FINITE_AUDIO),
        (np.array([0, np.inf, 0]), Reason.NON_FINITE_AUDIO),
        (np.full(4096, 1e30), Reason.NON_FINITE_AUDIO),
    ],
)
@pytest.mark.parametrize("kernels", ["fast", "librosa"])
@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
def test_sound_that_has_no_features(waveform, reason, kernels):
    with pytest.raises(ExtractionError) as caught:
        Audio(AudioSettings(kernels=kernels), RATE).extract(waveform.astype(np.float32))
    assert caught.value.reason is reason


def test_same_numbers_on_a_second_call(test_data, paper):
    path: Path = test_data / "clips/Raw/pyfeat/0004.mp4"
    waveform = MediaSource(path, MediaSettings()).waveform()
    before = waveform.copy()
    np.testing.assert_array_equal(paper.extract(waveform).values, paper.extract(waveform).values)
    np.testing.assert_array_equal(waveform, before)
