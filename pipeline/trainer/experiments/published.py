"""Numbers of the CH-SIMS paper (Yu et al. 2020) and of its authors' repository, for comparison with ours.

The numbers are those of the paper's text. Measures are in hundredths, MAE and Corr too, as the paper prints them, and
F1 is the paper's, its arguments swapped (see `triptych.pipeline.trainer.metrics.score`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from triptych.pipeline.trainer.settings import Task

MEASURES = ("Acc-2", "Acc-3", "Acc-5", "F1 (paper)", "MAE", "Corr")
FEWER = ("Acc-2", "F1 (paper)", "MAE", "Corr")  # of Tables 4 and 5

Numbers = Mapping[str, float]  # by measure
Case = TypeVar("Case")


def _named(measures: Sequence[str], rows: Mapping[Case, Sequence[float]]) -> dict[Case, Numbers]:
    return {case: dict(zip(measures, numbers, strict=True)) for case, numbers in rows.items()}


# Table 3: clips by split, then by class from negative to positive.
TABLE_3: dict[str, tuple[int, ...]] = {
    "train": (452, 290, 207, 208, 211),
    "valid": (151, 97, 69, 69, 70),
    "test": (151, 97, 69, 69, 71),
}

# Table 2: means over the paper's five seeds, and their standard deviations.
TABLE_2: dict[str, Numbers] = _named(
    MEASURES,
    {
        "ef-lstm": (69.37, 51.73, 21.02, 81.91, 59.34, -4.39),
        "mfn": (77.86, 63.89, 39.39, 78.22, 45.19, 55.18),
        "mult": (77.94, 65.03, 35.34, 79.10, 48.45, 55.94),
        "lf-dnn": (79.87, 66.91, 41.62, 80.20, 42.01, 61.23),
        "mlf-dnn": (82.28, 69.06, 38.03, 82.52, 40.64, 67.47),
        "lmf": (79.34, 64.38, 35.14, 79.96, 43.99, 60.00),
        "mlmf": (82.32, 67.70, 37.33, 82.66, 42.03, 63.13),
        "tfn": (80.66, 64.46, 38.38, 81.62, 42.52, 61.18),
        "mtfn": (82.45, 69.02, 37.20, 82.56, 40.66, 66.98),
    },
)
TABLE_2_DEVIATIONS: dict[str, Numbers] = _named(
    MEASURES,
    {
        "ef-lstm": (0.0, 2.0, 0.2, 0.0, 0.3, 2.8),
        "mfn": (0.4, 1.9, 1.8, 0.4, 1.2, 2.0),
        "mult": (0.9, 2.1, 2.9, 0.9, 2.6, 0.6),
        "lf-dnn": (0.6, 1.2, 1.4, 0.6, 0.9, 1.8),
        "mlf-dnn": (1.3, 3.1, 6.0, 1.3, 2.0, 1.8),
        "lmf": (0.4, 2.1, 4.6, 0.6, 1.6, 1.3),
        "mlmf": (0.5, 2.2, 2.5, 0.7, 0.9, 1.9),
        "tfn": (1.4, 1.7, 3.6, 1.1, 1.1, 1.2),
        "mtfn": (1.3, 0.3, 1.8, 1.2, 1.1, 1.3),
    },
)

# The authors' repository (github.com/thuiar/MMSA, results/result-stat.md) on its own later runs.
REPOSITORY: dict[str, Numbers] = _named(
    MEASURES,
    {
        "ef-lstm": (69.37, 54.27, 21.23, 56.82, 59.07, 5.45),
        "mfn": (77.90, 65.73, 39.47, 77.88, 43.49, 58.24),
        "mult": (78.56, 64.77, 37.94, 79.66, 45.32, 56.41),
        "lf-dnn": (77.02, 64.33, 39.74, 77.27, 44.63, 55.51),
        "tfn": (78.38, 65.12, 39.30, 78.62, 43.22, 59.10),
        "lmf": (77.77, 64.68, 40.53, 77.88, 44.12, 57.59),
        "mlf-dnn": (80.44, 69.37, 40.22, 80.28, 39.58, 66.52),
        "mtfn": (81.09, 68.80, 40.31, 81.01, 39.54, 66.58),
        "mlmf": (79.34, 68.36, 41.05, 79.07, 40.91, 63.90),
    },
)

_TABLE_4: dict[tuple[str, Task], tuple[float, ...]] = {
    ("audio", "A"): (67.70, 79.61, 53.80, 10.07),
    ("audio", "M"): (65.47, 71.44, 57.89, 14.54),
    ("vision", "V"): (81.62, 82.73, 49.57, 57.61),
    ("vision", "M"): (74.44, 79.55, 54.46, 38.76),
    ("text", "T"): (80.26, 82.93, 41.79, 49.33),
    ("text", "M"): (75.19, 78.43, 52.73, 38.55),
}
_TABLE_5: dict[tuple[Task, ...], tuple[float, ...]] = {
    ("M",): (80.04, 80.40, 43.95, 61.78),
    ("M", "T"): (80.04, 80.25, 43.11, 63.34),
    ("M", "A"): (76.85, 77.28, 46.98, 55.16),
    ("M", "V"): (79.96, 80.38, 43.16, 61.87),
    ("M", "T", "A"): (80.88, 81.10, 42.54, 64.16),
    ("M", "T", "V"): (80.04, 80.87, 42.42, 60.66),
    ("M", "A", "V"): (79.87, 80.32, 43.06, 62.95),
    ("M", "T", "A", "V"): (82.28, 82.52, 40.64, 64.74),
}

# Table 4, by modality and the label of training and evaluation.
TABLE_4: dict[tuple[str, Task], Numbers] = _named(FEWER, _TABLE_4)

# Table 5, by the tasks that are trained.
TABLE_5: dict[tuple[Task, ...], Numbers] = _named(FEWER, _TABLE_5)

CORR_NOTE = (
    "The paper gives MLF-DNN's Corr as 67.47 in Table 2 and as 64.74 in Table 5, "
    "for what should be the same models."
)
