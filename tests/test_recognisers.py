"""The recognisers of the stage `asr`: their words, times and confidences."""

from __future__ import annotations

import av
import numpy as np
import pytest
from ctc_model import RATE, save_ctc_model, spoken
from recogniser_models import save_whisper
from small_models import save_model

from triptych.extractors.asr.attention_times import token_frames
from triptych.extractors.asr.heard import Heard, heard_rows, joined_text
from triptych.extractors.asr.recognition import Recognition
from triptych.extractors.asr.stage import AsrSettings
from triptych.extractors.asr.transformers_models import load_recogniser
from triptych.extractors.base import ExtractionError, Reason, UnusableSettingError

CLIP = "clips/Raw/liveportrait/0013.mp4"
SENTENCE = "the device would work during the day as well if you took steps to either block direct sunlight or point it"


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return save_whisper(tmp_path_factory.mktemp("whisper") / "timed")


def settings(folder, **more):
    return AsrSettings(model=str(folder), revision="", **more)


def noise(seconds, seed=0):
    return (np.random.default_rng(seed).standard_normal(round(seconds * RATE)) * 0.1).astype(np.float32)


def test_a_batch_gives_the_words_of_each_sound_alone(whisper):
    recogniser = load_recogniser(settings(whisper, language="en"), "cpu")
    sounds = [noise(1, 1), noise(2.5, 2), noise(7, 3)]
    together = recogniser.recognise(sounds)
    assert [recogniser.recognise([sound])[0] for sound in sounds] == together
    assert any(len(words) > 1 for words in together)
    for words, sound in zip(together, sounds, strict=True):
        times = [time for word in words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert 0 <= times[0] <= times[-1] <= len(sound) / RATE
        assert all(0 < word.confidence < 1 for word in words)


def test_without_alignment_heads_a_phrase_has_times(tmp_path, whisper):
    phrase = load_recogniser(settings(save_whisper(tmp_path / "w", timed=False), language="en"), "cpu")
    (found,) = phrase.recognise([noise(2.5, 2)])
    (words,) = load_recogniser(settings(whisper, language="en"), "cpu").recognise([noise(2.5, 2)])
    assert [(one.start, one.end) for one in found] == [(0.0, 2.5)]
    assert found[0].text.split() == [one.text for one in words]


def test_tokens_begin_where_the_attention_moves_on():
    frames, begins = 60, [0, 9, 25, 41]
    attention = np.random.default_rng(0).random((3, 4, frames)).astype(np.float32) * 0.1
    for step, (first, after) in enumerate(zip(begins, [*begins[1:], frames], strict=True)):
        attention[:, step, first:after] += 1
    assert np.abs(token_frames(attention) - begins).max() <= 1
    assert token_frames(np.ones((1, 1, 1), np.float32)).tolist() == [0]
    assert token_frames(np.ones((2, 6, 2), np.float32)).max() < 2


def test_a_ctc_model_gives_the_symbols_that_are_spoken(tmp_path):
    recogniser = load_recogniser(settings(save_ctc_model(tmp_path / "ctc", steps=50)), "cpu")
    sound, starts, ends = spoken("你好世界", seed=5)
    (found,) = recogniser.recognise([sound])
    assert [one.text for one in found] == ["你", "好", "世", "界"]  # no blanks: each character is a word
    assert np.abs(np.array([one.start for one in found]) - starts).max() < 0.04
    assert np.abs(np.array([one.end for one in found]) - ends).max() < 0.06
    assert min(one.confidence for one in found) > 0.4
    (word,) = recogniser.recognise([spoken("abc", seed=6)[0]])[0]
    assert word.text == "abc"


@pytest.mark.parametrize("kind", ["vit", "hubert"])
def test_a_model_of_another_kind_is_refused_in_one_line(tmp_path, kind):
    with pytest.raises(UnusableSettingError, match=r"asr\.model = .* is no recogniser") as error:
        load_recogniser(settings(save_model(kind, tmp_path / kind)), "cpu")
    assert "\n" not in str(error.value)


def test_an_unknown_language_is_refused(whisper):
    with pytest.raises(UnusableSettingError, match=r"asr\.language = fr: unknown; choose from en, zh"):
        load_recogniser(settings(whisper, language="fr"), "cpu")


def test_words_are_joined_as_they_are_written():
    assert joined_text(["Don't", "stop", "now."]) == "Don't stop now."
    assert joined_text(["你", "好", "，", "世", "界"]) == "你好，世界"
    assert joined_text(["我", "用", "Whisper", "说"]) == "我用 Whisper 说"


def test_unsure_and_repeated_transcripts_have_notes():
    rows = heard_rows([Heard("thank", k * 0.1, k * 0.1 + 0.1, 0.2) for k in range(60)])
    assert len(rows.notes) == 2
    assert "unsure" in rows.notes[0]
    assert "repeats itself" in rows.notes[1]
    assert heard_rows([Heard("thank", 0, 0.1, 0.9)]).notes == ()
    assert (np.diff(heard_rows([Heard("a", 1, 1, 1), Heard("b", 1, 2, 1)]).times) > 0).all()


class Sound:
    """A clip that is a waveform."""

    def __init__(self, waveform):
        self._waveform = waveform

    def waveform(self):
        return self._waveform


@pytest.fixture(scope="module")
def speech(test_data):
    with av.open(str(test_data / CLIP)) as container:
        to_mono = av.AudioResampler("flt", "mono", RATE)
        parts = [
            one.to_ndarray()[0] for frame in container.decode(audio=0) for one in to_mono.resample(frame)
        ]
    return np.concatenate(parts).astype(np.float32)


@pytest.fixture(scope="module")
def sphinx():
    return Recognition(AsrSettings(backend="pocketsphinx"), RATE)


def test_pocketsphinx_recognises_an_english_clip(sphinx, speech):
    sphinx.add("one", Sound(speech))
    rows = sphinx.finish()["one"]
    heard = [str(token) for token in rows.extras["tokens"]]
    assert len(set(heard) & set(SENTENCE.split())) > 0.8 * len(set(SENTENCE.split()))
    confidence = rows.values[:, 2]
    assert confidence.min() < 0.6 < confidence.max() <= 1  # some words are harder than others
    assert (rows.values[:, 1] > rows.values[:, 0]).all()
    assert rows.values[-1, 1] < len(speech) / RATE


def test_nobody_speaks(sphinx):
    for sound in (np.zeros(2 * RATE, np.float32), noise(2)):
        with pytest.raises(ExtractionError) as error:
            sphinx.add("quiet", Sound(sound))
        assert error.value.reason == Reason.NO_SPEECH


@pytest.mark.parametrize(
    ("bad", "reason"), [([], Reason.EMPTY_AUDIO), ([0, np.nan], Reason.NON_FINITE_AUDIO)]
)
def test_unusable_sound_is_refused(sphinx, bad, reason):
    with pytest.raises(ExtractionError) as error:
        sphinx.add("bad", Sound(np.array(bad, np.float32)))
    assert error.value.reason == reason


class Lengths:
    """A recogniser that notes how long its sounds are, and cannot recognise one of them."""

    rate, longest = RATE, 12.0

    def __init__(self):
        self.lengths = []

    def recognise(self, sounds):
        self.lengths += [len(sound) / RATE for sound in sounds]
        if any(sound[0] == 0.5 for sound in sounds):
            raise RuntimeError("a sound that it cannot read")
        return [[Heard("a", 0.0, 0.1, 1.0)] for _ in sounds]


def test_long_sound_is_divided_in_pauses_and_silent_pieces_are_left_out(sphinx, speech, monkeypatch):
    recogniser = Lengths()
    monkeypatch.setattr(sphinx, "_recogniser", recogniser)
    quiet = np.zeros(20 * RATE, np.float32)
    sphinx.add("long", Sound(np.concatenate([speech, quiet, speech])))
    rows = sphinx.finish()["long"]
    assert max(recogniser.lengths) <= 12
    assert len(rows) == len(recogniser.lengths)
    assert len(recogniser.lengths) < (2 * len(speech) / RATE + 20) / 12 + 1
    silent = (len(speech) / RATE + 0.5, len(speech) / RATE + 20 - 12)
    assert not any(silent[0] < start < silent[1] for start in rows.values[:, 0])


def test_a_clip_that_cannot_be_recognised_does_not_fail_the_others(sphinx, speech, monkeypatch):
    monkeypatch.setattr(sphinx, "_recogniser", Lengths())
    broken = speech.copy()
    broken[0] = 0.5
    sphinx.add("good", Sound(speech[: 5 * RATE]))
    sphinx.add("broken", Sound(broken[: 5 * RATE]))
    found = sphinx.finish()
    assert isinstance(found["broken"], RuntimeError)
    assert len(found["good"]) == 1
