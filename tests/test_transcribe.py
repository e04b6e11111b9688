"""Transcripts of a data set: whose they are, corrections, and files in which people correct them."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from triptych.extractors.base import Features
from triptych.pipeline.cli.main import cli
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import Clip, Manifest
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.manifest.transcripts import timed_transcript
from triptych.pipeline.manifest.writing import write_manifest
from triptych.pipeline.transcribing.correction_files import read_files, write_files
from triptych.pipeline.transcribing.texts import corrected, transcribed, with_corrections

NAN = float("nan")
HARD = ['他说："你好" --> 再见', "a < b & c > d", "line one line two", "100% sure"]


def clip(id, text=None, **details):
    return Clip(id, "a.mp4", text, None, NAN, NAN, NAN, NAN, "/r", **details)


def rows(*words):
    starts = np.arange(len(words), dtype=np.float64)
    values = np.stack([starts, starts + 0.5, np.full(len(words), 0.75)], 1).astype(np.float32)
    tokens = {"tokens": np.array(words, dtype=object)}
    return Features(values, ("start", "end", "confidence"), ("", "", ""), starts, starts >= 0, tokens)


def test_a_persons_transcript_stays_and_a_recognisers_names_its_origin(tmp_path):
    manifest = Manifest((clip("a"), clip("b", "by hand"), clip("c")))
    done = transcribed(manifest, {"a": rows("你", "好", "abc"), "b": rows("x")}, "m@1", tmp_path)
    one, two, three = done.manifest.clips
    assert (one.text, one.text_source, one.text_confidence) == ("你好 abc", "asr:m@1", 0.75)
    assert (two.text, two.text_source) == ("by hand", None)
    assert (three.text, done.empty) == (None, ("c",))


def test_a_changed_transcript_is_a_correction_and_stays(tmp_path):
    first = transcribed(
        Manifest((clip("a"), clip("b"))), {"a": rows("one"), "b": rows("two")}, "m@1", tmp_path
    )
    edited = Manifest(
        (clip("a", "won", text_source="asr:m@1", text_confidence=0.75), first.manifest.clips[1])
    )
    second = transcribed(
        with_corrections(edited, tmp_path), {"a": rows("one"), "b": rows("too")}, "m@2", tmp_path
    )
    assert [(one.text, one.text_source) for one in second.manifest.clips] == [
        ("won", "corrected"),
        ("too", "asr:m@2"),
    ]
    assert second.corrected == ("a",)


@pytest.mark.parametrize("form", ["srt", "vtt", "TextGrid"])
def test_files_for_correction_are_read_back(tmp_path, form):
    files = [clip(f"v$_${number}", text) for number, text in enumerate(HARD)]
    spans = [
        clip(f"talk$_${number}", text, start=10.0 * number, end=10.0 * number + 8, text_source="asr:m@1")
        for number, text in enumerate(HARD)
    ]
    manifest = Manifest((*files, *spans))
    written = write_files(manifest, {"talk$_$0": rows("a", "b")}, form, tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in written][-1] == f"talk.{form}"
    assert len(timed_transcript(tmp_path / f"talk.{form}")) == len(HARD)
    assert timed_transcript(tmp_path / f"talk.{form}")[1].start == pytest.approx(10)
    texts = read_files(manifest, tmp_path)
    assert [texts[one.id] for one in manifest.clips] == [*HARD, *HARD]
    assert corrected(manifest, texts)[1] == ()
    changed, ids = corrected(manifest, {**texts, "v$_$0": "neu", "talk$_$1": "新"})
    assert ids == ("v$_$0", "talk$_$1")
    by_id = {one.id: one for one in changed.clips}
    assert (by_id["v$_$0"].text_source, by_id["talk$_$1"].text_source) == (None, "corrected")


def test_a_folder_without_transcripts_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no transcript of a clip; expected files such as v/1\.srt"):
        read_files(Manifest((clip("v$_$1", "a"),)), tmp_path)


def test_the_command_transcribes_what_has_no_transcript(few_clips, tmp_path):
    pytest.importorskip("pocketsphinx")
    found = load_manifest(few_clips)
    own = Manifest(tuple(one if n else Clip(*[getattr(one, f) for f in ("id", "path")], None, None, NAN, NAN, NAN,
                                            NAN, one.root) for n, one in enumerate(found.clips[:2])))  # fmt: skip
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    write_manifest(own, dataset / "manifest.csv")
    words = ["transcribe", str(dataset), "--backend", "pocketsphinx", "-j", "1"]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    first, second = load_manifest(dataset / "manifest.csv", check_files=False).clips
    assert second.text == own.clips[1].text
    assert first.text is None or first.text_source.startswith("asr:pocketsphinx@")
    again = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert "1 by people" in again.output
    none = CliRunner().invoke(cli, ["transcribe", str(few_clips)])
    assert none.exit_code != 0
