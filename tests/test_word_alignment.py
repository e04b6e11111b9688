"""Training and export on one row for each word, ``--align words``."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from word_folder import WORD, make_word_folder

from triptych.extractors.base import Features
from triptych.extractors.words.rows import word_rows
from triptych.extractors.words.tokens import Token, tokens_of
from triptych.pipeline.cli.main import cli
from triptych.pipeline.errors import InputError
from triptych.pipeline.storage.store import FeatureStore
from triptych.pipeline.storage.streams import Streams
from triptych.pipeline.trainer.data.aligned import aligned, pooled_rows, pooled_text
from triptych.pipeline.trainer.data.clips import load
from triptych.pipeline.trainer.runs.prediction import check_fingerprints, load_checkpoints, predict
from triptych.pipeline.trainer.systems import SYSTEMS

SPLITS = {"train": 10, "valid": 4, "test": 4}
WORDS = Streams(align="words")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("words")
    return path, make_word_folder(path, SPLITS)


def rows(stage_times, values, valid=None):
    count = len(stage_times)
    return Features(
        np.asarray(values, np.float32).reshape(count, 1),
        ("x",),
        ("",),
        np.asarray(stage_times, np.float64),
        np.ones(count, bool) if valid is None else np.asarray(valid),
    )


def word_spans(*spans):
    start, end = np.array(spans, np.float64).T
    tokens = [Token("a", k, k + 1) for k in range(len(spans))]
    return word_rows(tokens, start, end, np.ones(len(spans)), np.ones(len(spans), bool))


def test_rows_of_a_span_are_averaged_and_invalid_ones_left_out():
    features = rows([0, 0.1, 0.2, 0.3, 0.4], [1, 2, 4, 8, 16], [True, True, False, True, False])
    words = word_spans((0, 0.2), (0.2, 0.35), (0.36, 0.38), (0.41, 0.42), (0.26, 0.27))
    found = pooled_rows(features, words, 5)
    assert found.values[:, 0].tolist() == [1.5, 8, 0, 0, 8]
    assert found.valid.tolist() == [True, True, False, False, True]  # the nearest row is at 0.4 s


def test_a_span_between_two_rows_has_the_nearest_one():
    found = pooled_rows(rows([0, 0.1, 0.2], [1, 2, 4]), word_spans((0.11, 0.13), (0.17, 0.19), (0.5, 0.6)), 3)
    assert found.values[:, 0].tolist() == [2, 4, 4]


def test_text_rows_of_a_word_are_averaged_and_missing_ones_repeated():
    text = rows([np.nan, 0.1, 0.1, 0.7, np.nan], [9, 1, 3, 5, 9])
    found = pooled_text(
        text, np.array([-1, 0, 0, 2, -1]), word_spans((0.1, 0.2), (0.4, 0.5), (0.7, 0.8), (1, 2))
    )
    assert found.values[:, 0].tolist() == [2, 2, 5]  # the language model cut the fourth word off


@pytest.mark.parametrize("memory", [1 << 30, 0])
def test_streams_have_a_row_for_each_word(folder, memory):
    path, clips = folder
    data = load(FeatureStore(path), sequences=True, streams=WORDS, memory=memory)
    assert data.in_memory(rows=True) == bool(memory)
    counts = [len(tokens_of(clip.text)) for clip in clips]
    assert data.text_lengths.tolist() == counts
    for modality in ("audio", "vision"):
        assert [len(one) for one in data.sequences[modality]] == counts
    raw = FeatureStore(path).read("audio", clips[3].id)
    inside = (raw.times >= 0.1 + WORD) & (raw.times < 0.3 + WORD)
    np.testing.assert_allclose(
        data.sequences["audio"][3].values[1], raw.values[inside].mean(axis=0), rtol=1e-4, atol=1e-6
    )
    text = FeatureStore(path).read("text", clips[3].id)
    np.testing.assert_allclose(data.text[3][4], text.values[6:8].mean(axis=0), rtol=1e-5, atol=1e-6)


def test_clips_without_words_are_counted(tmp_path):
    make_word_folder(tmp_path, SPLITS, without_words=5)
    with pytest.raises(InputError, match=r"5 of 18 clips have no rows of the stage words \(v_0013") as error:
        aligned(FeatureStore(tmp_path), WORDS)
    assert "triptych extract SOURCE -o FOLDER --only text,audio,vision,words" in str(error.value)


def test_an_unknown_alignment_is_refused(folder):
    with pytest.raises(InputError, match="choose from none, words"):
        load(FeatureStore(folder[0]), streams=Streams(align="phones"))


def test_mfn_reads_words_without_its_own_aligner():
    settings = SYSTEMS["mfn"].for_aligned()
    assert settings.aligner is None
    assert settings.view == "tokens"
    assert SYSTEMS["mfn"].as_mmsa().for_aligned().view == "tokens"


def test_a_run_remembers_its_alignment(folder, tmp_path):
    path, clips = folder
    command = ["train", str(path), "--model", "mfn", "--seeds", "1", "-o", str(tmp_path / "run"), "-j", "1"]
    command += ["--set", "max_epochs=1"]
    done = CliRunner().invoke(cli, [*command, "--align", "words"])
    assert done.exit_code == 0, done.output
    run = json.loads((tmp_path / "run/run.json").read_text())
    assert run["streams"] == {"text": "text", "audio": "audio", "vision": "vision", "align": "words"}
    assert load_checkpoints(tmp_path / "run")[0].origin.streams == WORDS
    assert len(predict(tmp_path / "run", path)) == len(clips)
    other = CliRunner().invoke(cli, command)
    assert "another alignment" in str(other.exception)
    fingerprints = {**FeatureStore(path).recipe["fingerprints"], "words": "0" * 64}
    with pytest.raises(InputError, match="words features have fingerprint 00000000"):
        check_fingerprints(load_checkpoints(tmp_path / "run")[0].origin, fingerprints, "here")
