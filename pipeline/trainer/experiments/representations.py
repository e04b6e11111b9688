"""Figure 4: what the sub-networks make of text, audio and vision, in single- and in multi-task systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from triptych.pipeline.trainer.experiments import figures as pictures
from triptych.pipeline.trainer.experiments.document import Cell, Document, Grid
from triptych.pipeline.trainer.experiments.tables import TITLES, TWINS
from triptych.pipeline.trainer.experiments.trainings import Trainings
from triptych.pipeline.trainer.runs.jobs import Job
from triptych.pipeline.trainer.settings import TASK_OF_MODALITY
from triptych.pipeline.trainer.systems import MODELS

SYSTEMS = (*TWINS.values(), *TWINS)


def figure4(trainings: Trainings, seed: int) -> Document:
    """t-SNE of R_t, R_a and R_v of the test split's clips, single-task systems above their multi-task twins."""
    jobs = [Job(name, MODELS[name], seed, wanted="representations") for name in SYSTEMS]
    results = trainings.run(jobs)
    data = trainings.data
    clips = [data.ids[row] for row in data.split("test")]
    points, apart = {}, {}
    for name, result in zip(SYSTEMS, results, strict=True):
        joined, modality = side_by_side(result["representations"])
        points[name] = dict(
            zip(TASK_OF_MODALITY, np.split(embed(joined, seed), len(TASK_OF_MODALITY)), strict=True)
        )
        apart[name] = distinctness(joined, modality)
    records: list[tuple[Cell, ...]] = [
        (name, modality, clip, round(float(x), 4), round(float(y), 4))
        for name, by_modality in points.items()
        for modality, places in by_modality.items()
        for clip, (x, y) in zip(clips, places, strict=True)
    ]
    rows = tuple(
        (f"{TITLES[twin]}, {TITLES[name]}", apart[twin], apart[name]) for name, twin in TWINS.items()
    )
    return Document(
        "figure4",
        "Figure 4: representations of text, audio and vision",
        trainings.about,
        (
            (
                "How far apart the modalities are (silhouette, -1 to 1):",
                Grid(("systems", "single-task", "multi-task"), rows),
            ),
        ),
        Grid(("system", "modality", "clip", "x", "y"), tuple(records)),
        (
            f"Clips of the test split, models of seed {seed}; t-SNE of R_t, R_a and R_v together, "
            "the shorter ones filled up with zeros.",
            "Distances between far groups mean little in t-SNE; "
            "the silhouette is taken of the representations themselves.",
        ),
        pictures.scatter({TITLES[name]: found for name, found in points.items()}, trainings.about),
    )


def side_by_side(
    representations: Mapping[str, Sequence[Sequence[float]]],
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """One space for R_t, R_a and R_v of N clips.

    Returns
    -------
    Points, shape (3 N, D), the shorter representations filled up with zeros; and each one's modality, shape (3 N,).
    """
    parts = [np.array(representations[task], dtype=np.float64) for task in TASK_OF_MODALITY.values()]
    width = max(part.shape[1] for part in parts)
    joined = np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts])
    return joined, np.repeat(np.arange(len(parts)), [len(part) for part in parts])


def embed(points: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """t-SNE in two dimensions, shape (N, 2)."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(points) - 1) / 3)
    found: NDArray[np.float64] = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(
        points
    )
    return found


def distinctness(points: NDArray[np.float64], groups: NDArray[np.intp]) -> float:
    """Silhouette of groups of points; NaN where a group has fewer than two."""
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(points, groups)) if np.bincount(groups).min() > 1 else float("nan")
