"""``export --to mmsa --align words``: the layout of MMSA's aligned files."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from click.testing import CliRunner
from word_folder import make_word_folder

from triptych.pipeline.cli.main import cli
from triptych.pipeline.errors import InputError
from triptych.pipeline.exchange.imported import import_mmsa
from triptych.pipeline.exchange.mmsa import export_mmsa
from triptych.pipeline.storage.store import FeatureStore
from triptych.pipeline.storage.streams import Streams

SPLITS = {"train": 8, "valid": 4, "test": 4}


def as_mmsa_reads(file, split):
    """Read a split with MMSA's ``need_data_aligned`` and ``use_bert``."""
    part = pickle.loads(file.read_bytes())[split]
    text, audio, vision = (part[name].astype(np.float32) for name in ("text_bert", "audio", "vision"))
    audio[audio == -np.inf] = 0
    labels = np.array(part["regression_labels"]).astype(np.float32)
    assert len(part["raw_text"]) == len(part["id"]) == len(labels) == len(text) == len(audio) == len(vision)
    return text, audio, vision, part


def test_audio_and_vision_have_a_row_for_each_token(tmp_path):
    clips = make_word_folder(tmp_path / "features", SPLITS)
    file = tmp_path / "aligned.pkl"
    command = ["export", str(tmp_path / "features"), "--to", "mmsa", str(file), "--align", "words"]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    store = FeatureStore(tmp_path / "features")
    for split, count in SPLITS.items():
        text, audio, vision, part = as_mmsa_reads(file, split)
        assert text.shape[0] == count
        assert text.shape[2] == audio.shape[1] == vision.shape[1] == part["text"].shape[1]
        assert not {"audio_lengths", "vision_lengths"} & part.keys()
    text, audio, _, part = as_mmsa_reads(file, "train")
    tokens = store.read("text", clips[0].id)
    raw = store.read("audio", clips[0].id)
    for row, time in enumerate(tokens.times):
        if np.isnan(time):
            assert not audio[0, row].any()
            continue
        inside = (raw.times >= time) & (raw.times < time + 0.2)
        np.testing.assert_allclose(audio[0, row], raw.values[inside].mean(axis=0), rtol=1e-4, atol=1e-5)
    assert not audio[0, len(tokens) :].any()
    np.testing.assert_array_equal(text[0, 0, : len(tokens)], tokens.extras["input_ids"])


def test_an_aligned_file_is_imported_again(tmp_path):
    clips = make_word_folder(tmp_path / "features", SPLITS)
    file = tmp_path / "aligned.pkl"
    export_mmsa(FeatureStore(tmp_path / "features"), file, Streams(align="words"))
    import_mmsa(file, tmp_path / "again")
    again, store = FeatureStore(tmp_path / "again"), FeatureStore(tmp_path / "features")
    assert again.ids("audio") == store.ids("audio")
    read = pickle.loads(file.read_bytes())["train"]
    found = again.read("audio", clips[0].id).values
    np.testing.assert_array_equal(found, read["audio"][read["id"].index(clips[0].id), : len(found)])
    assert len(found) == len(store.read("text", clips[0].id))


def test_clips_without_words_are_refused(tmp_path):
    make_word_folder(tmp_path, SPLITS, without_words=2)
    with pytest.raises(InputError, match="2 of 16 clips have no rows of the stage words"):
        export_mmsa(FeatureStore(tmp_path), tmp_path / "aligned.pkl", Streams(align="words"))
    assert not (tmp_path / "aligned.pkl").exists()


def test_only_mmsa_is_aligned(tmp_path):
    make_word_folder(tmp_path, SPLITS)
    done = CliRunner().invoke(
        cli, ["export", str(tmp_path), "--to", "csv", str(tmp_path / "t"), "--align", "words"]
    )
    assert done.exit_code == 2
