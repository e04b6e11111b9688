"""Out-of-fold evaluation for small data: every clip is predicted by a model that was not trained on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from triptych.pipeline.errors import InputError
from triptych.pipeline.trainer.data.clips import SentimentData
from triptych.pipeline.trainer.data.pooled import Rows
from triptych.pipeline.trainer.metrics import TaskScores, constant_answers, score, summarise
from triptych.pipeline.trainer.settings import SEEDS, TASKS, SystemSettings
from triptych.pipeline.trainer.training import train

Summary = dict[str, dict[str, dict[str, object]]]


@dataclass(frozen=True)
class CrossValidation:
    """Out-of-fold predictions of N clips, one set for each seed.

    Attributes
    ----------
    tasks
        The tasks that the system predicts.
    labels
        float32, shape (N, 4), columns M, T, A, V: the real ones, also where training used shuffled ones.
    predictions
        By seed, then task: float32, shape (N,).
    majority, median
        By seed, then task: float32, shape (N,): constant predictions of the majority class (as 1 or -1) and of the
        median of each fold's training labels.
    """

    tasks: tuple[str, ...]
    labels: NDArray[np.float32]
    predictions: dict[int, dict[str, NDArray[np.float32]]]
    majority: dict[int, dict[str, NDArray[np.float32]]]
    median: dict[int, dict[str, NDArray[np.float32]]]

    @classmethod
    def joined(cls, parts: Sequence[CrossValidation]) -> CrossValidation:
        """Join evaluations of the same clips with different seeds."""
        first = parts[0]
        by_seed: list[dict[int, dict[str, NDArray[np.float32]]]] = [{}, {}, {}]
        for part in parts:
            for joined, added in zip(by_seed, (part.predictions, part.majority, part.median), strict=True):
                joined.update(added)
        return cls(first.tasks, first.labels, *by_seed)

    def summary(self) -> Summary:
        """Metrics of each seed's pooled predictions, mean and standard deviation over seeds; by task, then metric."""
        return summarise({seed: self._scores(values) for seed, values in self.predictions.items()})

    def baseline(self) -> dict[str, dict[str, float]]:
        """Acc-2 of the majority class and MAE of the median, by task.

        Each is the better of two constants: fitted in each fold like the model (mean over the seeds), or fitted on
        all labels, those of the test fold included. The second is needed because with classes of equal size the
        majority class in training is the minority class in the test fold, so the first is below chance.
        """
        majority = [self._scores(values) for values in self.majority.values()]
        median = [self._scores(values) for values in self.median.values()]
        baselines = {}
        for task in self.tasks:
            labels = self.labels[:, TASKS.index(task)]
            best_class, best_value = constant_answers(labels)
            baselines[task] = {
                "Acc-2": max(
                    float(np.mean([scores[task]["Acc-2"] for scores in majority])),
                    score(np.full(len(labels), best_class), labels)["Acc-2"],
                ),
                "MAE": min(
                    float(np.mean([scores[task]["MAE"] for scores in median])),
                    score(np.full(len(labels), best_value), labels)["MAE"],
                ),
            }
        return baselines

    def _scores(self, predictions: dict[str, NDArray[np.float32]]) -> TaskScores:
        return {
            task: score(values, self.labels[:, TASKS.index(task)]) for task, values in predictions.items()
        }


