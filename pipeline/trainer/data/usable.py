"""Which cells of a stage's rows hold a measured value. No torch: exports read this too."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import Features


def usable_cells(features: Features) -> NDArray[np.bool_]:
    """Return which cells count, shape (T, D): those of valid rows, except the log F0 of unvoiced ones."""
    usable = np.repeat(features.valid[:, None], len(features.columns), axis=1)
    if "log_f0" in features.columns and "voiced" in features.extras:
        usable[:, features.columns.index("log_f0")] &= features.extras["voiced"]
    return usable
