import math
from fractions import Fraction

import numpy as np
import pytest

from triptych.pipeline.trainer.metrics import (
    ACC2_EDGES,
    ACC3_EDGES,
    ACC5_EDGES,
    METRICS,
    classes,
    constant_answers,
    from_unit,
    score,
    summarise,
    to_unit,
)

EDGES = np.array([-1, -0.7, -0.1, 0, 0.1, 0.7, 1])


def plain_class(value, edges):
    """Count the edges that lie below a value, one comparison at a time."""
    value = min(max(value, -1.0), 1.0)
    return sum(value > edge for edge in edges)


def plain_score(predictions, labels):
    pairs = [(float(p), float(t)) for p, t in zip(predictions, labels, strict=True) if not math.isnan(t)]
    n = len(pairs)
    result = {}
    for name, edges in (("Acc-2", (0,)), ("Acc-3", (-0.1, 0.1)), ("Acc-5", (-0.7, -0.1, 0.1, 0.7))):
        result[name] = sum(plain_class(p, edges) == plain_class(t, edges) for p, t in pairs) / n
    signs = [(plain_class(p, (0,)), plain_class(t, (0,))) for p, t in pairs]
    result["F1"] = plain_f1([t for _, t in signs], [p for p, _ in signs])
    result["F1 (paper)"] = plain_f1([p for p, _ in signs], [t for _, t in signs])
    clipped = [(min(max(p, -1), 1), min(max(t, -1), 1)) for p, t in pairs]
    result["MAE"] = sum(abs(p - t) for p, t in clipped) / n
    exact_p, exact_t = ([Fraction(value) for value in column] for column in zip(*clipped, strict=True))
    spread_p, spread_t = (plain_covariance(values, values) for values in (exact_p, exact_t))
    if not spread_t:
        result["Corr"] = math.nan
    elif not spread_p:
        result["Corr"] = 0.0
    else:
        both = plain_covariance(exact_p, exact_t)
        result["Corr"] = math.copysign(math.sqrt(both * both / (spread_p * spread_t)), both)
    return result


def plain_covariance(one, other):
    """Of fractions, exactly; times the number of them."""
    means = [sum(values) / len(values) for values in (one, other)]
    return sum((x - means[0]) * (y - means[1]) for x, y in zip(one, other, strict=True))


def plain_f1(true, predicted):
    total = 0.0
    for label in set(true):
        hits = sum(t == p == label for t, p in zip(true, predicted, strict=True))
        f1 = 2 * hits / (true.count(label) + predicted.count(label))
        total += f1 * true.count(label)
    return total / len(true)


def cases(count):
    random = np.random.default_rng(0)
    near = np.concatenate([EDGES, np.nextafter(EDGES, -2), np.nextafter(EDGES, 2), [-3, 3]])
    for case in range(count):
        n = int(random.integers(1, 40))
        kind = case % 5
        predictions = random.normal(0, 0.8, n) if kind in (0, 3) else random.choice(near, n)
        labels = np.round(random.uniform(-1, 1, n) * 5) / 5 if kind in (0, 1) else random.choice(near, n)
        if kind == 3:
            labels[random.random(n) < 0.3] = np.nan
            labels[0] = 0.2
        if kind == 4:
            predictions[:] = predictions[0]
            labels = np.where(random.random(n) < 0.5, 0.4, 0.4 if case % 2 else -0.4)
        yield predictions, labels


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_metrics_equal_an_independent_computation(count):
    mismatches = []
    for predictions, labels in cases(count):
        found, expected = score(predictions, labels), plain_score(predictions, labels)
        assert tuple(found) == METRICS
        mismatches += [
            (metric, predictions, labels)
            for metric in METRICS
            if found[metric] != pytest.approx(expected[metric], abs=1e-9, nan_ok=True)
        ]
    assert mismatches == []


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_edge_belongs_to_the_bin_below(dtype):
    edges = np.array(ACC5_EDGES, dtype=dtype)
    assert classes(edges, ACC5_EDGES).tolist() == [0, 1, 2, 3]
    assert classes(np.nextafter(edges, dtype(2)), ACC5_EDGES).tolist() == [1, 2, 3, 4]
    assert classes(np.nextafter(edges, dtype(-2)), ACC5_EDGES).tolist() == [0, 1, 2, 3]
    assert classes(np.array(ACC3_EDGES, dtype=dtype), ACC3_EDGES).tolist() == [0, 1]
    assert classes(np.array([0.0, -0.0], dtype=dtype), ACC2_EDGES).tolist() == [0, 0]


