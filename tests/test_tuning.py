"""The grid, and that its search reads no test split."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from synthetic_store import make_store

from triptych.pipeline.errors import InputError
from triptych.pipeline.trainer.data.clips import load
from triptych.pipeline.trainer.experiments.trainings import Trainings
from triptych.pipeline.trainer.search import grid as tuning
from triptych.pipeline.trainer.search.tpe import by_tpe
from triptych.pipeline.trainer.systems import SYSTEMS, read_settings


@pytest.fixture(scope="module")
def data():
    return load(make_store(20, shorter=4))


def search(data, folder, points, seeds=(1,), reported=None):
    axes = {"learning_rate": (1e-3, 1e-2), "max_epochs": (2,)}

    def report(job, result, before):
        if reported is not None:
            reported.append(before)

    fixed = tuning.Search(axes, lambda tried: points[len(tried) :], len(points), "They are fixed.")
    return tuning.tune("lmf", Trainings(data, "made up", folder, 1, report), fixed, seeds)


POINTS = [{"learning_rate": 1e-3, "max_epochs": 2}, {"learning_rate": 1e-2, "max_epochs": 2}]


def test_fewer_trials_are_the_first_of_more():
    axes = tuning.default_axes(SYSTEMS["mlf-dnn"])
    assert set(axes) == {"learning_rate", "batch_size", *(f"task_weights.{task}" for task in "MTAV")}
    assert set(tuning.default_axes(SYSTEMS["lmf"])) == {"learning_rate", "batch_size"}
    few, many = tuning.draw_points(axes, 5), tuning.draw_points(axes, 50)
    assert many[:5] == few
    assert len({json.dumps(point) for point in tuning.draw_points(axes, 10**6)}) == 4 * 3 * 5**4


def test_a_point_moves_the_settings():
    moved = tuning.at(SYSTEMS["mlf-dnn"], {"batch_size": 16, "task_weights.A": 0.4, "dropout.text": 0.1})
    assert (moved.batch_size, moved.task_weights["A"], moved.dropout.text) == (16, 0.4, 0.1)
    assert moved.task_weights["T"] == SYSTEMS["mlf-dnn"].task_weights["T"]
    for point, message in (
        ({"batch": 16}, "setting batch is unknown; the system has .*batch_size"),
        ({"dropout.text.x": 1}, "unknown"),
        ({"rank": 0}, "rank"),
    ):
        with pytest.raises(InputError, match=message):
            tuning.at(SYSTEMS["lmf"], point)


def scored(acc2, mae=0.5, corr=0.5):
    return {"valid": {"M": {"Acc-2": acc2, "MAE": mae, "Corr": corr}}}


def test_the_best_has_the_highest_accuracy_then_lowest_error():
    tried = [
        ({"batch_size": 32}, [scored(0.7, mae=0.2, corr=0.9)] * 2),  # less accurate, else the best
        ({"batch_size": 64}, [scored(0.6, mae=0.5, corr=0.7), scored(1.0, mae=0.5, corr=0.7)]),
        ({"batch_size": 128}, [scored(0.8, mae=0.3, corr=0.1), scored(0.8, mae=0.5, corr=0.1)]),
    ]
    assert [point["batch_size"] for point, _ in tuning.best_first(tried)] == [128, 64, 32]


def test_the_best_by_validation_is_saved(data, tmp_path):
    reported = []
    document = search(data, tmp_path, POINTS, reported=reported)
    scores = [tuple(row[2:4]) for row in document.records.rows]
    assert scores == sorted(scores, key=lambda one: (-one[0], one[1]))
    best = read_settings(tmp_path / "best-lmf.json")
    assert str(best.learning_rate) == document.records.rows[0][0]
    assert best.max_epochs == 2
    again = []
    assert search(data, tmp_path, POINTS, reported=again).records == document.records
    assert (reported, again) == ([False, False], [True, True])


def test_the_test_split_is_not_read(data, tmp_path):
    labels = data.labels.copy()
    labels[data.split("test")] = float("nan")
    blind = search(replace(data, labels=labels), tmp_path / "blind", POINTS)
    assert blind.records == search(data, tmp_path / "seen", POINTS).records
    saved = [json.loads(path.read_bytes()) for path in (tmp_path / "seen" / "results").iterdir()]
    assert not any("test" in one for one in saved)


def test_diverged_points_are_left_out(data, tmp_path):
    wild = {"learning_rate": 1e9, "max_epochs": 20}
    document = search(data, tmp_path, [*POINTS[:1], wild])
    assert len(document.records.rows) == 1
    assert "Of the points tried, 1 diverged" in document.markdown()
    with pytest.raises(InputError, match="diverged at every point"):
        search(data, tmp_path, [wild])


@pytest.mark.parametrize("content", [None, "{", '{"family": "low-rank", "rank": 0}'])
def test_invalid_settings_files_are_refused(tmp_path, content):
    path = tmp_path / "s.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"s\.json"):
        read_settings(path)


AXES = {"learning_rate": (5e-4, 5e-3), "task_weights.A": (0.2, 1.0), "batch_size": (32, 64)}


def test_tpe_moves_to_better_values_within_the_range():
    search = by_tpe(AXES, 60)
    tried = []
    while points := search.propose(tried):
        assert len(points) <= 8
        for point in points:
            assert list(point) == list(AXES)
            assert 5e-4 <= point["learning_rate"] <= 5e-3
            assert 0.2 <= point["task_weights.A"] <= 1
            assert point["batch_size"] in (32, 64)
            good = 1 - abs(point["task_weights.A"] - 0.4) - (point["batch_size"] == 32) / 2
            tried.append((point, [{"diverged": "so"}] if point["learning_rate"] > 4.5e-3 else [scored(good)]))
    assert len(tried) == search.points == 60
    early, late = (
        np.mean([abs(point["task_weights.A"] - 0.4) for point, _ in part])
        for part in (tried[:16], tried[-16:])
    )
    assert late < early / 2
    assert sum(point["batch_size"] == 64 for point, _ in tried[-16:]) >= 12


def test_tpe_is_deterministic_and_resumes(data, tmp_path):
    axes = {"learning_rate": (1e-3, 1e-2), "max_epochs": (2,)}
    reported = []
    trainings = Trainings(data, "made up", tmp_path, 1, lambda job, result, before: reported.append(before))
    first = tuning.tune("lmf", trainings, by_tpe(axes, 10), (1,))
    again = tuning.tune("lmf", trainings, by_tpe(axes, 10), (1,))
    assert again.records == first.records
    assert len({row[0] for row in first.records.rows}) > 2
    assert reported == [False] * 10 + [True] * 10


def test_missing_optuna_is_reported_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"triptych\[optuna\]"):
        by_tpe(AXES, 3)
