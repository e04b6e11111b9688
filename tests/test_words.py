"""The stage `words`: tokens of a transcript, the best path of a CTC model, and spans in seconds."""

from __future__ import annotations

import csv
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from ctc_model import RATE, save_ctc_model, spoken

from triptych.extractors.base import BackendMissingError, ExtractionError, Reason
from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings
from triptych.extractors.words import stage
from triptych.extractors.words.ctc import CtcAligner
from triptych.extractors.words.spans import WILDCARD, joined, spelled
from triptych.extractors.words.stage import STAGE, WordsSettings
from triptych.extractors.words.tokens import tokens_of
from triptych.extractors.words.viterbi import BLOCK, best_path, frames_needed


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_ctc_model(tmp_path_factory.mktemp("ctc") / "model")


def aligner(model, **settings):
    return CtcAligner(WordsSettings(model=str(model), revision="", **settings), RATE)


@pytest.mark.parametrize(
    ("transcript", "expected"),
    [
        ("你好，世界。", ["你", "好", "世", "界"]),
        ("It's the 2nd day!", ["It's", "the", "2nd", "day"]),
        ("我爱AI，really", ["我", "爱", "AI", "really"]),
        ("'quoted' word", ["quoted", "word"]),
        ("３月𠀀日", ["３", "月", "𠀀", "日"]),
        (" …… ", []),
    ],
)
def test_tokens_are_characters_and_words_without_punctuation(transcript, expected):
    tokens = tokens_of(transcript)
    assert [token.text for token in tokens] == expected
    assert [transcript[token.begin : token.stop] for token in tokens] == expected


def test_symbols_follow_the_vocabularys_case_and_a_run_of_unknown_letters_is_one_wildcard():
    found = spelled(tokens_of("Ab c's 123 ｂ"), {"a": 7, "B": 8, "S": 9})
    assert found.symbols.tolist() == [7, 8, WILDCARD, 9, WILDCARD, 8]
    assert found.owner.tolist() == [0, 0, 1, 1, 2, 3]
    assert found.known.tolist() == [True, False, False, True]


def collapsed(path):
    return [state for state, _ in itertools.groupby(path) if state != 0]


@pytest.mark.parametrize("seed", range(12))
def test_path_is_the_best_of_all_paths(seed):
    random = np.random.default_rng(seed)
    count, width = int(random.integers(1, 7)), 3
    symbols = random.integers(1, width, int(random.integers(1, 4)))
    scores = np.log(random.dirichlet(np.ones(width), count)).astype(np.float32)
    skips = np.append(True, symbols[1:] != symbols[:-1])
    paths = [p for p in itertools.product(range(width), repeat=count) if collapsed(p) == symbols.tolist()]
    found = best_path(scores, symbols, skips)
    if not paths:
        assert found is None
        assert frames_needed(skips) > count
        return
    emitted = np.where(found >= 0, symbols[found], 0)
    assert collapsed(emitted.tolist()) == symbols.tolist()
    best = max(sum(scores[t, one] for t, one in enumerate(path)) for path in paths)
    assert scores[np.arange(count), emitted].sum() == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("count", [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17])
