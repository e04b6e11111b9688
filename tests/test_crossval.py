from dataclasses import replace

import numpy as np
import pytest
from seeds import seeded
from synthetic_store import GRID, make_store

from triptych.pipeline.errors import InputError
from triptych.pipeline.trainer.data.clips import load
from triptych.pipeline.trainer.metrics import correlation
from triptych.pipeline.trainer.runs import crossval
from triptych.pipeline.trainer.runs.crossval import _shuffled, balanced_folds, cross_validate
from triptych.pipeline.trainer.systems import SYSTEMS
from triptych.pipeline.trainer.training import train

QUICK = SYSTEMS["mlf-dnn"].model_copy(update={"max_epochs": 2})
# 48 clips leave 29 to train on: they need more steps an epoch, a wider audio head and less dropout than SIMS.
SMALL_STEPS = {"batch_size": 16, "learning_rate": 5e-3, "patience": 16, "head_dropout": 0.2}
SMALL = SYSTEMS["mlf-dnn"].model_copy(
    update={**SMALL_STEPS, "head_widths": {"M": 32, "T": 16, "A": 16, "V": 32}}
)
# Wide enough, and slow enough, that no seed leaves a head without active ReLUs.
SAFE = type(SMALL).model_validate(
    SMALL.model_dump()
    | {"learning_rate": 2e-3, "hidden": dict.fromkeys(("text", "audio", "vision"), 64)}
    | {"head_widths": dict.fromkeys("MTAV", 64), "task_weights": dict.fromkeys("MTAV", 1.0)}
)


def grid_labels(random, count=48):
    tasks = random.choice(GRID, size=(count, 3))
    return np.c_[np.round(tasks.mean(axis=1) * 5) / 5, tasks].astype(np.float32)


def test_folds_are_a_partition_of_equal_sizes():
    for count in (48, 31):
        folds = balanced_folds(grid_labels(np.random.default_rng(0), count), 5, np.random.default_rng(1))
        assert sorted(np.concatenate(folds).tolist()) == list(range(count))
        assert max(map(len, folds)) - min(map(len, folds)) <= 1


