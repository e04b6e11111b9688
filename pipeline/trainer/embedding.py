"""Representations of several modalities as points of one space, and their positions in two dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from triptych.pipeline.trainer.settings import TASK_OF_MODALITY


def side_by_side(
    representations: Mapping[str, Sequence[Sequence[float]]],
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Pad R_t, R_a and R_v of N clips to one width and stack them.

    Returns
    -------
    Points, shape (3 N, D), the shorter representations padded with zeros; and each one's modality, shape (3 N,).
    """
    parts = [np.array(representations[task], dtype=np.float64) for task in TASK_OF_MODALITY.values()]
    width = max(part.shape[1] for part in parts)
    joined = np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts])
    return joined, np.repeat(np.arange(len(parts)), [len(part) for part in parts])


def embed(points: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """t-SNE in two dimensions, shape (N, 2)."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(points) - 1) / 3)
    embedded: NDArray[np.float64] = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(
        points
    )
    return embedded


def distinctness(points: NDArray[np.float64], groups: NDArray[np.intp]) -> float:
    """Silhouette of groups of points; NaN where a group has fewer than two."""
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(points, groups)) if np.bincount(groups).min() > 1 else float("nan")