def test_blocks_change_no_path(count):
    random = np.random.default_rng(count)
    symbols = random.integers(1, 5, 40)
    skips = np.append(True, symbols[1:] != symbols[:-1])
    scores = np.log(random.dirichlet(np.ones(5), count)).astype(np.float32)
    found = best_path(scores, symbols, skips)
    sums = np.full((count, 81), -np.inf)  # the plain table of all frames
    sums[0, :2] = scores[0, 0], scores[0, symbols[0]]
    for t, state in itertools.product(range(1, count), range(81)):
        before = [sums[t - 1, state], sums[t - 1, state - 1] if state else -np.inf]
        if state % 2 and state > 1 and skips[state // 2]:
            before.append(sums[t - 1, state - 2])
        sums[t, state] = max(before) + scores[t, symbols[state // 2] if state % 2 else 0]
    emitted = np.where(found >= 0, symbols[found], 0)
    assert (np.diff(found[found >= 0]) >= 0).all()
    total = scores[np.arange(count), emitted].sum(dtype=np.float64)
    assert total == pytest.approx(sums[-1, -2:].max(), abs=1e-6)


def test_spans_are_those_of_the_sound(model):
    text = "你好 abc de, 世界"
    sound, starts, ends = spoken(text, seed=5)
    found = aligner(model, join=0).align(text, sound)
    assert found.extras["tokens"].tolist() == ["你", "好", "abc", "de", "世", "界"]
    first, last = [0, 1, 2, 5, 7, 8], [0, 1, 4, 6, 7, 8]
    assert np.abs(found.values[:, 0] - starts[first]).max() < 0.03
    assert np.abs(found.values[:, 1] - ends[last]).max() < 0.03
    assert found.values[:, 2].min() > 0.5
    assert found.valid.all()
    np.testing.assert_allclose(found.times, found.values[:, 0], atol=1e-6)


def test_windows_keep_one_grid_of_frames(model):
    text = "你好 abc de, 世界 " * 3
    sound, starts, _ = spoken(text, seed=6)
    assert len(sound) > 7 * RATE
    found = aligner(model, join=0, window=5).align(text, sound)
    first = np.concatenate([np.array([0, 1, 2, 5, 7, 8]) + 9 * part for part in range(3)])
    assert np.abs(found.times - starts[first]).max() < 0.03


def test_letters_that_the_model_does_not_know_are_marked(model):
    sound, starts, _ = spoken("你龘好a世", seed=2)
    found = aligner(model, join=0).align("你龘好a世", sound)
    assert found.valid.tolist() == [True, False, True, True, True]
    assert found.values[1, 2] == 0
    assert found.notes == ("1 of 5 words are unknown to the model; their times are estimates: 龘",)
    assert np.abs(found.times[[0, 2, 3, 4]] - starts).max() < 0.03
    assert found.times[0] < found.times[1] < found.times[2]


@pytest.mark.parametrize(
    ("transcript", "seconds", "message"),
    [("……", 1, "no letter"), ("你好" * 40, 1, "needs 80 frames, and the sound has 49")],
)
def test_what_cannot_be_aligned_has_a_reason(model, transcript, seconds, message):
    with pytest.raises(ExtractionError, match=message) as error:
        aligner(model).align(transcript, np.zeros(seconds * RATE, np.float32))
    assert error.value.reason == Reason.NOT_ALIGNED


def test_short_gaps_are_divided_and_pauses_are_not():
    start, end = joined(np.array([0.0, 0.3, 2.0]), np.array([0.2, 0.5, 2.1]), 0.2)
    np.testing.assert_allclose(start, [0, 0.25, 1.9])
    np.testing.assert_allclose(end, [0.25, 0.6, 2.1])


def test_a_missing_pocketsphinx_is_named(monkeypatch):
    monkeypatch.setattr(stage, "package_version", lambda package: None)
    with pytest.raises(BackendMissingError, match=r"triptych\[asr-pocketsphinx\]"):
        STAGE.resolve(WordsSettings(backend="pocketsphinx"))


def test_pocketsphinx_aligns_english():
    pytest.importorskip("pocketsphinx")
    if "TRIPTYCH_TEST_DATA" not in os.environ:
        pytest.skip("needs real clips")
    from triptych.extractors.words.sphinx import SphinxAligner

    clips = Path(os.environ["TRIPTYCH_TEST_DATA"]) / "clips"
    with (clips / "label.csv").open(encoding="utf-8") as file:
        text = next(
            row["text"]
            for row in csv.DictReader(file)
            if (row["video_id"], row["clip_id"]) == ("pyfeat", "0002")
        )
    sound = MediaSource(clips / "Raw/pyfeat/0002.mp4", MediaSettings()).waveform()
    settings = WordsSettings(backend="pocketsphinx", join=0)
    found = SphinxAligner(settings, 22050).align(text.replace("day", "zzyx"), sound)
    assert len(found) == 25
    assert found.valid.tolist() == [token != "zzyx" for token in found.extras["tokens"]]
    assert (np.diff(found.times) > 0).all()
    assert (found.values[:, 1] > found.values[:, 0]).all()
    assert found.values[-1, 1] < len(sound) / 22050
    pause = found.extras["tokens"].tolist().index("sunlight")  # heard at 4.1 s to 4.6 s
    np.testing.assert_allclose(found.values[pause, :2], [4.06, 4.62], atol=0.05)
