"""The stage `speech`: rows of an audio encoder equal transformers' own, on the clip's clock."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import save_model
from transformers import AutoFeatureExtractor, AutoModel

from triptych.extractors.base import BackendMissingError, ExtractionError, Reason, UnusableSettingError
from triptych.extractors.speech import STAGE, SpeechEncoder, SpeechSettings

RATE = 16000


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("speech")
    return {kind: save_model(kind, base / kind) for kind in ("hubert", "wav2vec2", "wavlm", "whisper", "vit")}


def encoder(folder, rate=RATE, **settings):
    return SpeechEncoder(SpeechSettings(model=str(folder), revision="", **settings), rate)


def sound(seconds, rate=RATE, seed=0):
    return (np.random.default_rng(seed).standard_normal(round(seconds * rate)) * 0.1).astype(np.float32)


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2", "wavlm"])
@pytest.mark.parametrize("layer", [-1, 1])
def test_rows_equal_transformers_own(folders, kind, layer):
    waveform = sound(1.3)
    prepare = AutoFeatureExtractor.from_pretrained(folders[kind])
    inputs = prepare(waveform, sampling_rate=RATE, return_tensors="pt")["input_values"]
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(folders[kind])(inputs, output_hidden_states=True)
    found = encoder(folders[kind], layer=layer).encode(waveform)
    np.testing.assert_array_equal(found.values, expected.hidden_states[layer][0].numpy())
    assert found.columns[:2] == ("h_0", "h_1")


def test_whisper_rows_end_with_the_clip(folders):
    waveform = sound(1.3)
    prepare = AutoFeatureExtractor.from_pretrained(folders["whisper"])
    inputs = prepare(waveform, sampling_rate=RATE, return_tensors="pt")["input_features"]
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(folders["whisper"]).get_encoder()(inputs).last_hidden_state[0]
    found = encoder(folders["whisper"]).encode(waveform)
    assert len(found) == 65  # 1.3 s at 50 Hz, of 1,500 rows for 30 s
    np.testing.assert_allclose(found.values, expected[:65].numpy(), atol=1e-6)


def test_whisper_continues_after_30_seconds(folders):
    found = encoder(folders["whisper"]).encode(sound(31))
    assert len(found) == 1550
    assert np.allclose(np.diff(found.times), 0.02)


def test_times_are_the_centres_of_what_rows_are_made_from(folders):
    # With its weights at random, only the rows whose samples hold the click change: those around 0.5 s.
    quiet, click = np.full(RATE, 1e-3, np.float32), np.full(RATE, 1e-3, np.float32)
    click[RATE // 2] = 0.5
    folder = folders["wavlm"]
    loaded = encoder(folder, layer=0)
    loaded._prepare.do_normalize = False
    changed = np.abs(loaded.encode(click).values - loaded.encode(quiet).values).max(axis=1)
    times = loaded.encode(click).times
    peak = times[changed > changed.max() / 2]
    assert abs(peak.mean() - 0.5) < 0.02


def test_a_long_clip_is_encoded_in_windows_on_one_grid(folders):
    waveform = sound(5.1)
    whole = encoder(folders["wavlm"], layer=0, window=30).encode(waveform)
    parts = encoder(folders["wavlm"], layer=0, window=2).encode(waveform)
    np.testing.assert_array_equal(parts.times, whole.times)
    assert len(whole) == (5.1 * RATE - 400) // 320 + 1
    # Layer 0 adds positions by a convolution of 16 rows, so rows away from the windows' edges agree.
    assert np.abs(parts.values - whole.values).max(axis=1)[20:80].max() < 1e-5


@pytest.mark.parametrize("samples", [1, 100, 399, 400, 401, 719, 720])
def test_a_short_clip_has_at_least_one_row(folders, samples):
    found = encoder(folders["hubert"]).encode(sound(1)[:samples])
    assert len(found) == max((samples - 400) // 320 + 1, 1)
    assert np.isfinite(found.values).all()


def test_other_rates_are_resampled(folders):
    times = np.arange(22050) / 22050
    tone = np.sin(2 * np.pi * 220 * times).astype(np.float32)
    own = np.sin(2 * np.pi * 220 * np.arange(RATE) / RATE).astype(np.float32)
    a = encoder(folders["hubert"], rate=22050).encode(tone)
    b = encoder(folders["hubert"]).encode(own)
    assert len(a) == len(b)
    assert np.abs(a.values[5:-5] - b.values[5:-5]).max() < 0.02


def test_unusable_sound_has_a_reason(folders):
    loaded = encoder(folders["hubert"])
    with pytest.raises(ExtractionError) as error:
        loaded.encode(np.zeros(0, np.float32))
    assert error.value.reason == Reason.EMPTY_AUDIO
    with pytest.raises(ExtractionError) as error:
        loaded.encode(np.array([0, np.nan], np.float32))
    assert error.value.reason == Reason.NON_FINITE_AUDIO


def test_a_layer_that_the_model_does_not_have(folders):
    with pytest.raises(UnusableSettingError, match=r"speech\.layer = 3: this model has layers 0 to 2"):
        encoder(folders["hubert"], layer=3)


def test_a_model_of_images_is_refused(folders):
    with pytest.raises((BackendMissingError, UnusableSettingError), match=r"speech\.model"):
        encoder(folders["vit"])


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(BackendMissingError, match=r"speech\.model = .*config\.json"):
        STAGE.resolve(SpeechSettings(model=str(tmp_path)))


def test_the_default_model_is_pinned():
    settings = SpeechSettings()
    assert settings.model == "TencentGameMate/chinese-hubert-base"
    assert len(settings.revision) == 40
