"""The metrics of the CH-SIMS paper and of the MOSI and MOSEI literature, and those of constant predictions.

Models are trained on labels from -1 to 1. Metrics are in the data's own units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import f1_score

from triptych.pipeline.manifest.label_range import DEFAULT, WIDE, LabelRange
from triptych.pipeline.manifest.splits import CLASS_EDGES
from triptych.pipeline.trainer.settings import TASKS

METRICS = ("Acc-2", "F1", "F1 (paper)", "Acc-3", "Acc-5", "MAE", "Corr")
WIDE_METRICS = ("Acc-2", "F1", "Acc-2 (no zeros)", "F1 (no zeros)", "Acc-5", "Acc-7", "MAE", "Corr")
OTHER_METRICS = ("Acc-2", "F1", "MAE", "Corr")

ACC2_EDGES = (0.0,)
ACC3_EDGES = (-0.1, 0.1)
ACC5_EDGES = CLASS_EDGES

Values = TypeVar("Values", float, NDArray[Any])

DECIMALS = 5  # of labels in another range than the default

Scores = dict[str, float]  # by metric
TaskScores = dict[str, Scores]  # by task


def metrics_of(label_range: LabelRange) -> tuple[str, ...]:
    """Return the names of the metrics of labels in a range: that of CH-SIMS, that of MOSI, or any other."""
    return {DEFAULT: METRICS, WIDE: WIDE_METRICS}.get(label_range, OTHER_METRICS)


def to_unit(labels: Values, label_range: LabelRange) -> Values:
    """Scale labels of a range to [-1, 1]; those of the default range stay as they are, to the bit."""
    if label_range == DEFAULT:
        return labels
    low, high = label_range
    return 2 * (labels - low) / (high - low) - 1


def from_unit(values: NDArray[Any], label_range: LabelRange) -> NDArray[Any]:
    """Scale values from [-1, 1] to the range of the labels; the inverse of `to_unit`."""
    if label_range == DEFAULT:
        return values
    low, high = label_range
    return low + (values + 1) * (high - low) / 2


def classes(values: ArrayLike, edges: tuple[float, ...]) -> NDArray[np.intp]:
    """Class of each value, clipped to [-1, 1], in bins closed on the right.

    Parameters
    ----------
    values
        shape (N,).
    edges
        Inner edges, ascending; a value on an edge belongs to the bin below it. Edges are taken in the
        values' own precision, so that 0.1 stored as float32 (which is above the float64 nearest to 0.1)
        is on the edge; an array must therefore not be converted to float64 before.

    Returns
    -------
    shape (N,), 0 for the lowest bin.
    """
    array = np.clip(_floating(values), -1, 1)
    bins: NDArray[np.intp] = np.searchsorted(np.asarray(edges, dtype=array.dtype), array, side="left")
    return bins


def score(predictions: ArrayLike, labels: ArrayLike, label_range: LabelRange = DEFAULT) -> Scores:
    """Compute all metrics of one task; a NaN label leaves its clip out.

    Labels from -3 to 3 get the metrics of the MOSI and MOSEI literature: `Acc-2` and `F1` of negative against
    non-negative, the same ``(no zeros)`` of negative against positive without the clips of label 0, `Acc-5` and
    `Acc-7` of values rounded to whole numbers (from -2 to 2, and from -3 to 3). In any other range, `Acc-2` and
    `F1` are those of values below the middle against the others.

    Accuracies and F1 are fractions. `F1` is weighted by the labels' classes; `F1 (paper)` has its two
    arguments swapped, as the published tables have, and so is weighted by the predicted classes.
    A constant prediction has a `Corr` of 0, since it does not order the clips. Constant labels leave
    `Corr` undefined, and missing labels leave every metric undefined: NaN.

    Parameters
    ----------
    predictions, labels
        shape (N,), in [-1, 1] whatever the range is.
    label_range
        The range of the data's own labels; `MAE` is in its units.

    Raises
    ------
    ValueError
        The shapes differ, or a prediction is not finite.
    """
    predicted, true = _floating(predictions), _floating(labels)
    if predicted.shape != true.shape or predicted.ndim != 1:
        raise ValueError(f"predictions {predicted.shape} and labels {true.shape} must be equal and flat")
    if not np.isfinite(predicted).all():
        raise ValueError("a prediction is not finite")
    labelled = ~np.isnan(true)
    predicted, true = predicted[labelled], true[labelled]
    if not len(true):
        return dict.fromkeys(metrics_of(label_range), float("nan"))
    if label_range != DEFAULT:
        return _score_in_units(predicted, true, label_range)
    sign, true_sign = classes(predicted, ACC2_EDGES), classes(true, ACC2_EDGES)
    return {
        "Acc-2": float(np.mean(sign == true_sign)),
        "F1": float(f1_score(true_sign, sign, average="weighted", zero_division=0.0)),
        "F1 (paper)": float(f1_score(sign, true_sign, average="weighted", zero_division=0.0)),
        "Acc-3": float(np.mean(classes(predicted, ACC3_EDGES) == classes(true, ACC3_EDGES))),
        "Acc-5": float(np.mean(classes(predicted, ACC5_EDGES) == classes(true, ACC5_EDGES))),
        "MAE": float(np.mean(np.abs(_clipped(predicted) - _clipped(true)))),
        "Corr": correlation(_clipped(predicted), _clipped(true)),
    }


def _score_in_units(
    predicted: NDArray[np.floating[Any]], true: NDArray[np.floating[Any]], label_range: LabelRange
) -> Scores:
    """Compute the metrics of labels in another range than the default; values in [-1, 1]."""
    # A label that was scaled and back is not quite what it was: 0 would be 1e-8.
    x, y = (np.round(from_unit(_clipped(values), label_range), DECIMALS) for values in (predicted, true))
    middle = sum(label_range) / 2
    scores = {
        "Acc-2": float(np.mean((x >= middle) == (y >= middle))),
        "F1": float(f1_score(y >= middle, x >= middle, average="weighted", zero_division=0.0)),
        "MAE": float(np.mean(np.abs(x - y))),
        "Corr": correlation(x, y),
    }
    if label_range == WIDE:
        some = y != 0
        above, true_above = x[some] > 0, y[some] > 0
        scores |= {
            "Acc-2 (no zeros)": float(np.mean(above == true_above)) if some.any() else float("nan"),
            "F1 (no zeros)": float(f1_score(true_above, above, average="weighted", zero_division=0.0))
            if some.any()
            else float("nan"),
            **{
                f"Acc-{2 * most + 1}": float(
                    np.mean(np.round(np.clip(x, -most, most)) == np.round(np.clip(y, -most, most)))
                )
                for most in (2, 3)
            },
        }
    return {name: scores[name] for name in metrics_of(label_range)}


def correlation(predicted: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Compute Pearson's r; NaN where the labels are constant, 0 where only the predictions are."""
    if np.ptp(true) == 0:
        return float("nan")
    if np.ptp(predicted) == 0:
        return 0.0
    # Scaled to [0, 1] first: tiny differences between values would be lost by subtracting their mean.
    x, y = ((values - values.min()) / np.ptp(values) for values in (predicted, true))
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)), -1, 1))


