"""Speech recognition: words and times of models whose answers are known, and what is done without speech."""

from __future__ import annotations

import json
from types import SimpleNamespace

import ctc_model
import numpy as np
import pytest
import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from triptych.extractors.asr import recognition
from triptych.extractors.asr.heard import joined_text
from triptych.extractors.asr.recognition import Recognition
from triptych.extractors.asr.stage import AsrSettings
from triptych.extractors.base import ExtractionError, Reason, UnusableSettingError
from triptych.extractors.cutting import voice

RATE = ctc_model.RATE
WORDS = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|zh|>", "<|transcribe|>", "<|notimestamps|>"]


@pytest.fixture(scope="module")
def ctc(made_once):
    return made_once("ctc-model", ctc_model.save_ctc_model)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """A Whisper with random weights and its tokenizer of single bytes."""
    folder = tmp_path_factory.mktemp("whisper")
    letters = [chr(c) for c in range(33, 127)] + ["Ġ"]
    vocabulary = {token: number for number, token in enumerate([*letters, *WORDS])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = WhisperTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    ids = tokenizer.convert_tokens_to_ids(WORDS)
    tokenizer.add_special_tokens({"additional_special_tokens": WORDS[1:]})
    tokenizer.save_pretrained(folder)
    torch.manual_seed(1)
    config = WhisperConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_target_positions=48,
        pad_token_id=ids[0], bos_token_id=ids[0], eos_token_id=ids[0], decoder_start_token_id=ids[1],
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=ids[1], eos_token_id=ids[0], pad_token_id=ids[0], bos_token_id=ids[0],
        lang_to_id={"<|en|>": ids[2], "<|zh|>": ids[3]}, task_to_id={"transcribe": ids[4]}, is_multilingual=True,
        no_timestamps_token_id=ids[5], alignment_heads=[[0, 0], [0, 1]], max_length=24, max_initial_timestamp_index=50,
        begin_suppress_tokens=[ids[0]], suppress_tokens=[], median_filter_width=7,
    )  # fmt: skip
    model.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture
def always_speech(monkeypatch):
    """Tones are no speech; the check for speech has its own test."""
    monkeypatch.setattr(
        voice, "speech_probabilities", lambda sound: np.ones(-(-len(sound) // 512), np.float32)
    )


def clip(sound):
    return SimpleNamespace(waveform=lambda: sound)


def recognised(loaded, **sounds):
    for name, sound in sounds.items():
        loaded.add(name, clip(sound))
    return loaded.finish()


def test_words_and_times_of_a_ctc_model_are_those_of_the_sound(ctc, always_speech):
    sound, starts, ends = ctc_model.spoken("你好世界abcde")
    rows = recognised(Recognition(AsrSettings(model=str(ctc), revision=""), RATE), a=sound)["a"]
    assert list(rows.extras["tokens"]) == ["你", "好", "世", "界", "abcde"]
    assert joined_text(list(rows.extras["tokens"])) == "你好世界 abcde"
    assert rows.values[:4, 0] == pytest.approx(starts[:4], abs=0.03)
    assert rows.values[4, 1] == pytest.approx(ends[-1], abs=0.03)
    assert (rows.values[:, 2] > 0.5).all()


def test_whisper_gives_words_with_times_alone_and_in_a_batch(whisper, always_speech):
    random = np.random.default_rng(0)
    sounds = {name: random.normal(0, 0.1, RATE * 2).astype(np.float32) for name in "abc"}
    settings = AsrSettings(model=str(whisper), revision="", language="zh", batch=2)
    together = recognised(Recognition(settings, RATE), **sounds)
    alone = {name: recognised(Recognition(settings, RATE), a=sound)["a"] for name, sound in sounds.items()}
    for name in sounds:
        assert list(together[name].extras["tokens"]) == list(alone[name].extras["tokens"])
        np.testing.assert_allclose(together[name].values, alone[name].values, atol=1e-3)
        assert (together[name].values[:, 1] <= 2 + 1e-6).all()
        assert (np.diff(together[name].times) > 0).all()


def test_whisper_detects_the_language_and_refuses_unknown_ones(whisper, always_speech):
    sound = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    assert len(recognised(Recognition(AsrSettings(model=str(whisper), revision=""), RATE), a=sound)["a"])
    with pytest.raises(UnusableSettingError, match=r"asr\.language = fr: unknown; choose from en, zh"):
        Recognition(AsrSettings(model=str(whisper), revision="", language="fr"), RATE)


def test_models_that_recognise_nothing_are_refused(ctc, small_bert):
    with pytest.raises(UnusableSettingError, match="model type bert is no recogniser"):
        Recognition(AsrSettings(model=str(small_bert), revision=""), RATE)
    with pytest.raises(UnusableSettingError, match="leave it empty"):
        Recognition(AsrSettings(model=str(ctc), revision="", language="zh"), RATE)


def test_silence_and_music_are_not_recognised(ctc):
    loaded = Recognition(AsrSettings(model=str(ctc), revision=""), RATE)
    time = np.arange(2 * RATE) / RATE
    for sound in (np.zeros(2 * RATE), 0.2 * np.sin(2 * np.pi * 440 * time)):
        with pytest.raises(ExtractionError) as caught:
            loaded.add("a", clip(sound.astype(np.float32)))
        assert caught.value.reason == Reason.NO_SPEECH


def test_long_sound_is_divided_where_there_is_least_speech(ctc, monkeypatch):
    def probabilities(sound):
        speech = np.ones(-(-len(sound) // 512), np.float32)
        speech[round(27.4 * 31.25)] = 0
        return speech

    monkeypatch.setattr(voice, "speech_probabilities", probabilities)
    pieces = Recognition(AsrSettings(model=str(ctc), revision=""), RATE)._pieces(
        np.zeros(50 * RATE, np.float32)
    )
    assert [start for start, _ in pieces] == pytest.approx([0, 27.4], abs=0.04)
    assert sum(len(sound) for _, sound in pieces) == 50 * RATE
    assert recognition.SEARCHED == 5


def test_pocketsphinx_hears_real_english(test_data):
    pytest.importorskip("pocketsphinx")
    from triptych.extractors.media.source import MediaSource
    from triptych.extractors.settings import MediaSettings

    sound = MediaSource(test_data / "clips/Raw/liveportrait/0013.mp4", MediaSettings()).waveform()
    rows = recognised(Recognition(AsrSettings(backend="pocketsphinx"), 22050), a=sound)["a"]
    said = "the device would work during the day as well if you took steps to either block direct sunlight or point it"
    words = [str(word) for word in rows.extras["tokens"]]
    missed = [word for word in said.split() if word not in words]
    assert len(missed) <= 4
    assert rows.values[-1, 1] <= len(sound) / 22050
