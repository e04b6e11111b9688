"""Figure 4: the sub-networks' representations of text, audio and vision, in single- and multi-task systems."""

from __future__ import annotations

import numpy as np

from triptych.pipeline.terminal.grid import Cell, Grid
from triptych.pipeline.trainer.embedding import distinctness, embed, side_by_side
from triptych.pipeline.trainer.experiments import figures
from triptych.pipeline.trainer.experiments.document import Document
from triptych.pipeline.trainer.experiments.trainings import Trainings
from triptych.pipeline.trainer.runs.jobs import Job
from triptych.pipeline.trainer.settings import TASK_OF_MODALITY
from triptych.pipeline.trainer.systems import SYSTEMS, title_of

TWINS = {
    "mlf-dnn": "lf-dnn",
    "mtfn": "tfn",
    "mlmf": "lmf",
}  # the paper's multi-task systems and what they extend
SHOWN = (*TWINS.values(), *TWINS)


def figure4(trainings: Trainings, seed: int) -> Document:
    """t-SNE of R_t, R_a and R_v of the test split's clips, single-task systems above their multi-task twins."""
    jobs = [Job(name, SYSTEMS[name], seed, wanted="representations") for name in SHOWN]
    results = trainings.run(jobs)
    data = trainings.data
    clips = [data.ids[row] for row in data.split("test")]
    points, silhouettes = {}, {}
    for name, result in zip(SHOWN, results, strict=True):
        joined, modality = side_by_side(result["representations"])
        points[name] = dict(
            zip(TASK_OF_MODALITY, np.split(embed(joined, seed), len(TASK_OF_MODALITY)), strict=True)
        )
        silhouettes[name] = distinctness(joined, modality)
    records: list[tuple[Cell, ...]] = [
        (name, modality, clip, round(float(x), 4), round(float(y), 4))
        for name, by_modality in points.items()
        for modality, positions in by_modality.items()
        for clip, (x, y) in zip(clips, positions, strict=True)
    ]
    rows = tuple(
        (f"{title_of(twin)}, {title_of(name)}", silhouettes[twin], silhouettes[name])
        for name, twin in TWINS.items()
    )
    return Document(
        "figure4",
        "Figure 4: representations of text, audio and vision",
        trainings.about,
        (
            (
                "Separation of the modalities (silhouette, -1 to 1):",
                Grid(("systems", "single-task", "multi-task"), rows),
            ),
        ),
        Grid(("system", "modality", "clip", "x", "y"), tuple(records)),
        (
            f"Clips of the test split, models of seed {seed}; t-SNE of R_t, R_a and R_v together, "
            "the shorter ones padded with zeros.",
            "Distances between separate groups mean little in t-SNE; "
            "the silhouette is computed on the representations themselves.",
        ),
        figures.scatter(
            {title_of(name): by_modality for name, by_modality in points.items()}, trainings.about
        ),
    )