def cross_validate(
    data: SentimentData,
    settings: SystemSettings,
    folds: int = 5,
    seeds: Sequence[int] = SEEDS,
    shuffle_labels: bool = False,
    progress: Callable[[int, int], None] = lambda seed, fold: None,
    device: str = "cpu",
) -> CrossValidation:
    """Train ``folds`` models for each seed; predict each clip by the one whose training left it out.

    One of the other folds is used for early stopping, so the test fold has no influence; the normaliser is
    fitted on the remaining ones. Clips without a label M are left out.

    Parameters
    ----------
    folds
        At least 3: training, early stopping, test.
    seeds
        Each seed draws folds, initial weights, batches and shuffles.
    shuffle_labels
        Permute the labels of the clips outside the test fold, each clip's four together, for every seed and
        fold, so that labels and features are independent: the result is the score of chance.
    progress
        Called after each model with its seed and fold.
    device
        Where models are trained.

    Raises
    ------
    InputError
        There are fewer than ``2 * folds`` clips with a label M, or a task has no label.
    """
    rows = np.flatnonzero(~np.isnan(data.labels[:, 0]))
    _check(data.labels[rows], settings, folds)
    shape = len(data)
    results: list[dict[int, dict[str, NDArray[np.float32]]]] = [{}, {}, {}]
    for seed in seeds:
        random = np.random.default_rng(seed)
        parts = [rows[part] for part in balanced_folds(data.labels[rows], folds, random)]
        for result in results:
            result[seed] = {task: np.zeros(shape, dtype=np.float32) for task in settings.tasks}
        for fold, test in enumerate(parts):
            valid = parts[(fold + 1) % folds]
            others = np.setdiff1d(rows, test)
            labelled = _shuffled(data, others, random) if shuffle_labels else data
            trained = train(labelled, settings, seed, np.setdiff1d(others, valid), valid, device)
            for task, values in trained.predict(data, test).items():
                answers: tuple[ArrayLike, ...] = (
                    values,
                    *constant_answers(labelled.labels[others, TASKS.index(task)]),
                )
                for result, answer in zip(results, answers, strict=True):
                    result[seed][task][test] = answer
            progress(seed, fold)
    picked = [{s: {t: v[rows] for t, v in by.items()} for s, by in result.items()} for result in results]
    return CrossValidation(settings.tasks, data.labels[rows], *picked)


def balanced_folds(labels: NDArray[np.float32], folds: int, random: np.random.Generator) -> list[Rows]:
    """Divide clips into folds with similar mean labels and shares of positive labels in every task.

    If a fold has a high mean, its training clips have a low one. With unequal folds, the pooled predictions of a
    constant model are therefore anti-correlated with the labels. Clips are sorted by the first task and assigned to
    the folds at random; then pairs of clips are exchanged as long as that makes the folds' means more similar.

    Parameters
    ----------
    labels
        shape (N, tasks), NaN where missing.
    folds
        Number of folds; sizes differ by one at most.

    Returns
    -------
    Positions of each fold's clips, ascending.
    """
    traits = _traits(labels)
    order = np.lexsort((random.random(len(labels)), np.nan_to_num(labels[:, 0])))
    fold_of = np.empty(len(labels), dtype=np.intp)
    for start in range(0, len(labels), folds):
        block = order[start : start + folds]
        fold_of[block] = random.permutation(folds)[: len(block)]
    sums = np.stack([traits[fold_of == fold].sum(axis=0) for fold in range(folds)])
    improved = True
    while improved:
        improved = False
        for clip in random.permutation(len(labels)):
            # Exchanging clips i and j of folds a and b moves `shift` from a's sum to b's.
            shift = traits[clip] - traits
            own, other_sums = sums[fold_of[clip]], sums[fold_of]
            change = ((own - shift) ** 2 + (other_sums + shift) ** 2 - own**2 - other_sums**2).sum(axis=1)
            change[fold_of == fold_of[clip]] = 0
            other = int(change.argmin())
            if change[other] < -1e-9:
                sums[fold_of[clip]] -= shift[other]
                sums[fold_of[other]] += shift[other]
                fold_of[[clip, other]] = fold_of[[other, clip]]
                improved = True
    return [np.flatnonzero(fold_of == fold) for fold in range(folds)]


def _traits(labels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return standardised labels and signs, 0 where missing, whose means folds should share; (N, 2 tasks)."""
    signs = np.where(np.isnan(labels), np.nan, labels > 0)
    traits: NDArray[np.float64] = np.concatenate([labels, signs], axis=1, dtype=np.float64)
    known = ~np.isnan(traits)
    count = np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, traits - np.where(known, traits, 0).sum(axis=0) / count, 0)
    std = np.sqrt((centred**2).sum(axis=0) / count)
    standardised: NDArray[np.float64] = centred / np.where(std > 1e-6, std, 1)
    return standardised


def _shuffled(data: SentimentData, rows: Rows, random: np.random.Generator) -> SentimentData:
    labels = data.labels.copy()
    labels[rows] = labels[random.permutation(rows)]
    return replace(data, labels=labels)


def _check(labels: NDArray[np.float32], settings: SystemSettings, folds: int) -> None:
    if folds < 3:
        raise ValueError(f"{folds} folds: training, early stopping and test need one each")
    problems = []
    if len(labels) < 2 * folds:
        problems.append(f"{len(labels)} clips with a label; {folds} folds need {2 * folds}")
    for task in settings.tasks[1:]:
        if np.isnan(labels[:, TASKS.index(task)]).all():
            problems.append(f"no clip has a label for task {task}")
    if problems:
        raise InputError(problems)
