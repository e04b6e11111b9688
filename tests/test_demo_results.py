"""The demonstration: what the extractors find against the truth, and what its model learns and does not learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from triptych.pipeline.demo.clips import read_truth
from triptych.pipeline.demo.run import evaluate
from triptych.pipeline.storage.store import FeatureStore


def column(store: FeatureStore, clip: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Values of one vision column, and the pictures of the truth that they belong to."""
    features = store.read("vision", clip)
    pictures = np.round(features.times * 30).astype(int)
    return features.values[:, features.columns.index(name)][features.valid], pictures[features.valid]


@pytest.mark.parametrize(
    ("name", "truth", "least"),
    [("pose_Rz", "roll", 0.98), ("AU25_r", "mouth", 0.8), ("AU26_r", "mouth", 0.8), ("AU45_r", "blink", 0.7)],
)
def test_the_face_is_read_as_it_was_moved(
    demo_clips: Path, demo_features: Path, name: str, truth: str, least: float
) -> None:
    store = FeatureStore(demo_features)
    assert len(store.ids("vision")) == 48
    found, true = [], []
    for clip in store.ids("vision"):
        values, pictures = column(store, clip, name)
        known = getattr(read_truth(demo_clips, clip), truth)
        inside = pictures < len(known)
        found.append(values[inside])
        true.append(known[pictures[inside]])
    by_clip = [np.corrcoef(x, y)[0, 1] for x, y in zip(found, true, strict=True)]
    pooled = np.corrcoef(np.concatenate(found), np.concatenate(true))[0, 1]
    print(
        f"{name}: r {pooled:.3f} over all frames; by clip median {np.median(by_clip):.3f}, least {min(by_clip):.3f}"
    )
    assert pooled >= least
    assert np.median(by_clip) >= least


def test_the_pitch_is_the_one_that_was_sung(demo_clips: Path, demo_features: Path) -> None:
    store = FeatureStore(demo_features)
    cents, right = [], []
    for clip in store.ids("audio"):
        features, f0 = store.read("audio", clip), read_truth(demo_clips, clip).f0
        rows = min(len(features), len(f0))
        voiced, true = features.extras["voiced"][:rows], f0[:rows] > 0
        both = voiced & true
        cents.append(np.abs(features.values[:rows, 0][both] - np.log(f0[:rows][both])) * 1200 / np.log(2))
        right.append(voiced == true)
    print(
        f"median {np.median(np.concatenate(cents)):.1f} cents, voicing right on {np.concatenate(right).mean():.1%}"
    )
    assert np.median(np.concatenate(cents)) <= 30
    assert np.concatenate(right).mean() >= 0.85


def test_the_model_beats_constant_answers_on_every_task(demo_features: Path) -> None:
    validated = evaluate(FeatureStore(demo_features), jobs=2)
    assert len(validated.labels) == 48
    assert len(validated.predictions) == 5
    summary, bars = validated.summary(), validated.baseline()
    for task in "MTAV":
        reached = {metric: float(summary[task][metric]["mean"]) for metric in ("Acc-2", "MAE", "Corr")}
        print(task, {name: round(value, 3) for name, value in reached.items()}, bars[task])
        assert reached["Acc-2"] > bars[task]["Acc-2"]
        assert reached["MAE"] < bars[task]["MAE"]
        assert reached["Corr"] >= 0.3


def test_shuffled_labels_teach_nothing(demo_features: Path) -> None:
    # One permutation of 48 labels is off zero by .15 by chance: ten seeds of five folds are fifty of them.
    summary = evaluate(FeatureStore(demo_features), jobs=2, seeds=range(10), shuffle_labels=True).summary()
    found = {task: float(summary[task]["Corr"]["mean"]) for task in "MTAV"}
    print({task: round(value, 3) for task, value in found.items()})
    assert all(abs(value) <= 0.2 for value in found.values())