def constant_answers(labels: NDArray[np.float32]) -> tuple[float, float]:
    """Compute the predictions of two models without features, fitted on one task's labels.

    Returns
    -------
    A value of the majority class of Acc-2 (1 or -1; the negative one in a tie), and the median label;
    -1 and 0 without any label.
    """
    known = labels[~np.isnan(labels)]
    if not len(known):
        return -1.0, 0.0
    majority = 1.0 if np.mean(classes(known, ACC2_EDGES)) > 0.5 else -1.0
    return majority, float(np.median(known))


def summarise(by_seed: Mapping[int, TaskScores]) -> dict[str, dict[str, dict[str, object]]]:
    """Collect each metric's values by seed, their mean and standard deviation.

    The deviation is the sample's (N - 1); NaN for a single seed.
    """
    tasks = [task for task in TASKS if task in next(iter(by_seed.values()))]
    metrics = next(iter(by_seed.values()))[tasks[0]]
    return {task: {metric: _spread(by_seed, task, metric) for metric in metrics} for task in tasks}


def _spread(by_seed: Mapping[int, TaskScores], task: str, metric: str) -> dict[str, object]:
    seeds = {str(seed): scores[task][metric] for seed, scores in by_seed.items()}
    mean, std = mean_and_std(list(seeds.values()))
    return {"seeds": seeds, "mean": mean, "std": std}


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of values, and the sample's standard deviation (N - 1); NaN for a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def _floating(values: ArrayLike) -> NDArray[np.floating[Any]]:
    array = np.asarray(values)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)


def _clipped(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    return np.clip(values.astype(np.float64), -1, 1)
