"""A feature folder as tables of statistics: a row for each clip, or for each group of clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import Features
from triptych.pipeline.errors import InputError
from triptych.pipeline.escaped import quoted
from triptych.pipeline.exchange.chosen import chosen_stages, clips_with
from triptych.pipeline.exchange.functionals import FUNCTIONALS, functionals
from triptych.pipeline.exchange.row_tables import CLIP, about, clip_cells
from triptych.pipeline.exchange.table_files import Block, TableLayout, table_format
from triptych.pipeline.manifest.clips import Clip
from triptych.pipeline.manifest.columns import LABELS
from triptych.pipeline.manifest.groups import VIDEO, read_groups
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.storage.store import FeatureStore
from triptych.pipeline.trainer.data.usable import usable_cells

AT_ONCE = (
    64 * 2**20
)  # bytes of one group's numbers; a larger group is read several times, some columns at a time
NONZERO = "nz"  # ending of openSMILE's columns that are 0 where they are not defined: unvoiced rows
_PER_CLIP = {**CLIP, "text": "str", "rows": "int64"}
_PER_GROUP = {"group": "str", "clips": "int64", "split": "str", **dict.fromkeys(LABELS, "float64")}


@dataclass(frozen=True)
class Groups:
    """The clips of each group, by id: how `--by` divides them."""

    of_clip: Mapping[str, str]

    def clips(self, clips: Sequence[Clip]) -> dict[str, list[Clip]]:
        """Divide clips by group; groups are sorted by name.

        Raises
        ------
        InputError
            A clip has no group.
        """
        if missing := [clip.id for clip in clips if clip.id not in self.of_clip]:
            raise InputError(
                f"--by: {len(missing)} clips are not in the table, such as {quoted(missing[0])}; name a table with "
                "all clips by --table"
            )
        found: dict[str, list[Clip]] = {}
        for clip in clips:
            found.setdefault(self.of_clip[clip.id], []).append(clip)
        return dict(sorted(found.items()))


def groups_by(store: FeatureStore, by: str, table: Path | None = None) -> Groups:
    """Read the group of each clip: its video, or its value in a column of a table.

    Parameters
    ----------
    store
        The feature folder.
    by
        ``video``, or the name of a column.
    table
        A table of clips, as `triptych extract` reads it; by default the folder's own manifest.csv.

    Raises
    ------
    InputError
        The table cannot be read, or has no column of that name, or the column is empty for a clip.
    """
    if by.lower() == VIDEO and table is None:
        return Groups(read_groups([], store.manifest, by))
    if table is None:
        return Groups(read_groups([store.folder / "manifest.csv"], store.manifest, by))
    clips = load_manifest(table, check_files=False, labels_only=True)
    return Groups(read_groups([table], clips, by))


def export_summary(
    store: FeatureStore,
    folder: Path,
    to: str,
    only: Sequence[str] | None = None,
    groups: Groups | None = None,
) -> dict[str, int]:
    """Write a table of statistics for each stage; the number of rows in each, by the file's name.

    ``<stage>-summary.csv`` (or ``.parquet``) has a row for each clip: id, split, labels, text, and the number of rows.
    With groups, ``<stage>-groups.csv`` has a row for each group: its name, the number of its clips, their split
    (missing if they differ), the mean of each label, and the number of rows. Then follow, for each column of the
    stage, `FUNCTIONALS` over its usable rows: those that are valid, voiced where the column needs voice.

    Parameters
    ----------
    store
        The feature folder.
    folder
        Where the files are written; created if it is missing.
    to
        ``csv`` or ``parquet``.
    only
        The stages; by default all that have features.
    groups
        What a row is, unless a clip.

    Raises
    ------
    InputError
        A stage is unknown or has no features, a clip has no group, or pyarrow is missing.
    """
    open_table = table_format(to)
    stages = chosen_stages(store, only)
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for stage in stages:
        clips = clips_with(store, (stage,))
        rows = [[clip] for clip in clips] if groups is None else list(groups.clips(clips).values())
        name = f"{stage}-{'summary' if groups is None else 'groups'}.{to}"
        with open_table(folder / name, _layout(store, stage, clips[0], groups)) as table:
            for members in rows:
                numbers, length = _statistics(store, stage, members)
                leading = (
                    [*clip_cells(members[0]), members[0].text] if groups is None else _group(groups, members)
                )
                table.write(Block([*leading, length], numbers))
        counts[name] = len(rows)
    return counts


def _layout(store: FeatureStore, stage: str, first: Clip, groups: Groups | None) -> TableLayout:
    features = store.read(stage, first.id)
    return TableLayout(
        _PER_CLIP if groups is None else {**_PER_GROUP, "rows": "int64"},
        tuple(f"{column}_{functional}" for column in features.columns for functional in FUNCTIONALS),
        about=about(store, stage),
    )


def _group(groups: Groups, members: Sequence[Clip]) -> list[object]:
    splits = {clip.split for clip in members}
    means = []
    for name in LABELS:
        labels = [label for clip in members if (label := getattr(clip, name)) == label]
        means.append(sum(labels) / len(labels) if labels else float("nan"))
    split = splits.pop() if len(splits) == 1 else None
    return [groups.of_clip[members[0].id], len(members), split, *means]


def _statistics(store: FeatureStore, stage: str, clips: Sequence[Clip]) -> tuple[NDArray[np.float32], int]:
    """Functionals over all rows of some clips, shape (1, D * len(FUNCTIONALS)), and the number of rows."""
    if len(clips) == 1:
        features = store.read(stage, clips[0].id)
        found = functionals(features.values, _usable(features))
        return found.reshape(1, -1).astype(np.float32), len(features)
    lengths = [len(store.read(stage, clip.id)) for clip in clips]
    width = len(store.read(stage, clips[0].id).columns)
    step = max(1, AT_ONCE // (4 * sum(lengths)))
    parts = [
        functionals(*_columns(store, stage, clips, slice(start, min(start + step, width)), sum(lengths)))
        for start in range(0, width, step)
    ]
    return np.concatenate(parts).reshape(1, -1).astype(np.float32), sum(lengths)


def _columns(
    store: FeatureStore, stage: str, clips: Sequence[Clip], columns: slice, rows: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Some columns of all rows of some clips, and which of their cells are usable."""
    shape = (rows, columns.stop - columns.start)
    values, usable = np.empty(shape, np.float32), np.empty(shape, np.bool_)
    end = 0
    for clip in clips:
        features = store.read(stage, clip.id)
        start, end = end, end + len(features)
        values[start:end] = features.values[:, columns]
        usable[start:end] = _usable(features)[:, columns]
    return values, usable


def _usable(features: Features) -> NDArray[np.bool_]:
    usable = usable_cells(features)
    for number, name in enumerate(features.columns):
        if name.endswith(NONZERO):
            usable[:, number] &= features.values[:, number] != 0
    return usable
