"""The public API: names load when used, examples in docstrings run, arrays and paths give the same rows."""

from __future__ import annotations

import doctest
import shutil
import subprocess
import sys
from inspect import isfunction
from pathlib import Path

import numpy as np
import pytest
from feature_folder import make_folder

import triptych
from triptych import api
from triptych.extractors.base import ExtractionError, Reason
from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings
from triptych.pipeline.demo.clips import make_clips
from triptych.pipeline.errors import InputError


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api") / "clips"
    make_clips(folder, count=2)
    return folder


@pytest.fixture(scope="module")
def clip(clips):
    return sorted(clips.rglob("*.mp4"))[0]


def test_docstring_examples(clips, tmp_path, monkeypatch):
    shutil.copytree(clips, tmp_path / "clips")
    make_folder(tmp_path / "dataset", {"train": 12, "valid": 6, "test": 6})
    monkeypatch.chdir(tmp_path)
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    names = [name for name in triptych.__all__ if isfunction(getattr(triptych, name))]
    names = [name for name in names if getattr(triptych, name).__module__ == api.__name__]
    order = ["extract", "train"]  # they make the folders that the others read
    for name in [*order, *sorted(set(names) - {*order})]:
        (example,) = finder.find(getattr(triptych, name), name, globs={})
        assert example.examples, f"{name} has no example"
        assert runner.run(example).failed == 0


def test_every_public_name_is_there_and_documented():
    for name in triptych.__all__:
        assert getattr(triptych, name).__doc__, name
    assert set(triptych.__all__) <= set(dir(triptych))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        triptych.nothing  # noqa: B018


def test_import_is_light():
    code = "import sys, triptych; print({'numpy', 'torch', 'pydantic', 'h5py', 'click'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("kind", [str, Path])
def test_paths_may_be_text_or_paths(clips, tmp_path, kind):
    triptych.extract(kind(clips), kind(tmp_path / "features"), only=["audio"], jobs=0)
    store = triptych.open(kind(tmp_path / "features"))
    assert len(store.ids("audio")) == 2
    assert repr(store).endswith("clips with audio 2)")


def test_settings_are_those_of_the_command_line(clips, tmp_path):
    settings = {"audio.first": "zcr", "audio.mfcc_htk": True, "media.sample_rate": 24000}
    triptych.extract(clips, tmp_path / "features", only=["audio"], settings=settings, jobs=0)
    store = triptych.open(tmp_path / "features")
    assert store.recipe["recipe"]["audio"]["mfcc_htk"] is True
    rows = store.read("audio", store.ids("audio")[0])
    assert rows.columns[0] == "zcr"
    assert rows.times[1] == pytest.approx(512 / 24000)
    with pytest.raises(InputError, match=r"audio\.hop: unknown setting"):
        triptych.extract(clips, tmp_path / "other", only=["audio"], settings={"audio.hop": 1}, jobs=0)


def test_a_path_and_its_arrays_give_the_same_rows(clip):
    source = MediaSource(clip, MediaSettings())
    frames = [frame.image for frame in source.frames()]
    by_path = triptych.compute("audio", path=clip)
    by_array = triptych.compute("audio", waveform=source.waveform(), sample_rate=22050)
    np.testing.assert_array_equal(by_path.values, by_array.values)
    by_path = triptych.compute("faces", path=str(clip))
    by_array = triptych.compute("faces", frames=frames, frame_rate=30)
    np.testing.assert_array_equal(by_path.values, by_array.values)


def test_text_is_embedded_without_a_file(small_bert):
    rows = triptych.compute("text", text="嫁给我", settings={"text.model": str(small_bert)})
    assert rows.values.shape == (5, 768)
    assert list(rows.extras["tokens"]) == ["[CLS]", "嫁", "给", "我", "[SEP]"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"stage": "sound"}, "unknown stage 'sound'; choose from text, audio"),
        ({"stage": "audio", "waveform": np.zeros(9)}, "give its sample_rate"),
        (
            {"stage": "audio", "waveform": np.zeros((9, 2)), "sample_rate": 8000},
            r"float64 of shape \(9, 2\); give one channel",
        ),
        ({"stage": "audio", "waveform": np.zeros(9, int), "sample_rate": 8000}, "floating-point samples"),
        ({"stage": "faces", "frames": []}, "give their frame_rate"),
        *(
            (
                {"stage": "faces", "frames": [], "frame_rate": rate},
                f"frame_rate = {rate}: give a number above 0",
            )
            for rate in (0, -25.0, float("nan"), float("inf"))
        ),
        (
            {"stage": "audio", "waveform": np.zeros(9), "sample_rate": 0},
            "sample_rate = 0: give a number above 0",
        ),
    ],
)
def test_wrong_arguments_are_explained(arguments, problem):
    with pytest.raises(InputError, match=problem):
        triptych.compute(**arguments)


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        ("audio", Reason.NO_AUDIO_STREAM),
        ("faces", Reason.NO_VIDEO_STREAM),
        ("text", Reason.NO_TRANSCRIPT),
    ],
)
def test_a_missing_input_has_a_reason(stage, reason, small_bert):
    with pytest.raises(ExtractionError) as error:
        triptych.compute(stage, settings={"text.model": str(small_bert)})
    assert error.value.reason == reason


def test_python_m_triptych_is_the_command():
    words = [sys.executable, "-m", "triptych", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"triptych, version {triptych.__version__}"


def test_a_media_source_takes_text_or_a_path(clip):
    by_text = MediaSource(str(clip), MediaSettings()).waveform()
    np.testing.assert_array_equal(by_text, MediaSource(clip, MediaSettings()).waveform())