def test_folds_differ_by_seed_and_repeat_by_seed():
    labels = grid_labels(np.random.default_rng(0))
    one, again, other = (balanced_folds(labels, 5, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_folds_take_missing_and_constant_labels():
    labels = np.full((20, 4), np.nan, np.float32)
    labels[:, 0] = 0.2
    labels[:7, 1] = 0.4
    assert [len(fold) for fold in balanced_folds(labels, 4, np.random.default_rng(0))] == [5, 5, 5, 5]


def test_balanced_folds_take_the_bias_out_of_pooled_predictions():
    """A predictor of the training mean knows nothing; pooled over unlike folds it anti-correlates."""
    random = np.random.default_rng(0)
    found = {"balanced": [], "random": []}
    for _ in range(40):
        labels = grid_labels(random)
        deals = {
            "balanced": balanced_folds(labels, 5, random),
            "random": np.array_split(random.permutation(48), 5),
        }
        for kind, folds in deals.items():
            means = np.zeros((48, 4))
            for fold in folds:
                means[fold] = np.delete(labels, fold, axis=0).mean(axis=0)
            found[kind].append([correlation(means[:, k], labels[:, k].astype(float)) for k in range(4)])
    assert (np.mean(found["random"], axis=0) < -0.15).all()
    assert (np.abs(np.mean(found["balanced"], axis=0)) < 0.06).all()


def test_the_test_fold_decides_nothing():
    """A clip's features reach the predictions of other folds' clips, and none of its own fold but its own."""
    data = load(make_store(20, tokens_about=6))
    seen = []
    plain = cross_validate(data, QUICK, folds=4, seeds=(1,), progress=lambda *done: seen.append(done))
    assert seen == [(1, fold) for fold in range(4)]
    fold = balanced_folds(data.labels, 4, np.random.default_rng(1))[0]
    audio = replace(data.audio, mean=data.audio.mean.copy())
    other = fold[0]
    audio.mean[other] += 5
    changed = cross_validate(replace(data, audio=audio), QUICK, folds=4, seeds=(1,))
    same = plain.predictions[1]["M"] == changed.predictions[1]["M"]
    assert same[fold[1:]].all()
    assert not same[other]
    assert not same[np.setdiff1d(np.arange(20), fold)].all()


def test_train_valid_and_test_folds_are_disjoint(monkeypatch):
    used = []

    def train_and_record(data, settings, seed, train_rows, valid_rows, *others):
        used.append((train_rows, valid_rows))
        return train(data, settings, seed, train_rows, valid_rows, *others)

    monkeypatch.setattr(crossval, "train", train_and_record)
    data = load(make_store(20, tokens_about=6))
    cross_validate(data, QUICK, folds=4, seeds=(1,))
    folds = balanced_folds(data.labels, 4, np.random.default_rng(1))
    for test_fold, (train_rows, valid_rows) in zip(folds, used, strict=True):
        assert any(np.array_equal(valid_rows, fold) for fold in folds)
        assert sorted([*test_fold, *train_rows, *valid_rows]) == list(range(20))


def test_repeats_and_single_task():
    data = load(make_store(20, tokens_about=6))
    lf = SYSTEMS["lf-dnn"].model_copy(update={"max_epochs": 2})
    one, again = (cross_validate(data, lf, folds=3, seeds=(1, 12)) for _ in range(2))
    assert one.tasks == ("M",)
    assert tuple(one.predictions) == (1, 12)
    for seed in (1, 12):
        np.testing.assert_array_equal(one.predictions[seed]["M"], again.predictions[seed]["M"])


def test_a_system_that_reads_rows():
    data = load(make_store(12, tokens_about=6), sequences=True)
    settings = SYSTEMS["mfn"].model_copy(update={"max_epochs": 1})
    assert np.isfinite(cross_validate(data, settings, folds=3, seeds=(1,)).predictions[1]["M"]).all()


def test_clips_without_a_label_are_left_out():
    data = load(make_store(20, tokens_about=6))
    data.labels[3, 0] = np.nan
    found = cross_validate(data, QUICK, folds=3, seeds=(1,))
    assert found.labels.shape == (19, 4)
    assert found.predictions[1]["T"].shape == (19,)


def test_the_bar_is_the_better_constant():
    data = load(make_store(30))
    data.labels[:, 0] = np.where(
        np.arange(30) < 15, -0.6, 0.6
    )  # classes of one size: out of fold below chance
    bars = cross_validate(data, QUICK, folds=3, seeds=(1,)).baseline()
    assert bars["M"]["Acc-2"] == 0.5
    assert bars["M"]["MAE"] == pytest.approx(0.6)


def test_too_little_is_refused():
    data = load(make_store(8))
    data.labels[:, 3] = np.nan
    with pytest.raises(InputError) as caught:
        cross_validate(data, QUICK, folds=5)
    assert len(caught.value.problems) == 2
    with pytest.raises(ValueError, match="2 folds"):
        cross_validate(data, QUICK, folds=2)


def test_cross_validation_beats_constant_answers():
    store = make_store(48, seed=seeded(0), tokens_about=30, shorter=8, levels=(-1, -0.8, 0.8, 1))
    found = cross_validate(load(store), SAFE, seeds=(seeded(1),))
    summary, bars = found.summary(), found.baseline()
    for task in found.tasks:
        assert summary[task]["Corr"]["mean"] > 0.5
        assert summary[task]["Acc-2"]["mean"] > bars[task]["Acc-2"]
        assert summary[task]["MAE"]["mean"] < bars[task]["MAE"]


def test_shuffling_moves_the_labels_of_the_rows_named_whole():
    data = load(make_store(30))
    rows = np.arange(5, 30)
    shuffled = _shuffled(data, rows, np.random.default_rng(0))
    np.testing.assert_array_equal(shuffled.labels[:5], data.labels[:5])
    assert sorted(map(tuple, shuffled.labels)) == sorted(map(tuple, data.labels))
    assert (shuffled.labels[5:] != data.labels[5:]).any(axis=1).mean() > 0.8


def test_shuffled_labels_give_no_correlation():
    data = load(make_store(48, seed=seeded(0), tokens_about=6, shorter=8))
    quick = SMALL.model_copy(update={"patience": 4})
    found = cross_validate(data, quick, seeds=[seeded(seed) for seed in range(6)], shuffle_labels=True)
    np.testing.assert_array_equal(found.labels, data.labels)  # evaluated on the real ones
    zero = [measures["Corr"]["mean"] for measures in found.summary().values()]
    assert abs(np.mean(zero)) < 0.2  # a task's r has a standard deviation of .14 in one seed, .06 over six


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lf-dnn", "mlf-dnn"])
@pytest.mark.parametrize("clips", [0, 1])
def test_shuffled_labels_give_no_correlation_in_five_seeds(name, clips):
    data = load(make_store(48, seed=clips))
    for settings in (
        SYSTEMS[name],
        SMALL if name == "mlf-dnn" else SYSTEMS[name].model_copy(update=SMALL_STEPS),
    ):
        for measures in cross_validate(data, settings, shuffle_labels=True).summary().values():
            assert abs(measures["Corr"]["mean"]) <= 0.2
