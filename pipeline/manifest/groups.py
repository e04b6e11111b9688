"""Splits that keep a group of clips, such as a video or a speaker, on one side."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import SPLITS, Manifest
from triptych.pipeline.manifest.columns import column_name
from triptych.pipeline.manifest.layouts import label_table
from triptych.pipeline.manifest.meld import meld_tables
from triptych.pipeline.manifest.splits import label_class
from triptych.pipeline.manifest.tables import TABLE_ENDINGS, cells

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VIDEO = "video"


def read_groups(sources: Sequence[Path], manifest: Manifest, by: str) -> dict[str, str]:
    """Return the group of each clip by id: its video, or its value in a column of the source's table.

    Raises
    ------
    InputError
        The column is in none of the sources, or is empty for a clip.
    """
    if by.lower() == VIDEO:
        return {clip.id: clip.id.partition("$_$")[0] for clip in manifest.clips}
    tables = _tables(sources)
    if not tables:
        raise InputError(f"--by {by}: needs a table as the source, with that column; --by video needs none")
    # `load_manifest` has read the same tables: one clip for each record, in the same order.
    values = [value for table in tables for value in _column(table, by)]
    return {clip.id: value for clip, value in zip(manifest.clips, values, strict=True)}


def _tables(sources: Sequence[Path]) -> list[Path]:
    """Return the tables of the one source; none where there are several, or another source."""
    if len(sources) != 1:
        return []
    (source,) = sources
    if not source.is_dir():
        return [source] if source.suffix.lower() in TABLE_ENDINGS else []
    table = label_table(source)
    return meld_tables(source) if table is None else [table]


def _column(table: Path, by: str) -> list[str]:
    """Read a column by name, in upper or lower case."""
    (_, header), *lines = list(cells(table, [])) or [(1, [])]
    names = [column_name(name).lower() for name in header]
    if by.lower() not in names:
        raise InputError(f"{table}:1: no column {by} among {', '.join(header)}; name one of them after --by")
    column = names.index(by.lower())
    empty = [line for line, record in lines if not record[column].strip()]
    if empty:
        raise InputError(f"{table}:{empty[0]}: column {by} is empty; fill it in, or leave --by out")
    return [record[column].strip() for _, record in lines]


def assign_grouped_splits(
    manifest: Manifest, groups: Mapping[str, str], ratios: tuple[int, int, int], seed: int
) -> Manifest:
    """Give every clip a split, all clips of a group the same one, near the ratio and alike in their labels.

    Each split is a number of folds of scikit-learn's ``StratifiedGroupKFold`` over the classes of `label_class`.

    Parameters
    ----------
    groups
        The group of each clip, by id.

    Raises
    ------
    InputError
        Some clips have a split already, or there are fewer groups than splits.
    """
    import numpy as np

    if any(clip.split for clip in manifest.clips):
        raise InputError("--by: some clips have a split already; --anew assigns all clips")
    ratios = _reduced(ratios)
    names = [groups[clip.id] for clip in manifest.clips]
    wanted = sum(ratio > 0 for ratio in ratios)
    if len(set(names)) < wanted:
        raise InputError(
            f"--by: {len(set(names))} groups for {wanted} splits; leave --by out, or name another column"
        )
    classes = np.array([label_class(clip.label, manifest.label_range) for clip in manifest.clips])
    order = np.array(
        sorted(range(len(names)), key=lambda row: manifest.clips[row].id)
    )  # not that of the rows
    parts = [order[rows] for rows in _folds(classes[order], np.array(names)[order], sum(ratios), seed)]
    splits: dict[int, str] = {}
    targets = {
        name: len(names) * ratio / sum(ratios) for name, ratio in zip(SPLITS, ratios, strict=True) if ratio
    }
    for rows in sorted(parts, key=len, reverse=True):
        counts = {name: sum(split == name for split in splits.values()) for name in targets}
        emptiest = max(targets, key=lambda name: (targets[name] - counts[name]) / targets[name])
        splits.update(dict.fromkeys(map(int, rows), emptiest))
    return replace(
        manifest, clips=tuple(replace(clip, split=splits[row]) for row, clip in enumerate(manifest.clips))
    )


def _folds(
    classes: NDArray[np.int_], groups: NDArray[np.str_], most: int, seed: int
) -> list[NDArray[np.int_]]:
    """Divide rows into folds of whole groups, `most` if there are as many groups, alike in their classes."""
    import numpy as np
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(most, len(np.unique(groups)))
    if folds == 1:
        return [np.arange(len(groups))]
    if folds > np.unique(classes, return_counts=True)[1].max():  # too few of every class to divide them alike
        classes = np.zeros_like(classes)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of classes with fewer clips than folds, which are divided as far as possible
        return [rows for _, rows in splitter.split(groups, classes, groups)]


def _reduced(ratios: tuple[int, int, int]) -> tuple[int, int, int]:
    """Divide by the greatest common divisor; large ratios such as 70:15:15 need no hundred folds."""
    from math import gcd

    divisor = gcd(*ratios)
    train, valid, test = (ratio // divisor for ratio in ratios)
    return train, valid, test
