"""Checks that there are enough clips to train and evaluate a system."""

from __future__ import annotations

import numpy as np

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import SPLITS
from triptych.pipeline.manifest.columns import LABELS
from triptych.pipeline.manifest.splits import HOW_TO_SPLIT
from triptych.pipeline.trainer.data.clips import SentimentData
from triptych.pipeline.trainer.settings import TASKS, SystemSettings, Task

LABEL_COLUMNS = dict(zip(TASKS, LABELS, strict=True))
LEAST = {"train": 2, "valid": 1, "test": 1}  # fewest clips with a label M that a split needs


def check_data(data: SentimentData, settings: SystemSettings, target: Task = "M") -> None:
    """Refuse data that cannot train and evaluate a system.

    Parameters
    ----------
    target
        The label that replaces M as the target.

    Raises
    ------
    InputError
        There are too few clips or labels; every problem is listed.
    """
    column_of_target = TASKS.index(target)
    if np.isnan(data.labels[:, column_of_target]).all():
        column = LABEL_COLUMNS[target]
        raise InputError(
            f"no clip with features has a {column}; fill in {column} in the folder's manifest.csv"
        )
    if not any(data.splits):
        raise InputError(
            f"the manifest assigns no clip to a split; F being the feature folder, {HOW_TO_SPLIT}"
        )
    known = {name: (~np.isnan(data.labels[data.split(name)])).sum(axis=0) for name in SPLITS}
    problems = [
        f"{known[name][column_of_target]} clips with features and a {LABEL_COLUMNS[target]} in split {name}, "
        f"at least {least} needed; F being the feature folder, {HOW_TO_SPLIT}"
        for name, least in LEAST.items()
        if known[name][column_of_target] < least
    ]
    problems += [
        f"no clip in split train has a {LABEL_COLUMNS[task]} (task {task}); "
        f"fill in {LABEL_COLUMNS[task]} in the manifest, or train a single-task system such as lf-dnn, "
        "which needs label alone"
        for task in settings.tasks
        if task != "M" and not known["train"][TASKS.index(task)]
    ]
    if problems:
        raise InputError(problems)