def test_the_papers_f1_is_the_swapped_one():
    # Table 2's EF-LSTM row: an answer that is always negative, where 69.37 % of the labels are.
    labels = np.where(np.arange(457) < 317, -0.5, 0.5)
    found = score(np.full(457, -0.1), labels)
    assert round(100 * found["Acc-2"], 2) == 69.37
    assert round(100 * found["F1"], 2) == 56.82
    assert round(100 * found["F1 (paper)"], 2) == 81.91


def test_undefined_measures():
    labels = np.array([-1.0, 0.2, 1.0])
    assert score(np.full(3, 0.3), labels)["Corr"] == 0.0
    assert math.isnan(score(labels, np.full(3, 0.1))["Corr"])
    assert all(math.isnan(value) for value in score(labels, np.full(3, np.nan)).values())


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        score([np.nan, 0], [0, 0])
    with pytest.raises(ValueError, match="flat"):
        score([[0.0]], [[0.0]])


def test_constant_answers():
    assert constant_answers(np.array([-1, -0.2, np.nan, 0, 0.4], np.float32)) == (-1.0, pytest.approx(-0.1))
    assert constant_answers(np.array([0.2, 0.4, 0.0], np.float32)) == (1.0, pytest.approx(0.2))
    assert constant_answers(np.array([np.nan], np.float32)) == (-1.0, 0.0)


def test_summary_over_seeds():
    scores = {1: {"M": dict.fromkeys(METRICS, 0.2)}, 12: {"M": dict.fromkeys(METRICS, 0.6)}}
    spread = summarise(scores)["M"]["MAE"]
    assert spread["seeds"] == {"1": 0.2, "12": 0.6}
    assert spread["mean"] == pytest.approx(0.4)
    assert spread["std"] == pytest.approx(np.sqrt(0.08))
    assert math.isnan(summarise({1: scores[1]})["M"]["MAE"]["std"])


# ---- labels in other ranges


def test_metrics_of_mosi_are_those_of_the_literature():
    """Computed here from their definitions: rounded values, and signs with and without zero labels."""
    random = np.random.default_rng(0)
    true = np.round(random.uniform(-3, 3, 500) * 5) / 5
    true[:60] = 0
    predicted = np.clip(true + random.normal(0, 1.2, 500), -3, 3)
    found = score(predicted / 3, (true / 3).astype(np.float32), (-3.0, 3.0))
    some = true != 0

    def weighted_f1(a, b):
        shares = [(b == kind).mean() for kind in (False, True)]
        f1 = [
            2 * ((a == kind) & (b == kind)).sum() / max(1, (a == kind).sum() + (b == kind).sum())
            for kind in (False, True)
        ]
        return float(np.dot(shares, f1))

    expected = {
        "Acc-2": ((predicted >= 0) == (true >= 0)).mean(),
        "F1": weighted_f1(predicted >= 0, true >= 0),
        "Acc-2 (no zeros)": ((predicted > 0) == (true > 0))[some].mean(),
        "F1 (no zeros)": weighted_f1(predicted[some] > 0, true[some] > 0),
        "Acc-5": (np.round(np.clip(predicted, -2, 2)) == np.round(np.clip(true, -2, 2))).mean(),
        "Acc-7": (np.round(predicted) == np.round(true)).mean(),
        "MAE": np.abs(predicted - true).mean(),
        "Corr": np.corrcoef(predicted, true)[0, 1],
    }
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, abs=2e-5)


def test_metrics_of_any_range_are_in_its_units():
    true, predicted = np.array([1.0, 2.0, 4.0, 5.0]), np.array([1.5, 3.5, 4.0, 2.0])
    found = score(to_unit(predicted, (1, 5)), to_unit(true, (1, 5)), (1.0, 5.0))
    assert list(found) == ["Acc-2", "F1", "MAE", "Corr"]
    assert found["MAE"] == pytest.approx(1.25, abs=1e-5)
    assert found["Acc-2"] == 0.5
    assert all(math.isnan(value) for value in score([0.0], [math.nan], (1.0, 5.0)).values())


@pytest.mark.parametrize("label_range", [(-1.0, 1.0), (-3.0, 3.0), (0.0, 1.0), (1.0, 5.0)])
def test_scaling_and_back(label_range):
    labels = np.linspace(*label_range, 13)
    unit = to_unit(labels, label_range)
    assert (unit.min(), unit.max()) == (-1, 1)
    np.testing.assert_allclose(from_unit(unit, label_range), labels, atol=1e-12)
    stored = labels.astype(np.float32)
    assert to_unit(stored, (-1.0, 1.0)) is stored
