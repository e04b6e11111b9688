"""The stage `egemaps`: openSMILE's own values, on the clip's clock, with typed reasons for unusable sound."""

from __future__ import annotations

import wave

import numpy as np
import pytest

from triptych.extractors import egemaps
from triptych.extractors.base import ExtractionError, Reason, UnusableSettingError
from triptych.extractors.egemaps import COLUMNS, STAGE, Egemaps, EgemapsSettings
from triptych.extractors.settings import MediaSettings
from triptych.pipeline.storage.schema import check_features

opensmile = pytest.importorskip("opensmile")
RATE = 22050


@pytest.fixture(scope="module")
def loaded():
    return Egemaps(RATE)


def vowel(seconds, rate=RATE, pitch=150):
    times = np.arange(round(seconds * rate)) / rate
    return sum(0.2 / k * np.sin(2 * np.pi * pitch * k * times) for k in range(1, 12)).astype(np.float32)


def test_rows_equal_opensmile_on_a_wav_file(loaded, tmp_path):
    samples = (vowel(1.0) * 32767).astype("<i2")
    with wave.open(str(tmp_path / "vowel.wav"), "wb") as file:
        file.setparams((1, 2, RATE, len(samples), "NONE", ""))
        file.writeframes(samples.tobytes())
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.LowLevelDescriptors,
    )
    expected = smile.process_file(str(tmp_path / "vowel.wav"))
    found = loaded.describe(samples.astype(np.float32) / 32768)
    np.testing.assert_allclose(found.values, expected.to_numpy(), rtol=1e-5, atol=1e-5)
    assert check_features("egemaps", found) == []


def test_columns_are_those_of_the_declaration(loaded):
    found = loaded.describe(vowel(0.5))
    assert tuple(zip(found.columns, found.units, strict=True)) == COLUMNS


def test_pitch_is_in_semitones_above_27_5_hertz(loaded):
    found = loaded.describe(vowel(1.0, pitch=220))
    pitch = found.values[:, found.columns.index("F0semitoneFrom27.5Hz_sma3nz")]
    assert np.median(pitch[pitch > 0]) == pytest.approx(36, abs=0.2)  # three octaves


def test_row_times_follow_the_declared_rate(loaded):
    found = loaded.describe(vowel(2.0))
    rate = STAGE.row_rate(EgemapsSettings(), MediaSettings(sample_rate=RATE))
    np.testing.assert_allclose(found.times, np.arange(len(found)) / rate, atol=1e-6)


@pytest.mark.parametrize("samples", [0, 1, 500, 1000])
def test_too_short_a_sound_has_a_reason(loaded, samples):
    with pytest.raises(ExtractionError) as error:
        loaded.describe(vowel(1)[:samples])
    assert error.value.reason == Reason.EMPTY_AUDIO


def test_without_opensmile_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(egemaps, "package_version", lambda package: None)
    with pytest.raises(UnusableSettingError, match=r"triptych\[egemaps\].*research and education only"):
        STAGE.resolve(EgemapsSettings())
