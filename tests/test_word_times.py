"""Text rows get the times of the words that their tokens belong to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from word_folder import bert_tokens, make_word_folder

from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.manifest.writing import write_manifest
from triptych.pipeline.report.series import clip_series
from triptych.pipeline.storage.store import FeatureStore
from triptych.pipeline.storage.word_times import token_places


@pytest.mark.parametrize(
    ("tokens", "transcript", "expected"),
    [
        (["[CLS]", "你", "好", "，", "世", "[SEP]"], "你好，世", [-1, 0, 1, 2, 3, -1]),
        (["hel", "##lo", "wor", "##ld"], "Hello  WORLD", [0, 3, 7, 10]),
        (["naive", "cafe"], "naïve café", [0, 6]),
        (["abc", "１", "12"], "ＡＢＣ　112", [0, 4, 5]),
        (["你", "[UNK]", "好"], "你龘好", [0, 1, 2]),
        (["[UNK]", "[UNK]", "ok", "[UNK]"], "龘xyz ok 𠀀", [0, 1, 5, 8]),
        (["zzz", "好"], "你好", [-1, 1]),
        (["▁hello", "▁", "world"], "hello world", [0, -1, 6]),
        (["a", "##a", "a"], "aa a", [0, 1, 3]),
        ([], "", []),
    ],
)
def test_tokens_are_found_in_the_transcript(tokens, transcript, expected):
    assert token_places(tokens, transcript).tolist() == expected


def test_text_rows_have_the_starts_of_their_words(tmp_path):
    clip = make_word_folder(tmp_path, {"train": 5})[4]
    store = FeatureStore(tmp_path)
    found = store.read("text", clip.id)
    assert bert_tokens(clip.text) == ["[CLS]", "第", "4", "句", "，", "好", "na", "##ive", "。", "[SEP]"]
    nan = np.nan
    np.testing.assert_allclose(found.times, [nan, 0.1, 0.4, 0.7, nan, 1.0, 1.3, 1.3, nan, nan])


def test_a_changed_transcript_takes_the_times_away_with_the_rows(tmp_path):
    clips = make_word_folder(tmp_path, {"train": 3}, without_words=1)
    store = FeatureStore(tmp_path)
    assert np.isnan(store.read("text", clips[2].id).times).all()
    manifest = load_manifest(tmp_path / "manifest.csv", check_files=False)
    changed = [replace(clip, text="别的") if clip.id == clips[0].id else clip for clip in manifest.clips]
    write_manifest(replace(manifest, clips=tuple(changed)), tmp_path / "manifest.csv")
    store = FeatureStore(tmp_path)
    assert store.ids("words") == (clips[1].id,)
    assert np.isfinite(store.read("text", clips[1].id).times).any()


def test_the_report_places_tokens_at_their_times(tmp_path):
    import base64
    import json
    import zlib

    clip = make_word_folder(tmp_path, {"train": 1})[0]
    content = zlib.decompress(base64.b64decode(clip_series(FeatureStore(tmp_path), clip.id)), -15)
    header = json.loads(content[4 : 4 + int.from_bytes(content[:4], "little")])
    assert header["token_times"][:6] == [None, 0.1, 0.4, 0.7, None, 1.0]
