"""Predictions from a run folder, and the features that it refuses."""

from dataclasses import replace

import numpy as np
import pytest
from small_systems import narrow
from synthetic_store import make_store, without

from triptych.pipeline.errors import InputError
from triptych.pipeline.trainer.data.clips import load
from triptych.pipeline.trainer.metrics import WIDE_METRICS
from triptych.pipeline.trainer.runs import prediction as predicting
from triptych.pipeline.trainer.runs.checkpoint import load_checkpoint
from triptych.pipeline.trainer.runs.folder import read_run
from triptych.pipeline.trainer.runs.run import run_training


@pytest.fixture(scope="module")
def store():
    return make_store(20, shorter=4)


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    run_training(store, "mlf-dnn", (1, 12), out, narrow("mlf-dnn", max_epochs=2))
    return out, [load_checkpoint(out / f"seed-{seed}.pt") for seed in (1, 12)]


def predicted(run, store, wanted=None, label_range=(-1.0, 1.0)):
    store.folder = "F"
    return predicting._predict(predicting.load_checkpoints(run[0]), store, wanted, label_range)


def test_values_are_the_mean_over_checkpoints(run, store):
    data = load(store)
    expected = np.mean([model.predict(data)["M"] for model in run[1]], axis=0).clip(-1, 1)
    found = predicted(run, store)
    assert [one.clip_id for one in found] == list(data.ids)
    np.testing.assert_allclose([one.values["M"] for one in found], expected, rtol=1e-6)
    assert set(found[0].values) == {"M", "T", "A", "V"}


def test_one_clip_is_predicted_as_among_others(run, store):
    everything = {one.clip_id: one for one in predicted(run, store)}
    clip = sorted(everything)[3]
    [alone] = predicted(run, store, {clip})
    assert alone.values == pytest.approx(everything[clip].values, abs=1e-6)


@pytest.mark.parametrize("name", ["mlf-dnn", "ef-lstm"])
def test_tasks_of_missing_modalities_are_left_out(name, store, tmp_path):
    run_training(store, name, (1,), tmp_path, narrow(name, max_epochs=1))
    partial = without(store, text=range(20), vision=[0])
    clips = [clip.id for clip in partial.manifest.clips]
    found = {one.clip_id: one for one in predicted((tmp_path,), partial, set(clips[:2]))}
    assert found[clips[0]].missing == ("text", "vision")
    assert found[clips[1]].missing == ("text",)
    assert "M" in found[clips[0]].values
    assert not {"T", "V"} & found[clips[0]].values.keys()
    nothing = without(store, text=range(20), audio=range(20), vision=range(20))
    [empty] = predicted((tmp_path,), nothing, {clips[0]})
    assert (empty.values, empty.missing) == ({}, ("text", "audio", "vision"))


def test_classes_are_the_papers():
    one = predicting.Sentiment("c", {"M": 0.1, "T": -0.7, "A": 0.71, "V": -0.05}, ())
    assert [one.class_of(task) for task in "MTAV"] == ["neutral", "negative", "positive", "neutral"]


def test_features_of_another_fingerprint_are_refused(run, store):
    other = make_store(20, shorter=4)
    other.recipe["fingerprints"]["audio"] = "fedcba9876543210"
    with pytest.raises(
        InputError, match=r"F: audio features have fingerprint fedcba98, but the run was trained on audio012"
    ):
        predicted(run, other)


def test_a_folder_without_checkpoints_is_refused(tmp_path, run, store):
    with pytest.raises(InputError, match="triptych train -o"):
        predicting.predict(tmp_path, tmp_path)
    other = make_store(20, shorter=4)
    other.recipe["fingerprints"]["audio"] = "fedcba9876543210"
    run_training(other, "mlf-dnn", (1,), tmp_path / "other", narrow("mlf-dnn", max_epochs=1))
    for path in run[0].glob("seed-12.pt"):
        (tmp_path / "other" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="other features than"):
        predicting.load_checkpoints(tmp_path / "other")


def test_one_video_is_a_manifest(tmp_path):
    video = tmp_path / "v1" / "0001.mp4"
    with pytest.raises(InputError, match="not found"):
        predicting.single(video)
    video.parent.mkdir()
    video.write_bytes(b"")
    assert predicting.single(video).clips[0].text is None
    video.with_suffix(".txt").write_text(" 很好 \n", encoding="utf-8")
    [clip] = predicting.single(video).clips
    assert (clip.id, clip.text, clip.file) == ("0001", "很好", video)
    assert predicting.single(video, "不好").clips[0].text == "不好"
    with pytest.raises(InputError, match="leave it out"):
        predicting.predict(tmp_path, tmp_path, text="x")


def test_labels_of_another_range_train_alike_and_are_predicted_in_their_units(run, store, tmp_path):
    """Three times the labels, in three times the range, are the same training."""
    wide = make_store(20, shorter=4)
    clips = tuple(
        replace(
            clip, **{name: 3 * getattr(clip, name) for name in ("label", "label_T", "label_A", "label_V")}
        )
        for clip in wide.manifest.clips
    )
    wide.manifest = replace(wide.manifest, clips=clips, label_range=(-3.0, 3.0))
    results = run_training(wide, "mlf-dnn", (1, 12), tmp_path, narrow("mlf-dnn", max_epochs=2))
    assert list(results["metrics"]["M"]) == list(WIDE_METRICS)
    assert read_run(tmp_path)["label_range"] == [-3.0, 3.0]
    narrow_ones, wide_ones = predicted(run, store), predicted((tmp_path,), wide, label_range=(-3.0, 3.0))
    for one, other in zip(narrow_ones, wide_ones, strict=True):
        assert other.values == pytest.approx(
            {task: 3 * value for task, value in one.values.items()}, abs=1e-4
        )
        assert other.class_of("M") == one.class_of("M")
    splits = {clip.id: clip.split for clip in wide.manifest.clips}
    assert {one.clip_id: one.split for one in wide_ones} == splits
