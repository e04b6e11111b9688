"""The demonstration: extracted values against the truth, and that its model learns from true labels alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from seeds import seeded

from triptych.pipeline.demo.clips import read_truth
from triptych.pipeline.demo.run import evaluate, run_demo
from triptych.pipeline.storage.store import FeatureStore
from triptych.pipeline.trainer.data.clips import load
from triptych.pipeline.trainer.settings import TASKS


def column(store: FeatureStore, clip: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Valid values of one vision column, and the numbers of the clip's frames that they belong to."""
    features = store.read("vision", clip)
    frames = np.round(features.times * 30).astype(int)
    return features.values[:, features.columns.index(name)][features.valid], frames[features.valid]


@pytest.mark.parametrize(
    ("name", "truth", "least"),
    [("pose_Rz", "roll", 0.98), ("AU25_r", "mouth", 0.8), ("AU26_r", "mouth", 0.8), ("AU45_r", "blink", 0.7)],
)
def test_vision_follows_the_motion_of_the_face(
    demo_clips: Path, demo_features: Path, name: str, truth: str, least: float
) -> None:
    store = FeatureStore(demo_features)
    assert len(store.ids("vision")) == 12
    found, true = [], []
    for clip in store.ids("vision"):
        values, frames = column(store, clip, name)
        known = getattr(read_truth(demo_clips, clip), truth)
        inside = frames < len(known)
        found.append(values[inside])
        true.append(known[frames[inside]])
    by_clip = [np.corrcoef(x, y)[0, 1] for x, y in zip(found, true, strict=True)]
    pooled = np.corrcoef(np.concatenate(found), np.concatenate(true))[0, 1]
    print(
        f"{name}: r {pooled:.3f} over all frames; by clip: median {np.median(by_clip):.3f}, {min(by_clip):.3f}"
    )
    assert pooled >= least
    assert np.median(by_clip) >= least


def test_the_pitch_is_that_of_the_voice(demo_clips: Path, demo_features: Path) -> None:
    store = FeatureStore(demo_features)
    cents, right = [], []
    for clip in store.ids("audio"):
        features, f0 = store.read("audio", clip), read_truth(demo_clips, clip).f0
        rows = min(len(features), len(f0))
        voiced, true = features.extras["voiced"][:rows], f0[:rows] > 0
        both = voiced & true
        cents.append(np.abs(features.values[:rows, 0][both] - np.log(f0[:rows][both])) * 1200 / np.log(2))
        right.append(voiced == true)
    assert np.median(np.concatenate(cents)) <= 30
    assert np.concatenate(right).mean() >= 0.85


@pytest.fixture(scope="session")
def demo(made_once) -> Path:
    """The output of a complete demonstration; TRIPTYCH_DEMO names one that exists already."""
    pytest.importorskip("ai_edge_litert")
    if existing := os.environ.get("TRIPTYCH_DEMO"):
        return Path(existing)
    return made_once("demo", lambda folder: run_demo(folder, jobs=2))


@pytest.mark.slow
def test_the_model_beats_constant_answers_on_every_task(demo: Path) -> None:
    results = json.loads((demo / "results.json").read_text())
    for task in TASKS:
        reached = {metric: results["metrics"][task][metric]["mean"] for metric in ("Acc-2", "MAE", "Corr")}
        bars = results["baseline"][task]
        print(task, {name: round(value, 3) for name, value in reached.items()}, bars)
        assert reached["Acc-2"] > bars["Acc-2"]
        assert reached["MAE"] < bars["MAE"]
        assert reached["Corr"] >= 0.3


@pytest.mark.slow
def test_nothing_is_learned_from_shuffled_labels(demo: Path) -> None:
    """Each seed shuffles the labels again, so its correlation is one draw from the permutation distribution.

    Its mean is zero or, as a test fold has another mean than the rest, a little below. With ten draws a
    one-sided t-test rejects it by chance once in 10,000 tasks, whatever the seeds; a model that has seen the
    labels, of which the last lines are an example, is found at once.
    """
    store = FeatureStore(demo / "features")
    shuffled = evaluate(store, jobs=2, seeds=[seeded(seed) for seed in range(10)], shuffle_labels=True)
    for index, task in enumerate(TASKS):
        assert p_value(shuffled.predictions, shuffled.labels[:, index], task) > 1e-4
    data = load(store)
    seen = {
        seed: {task: 0.4 * data.labels[:, i] + found[task] for i, task in enumerate(TASKS)}
        for seed, found in shuffled.predictions.items()
    }
    assert all(p_value(seen, data.labels[:, index], task) < 1e-4 for index, task in enumerate(TASKS))


def p_value(predictions: dict[int, dict[str, np.ndarray]], labels: np.ndarray, task: str) -> float:
    """Of the hypothesis that the seeds' predictions do not correlate with the labels, against that they do."""
    draws = [np.corrcoef(found[task], labels)[0, 1] for found in predictions.values()]
    p = float(ttest_1samp(draws, 0, alternative="greater").pvalue)
    print(f"{task}: r {np.mean(draws):.3f} +- {np.std(draws, ddof=1):.3f} over {len(draws)} seeds, p {p:.2g}")
    return p
