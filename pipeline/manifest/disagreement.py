"""The labels of clips as an array, and how two annotations of the same clips differ."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from triptych.pipeline.manifest.clips import Clip


def label_array(clips: Iterable[Clip]) -> NDArray[np.float64]:
    """Return the labels of N clips, shape (N, 4), columns M, T, A, V, NaN where missing."""
    labels = [(clip.label, clip.label_T, clip.label_A, clip.label_V) for clip in clips]
    return np.array(labels, dtype=np.float64).reshape(-1, 4)


def disagreement(labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute D_ij, shape (4, 4), over the clips that have both labels; NaN without such clips."""
    differences = np.full((labels.shape[1],) * 2, np.nan)
    for a, b in np.ndindex(differences.shape):
        both = labels[~np.isnan(labels[:, [a, b]]).any(axis=1)]
        if len(both):
            differences[a, b] = np.mean((both[:, a] - both[:, b]) ** 2)
    return differences
