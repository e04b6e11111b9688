"""Numbers of the CH-SIMS paper (Yu et al. 2020) and of its authors' repository, for comparison with ours.

Only numbers that a second source confirms are listed; the others are left out, never guessed.
Measures are in hundredths, MAE and Corr too, as the paper prints them, and F1 is the paper's, its arguments
swapped (see `triptych.pipeline.trainer.metrics.score`).
"""

from __future__ import annotations

from collections.abc import Mapping

from triptych.pipeline.trainer.settings import Task

MEASURES = ("Acc-2", "Acc-3", "Acc-5", "F1 (paper)", "MAE", "Corr")

Numbers = Mapping[str, float]  # by measure

# Table 3: clips by split, then by class from negative to positive.
TABLE_3: dict[str, tuple[int, ...]] = {
    "train": (452, 290, 207, 208, 211),
    "valid": (151, 97, 69, 69, 70),
    "test": (151, 97, 69, 69, 71),
}

# Table 2, as far as confirmed.
TABLE_2: dict[str, Numbers] = {
    "ef-lstm": {"Acc-2": 69.37, "F1 (paper)": 81.91},
    "mlf-dnn": {"Acc-2": 82.28, "Acc-3": 69.06, "F1 (paper)": 82.52, "MAE": 40.64, "Corr": 67.47},
}

# The authors' repository (github.com/thuiar/MMSA, results/result-stat.md) on its own later runs.
REPOSITORY: dict[str, Numbers] = {
    system: dict(zip(MEASURES, numbers, strict=True))
    for system, numbers in {
        "ef-lstm": (69.37, 54.27, 21.23, 81.91, 59.09, 2.74),
        "mfn": (77.90, 65.73, 39.47, 77.88, 43.49, 58.24),
        "mult": (78.56, 64.77, 37.94, 79.66, 45.32, 56.41),
        "lf-dnn": (77.02, 64.33, 39.74, 77.27, 44.63, 55.51),
        "tfn": (78.38, 65.12, 39.30, 78.62, 43.22, 59.10),
        "lmf": (77.77, 64.68, 40.53, 77.88, 44.12, 57.59),
        "mlf-dnn": (80.44, 69.37, 40.22, 80.28, 39.58, 66.52),
        "mtfn": (81.09, 68.80, 40.31, 81.01, 39.54, 66.58),
        "mlmf": (79.34, 68.36, 41.05, 79.07, 40.91, 63.90),
    }.items()
}

# Table 4, by modality and the label of training and evaluation; as far as confirmed.
TABLE_4: dict[tuple[str, Task], Numbers] = {
    ("text", "M"): {"Acc-2": 75.19},
    ("vision", "M"): {"Acc-2": 74.44},
}

# Table 5, by the tasks that are trained; as far as confirmed.
TABLE_5: dict[tuple[Task, ...], Numbers] = {("M", "T", "A", "V"): {"Corr": 64.74}}

CORR_NOTE = (
    "The paper gives MLF-DNN's Corr as 67.47 in Table 2 and as 64.74 in Table 5, "
    "for what should be the same models."
)
