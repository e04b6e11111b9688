"""A feature folder as tables of rows, one for each stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from triptych.extractors.base import Features
from triptych.pipeline.exchange.chosen import chosen_stages, clips_with
from triptych.pipeline.exchange.table_files import Block, TableLayout, table_format
from triptych.pipeline.manifest.clips import Clip
from triptych.pipeline.manifest.columns import LABELS
from triptych.pipeline.storage.schema import row_types
from triptych.pipeline.storage.store import FeatureStore

CLIP = {"id": "str", "split": "str", **dict.fromkeys(LABELS, "float64")}  # the first columns of every table
ROW = {"time": "float64", "valid": "bool"}


def export_rows(
    store: FeatureStore, folder: Path, to: str, only: Sequence[str] | None = None
) -> dict[str, int]:
    """Write ``<stage>.csv`` or ``<stage>.parquet`` for each stage; the number of rows in each, by its name.

    Columns are id, split and labels of the clip; time [s] (missing for rows without times, such as tokens) and
    valid; the stage's columns, float32; and its further arrays of rows, such as ``voiced``. Clips are sorted by id.

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

    Raises
    ------
    InputError
        A stage is unknown or has no features, or pyarrow is missing.
    """
    open_table = table_format(to)
    stages = chosen_stages(store, only)
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for stage in stages:
        clips = clips_with(store, (stage,))
        layout = _layout(store, stage, store.read(stage, clips[0].id))
        count = 0
        with open_table(folder / f"{stage}.{to}", layout) as table:
            for clip in clips:
                features = store.read(stage, clip.id)
                table.write(_block(clip, features, _extras(stage)))
                count += len(features)
        counts[f"{stage}.{to}"] = count
    return counts


def clip_cells(clip: Clip) -> list[object]:
    """Return the values of the columns `CLIP` of a clip."""
    return [clip.id, clip.split, *(getattr(clip, name) for name in LABELS)]


def about(store: FeatureStore, stage: str) -> dict[str, str]:
    """Return what identifies a table's source."""
    return {"stage": stage, "fingerprint": store.recipe["fingerprints"][stage]}


def distinct(stage: str, name: str) -> str:
    """Return a column's name, with its stage before it if every table has a column of that name."""
    return f"{stage}_{name}" if name in {**CLIP, **ROW} else name


def _extras(stage: str) -> dict[str, str]:
    return {name: kind for name, kind in row_types(stage).items() if name not in ("times", "valid")}


def _layout(store: FeatureStore, stage: str, first: Features) -> TableLayout:
    return TableLayout(
        {**CLIP, **ROW},
        tuple(distinct(stage, name) for name in first.columns),
        {distinct(stage, name): kind for name, kind in _extras(stage).items()},
        about(store, stage),
        first.units,
    )


def _block(clip: Clip, features: Features, extras: dict[str, str]) -> Block:
    times = None if np.isnan(features.times).all() else features.times
    return Block(
        [*clip_cells(clip), times, features.valid],
        features.values,
        [features.extras[name] for name in extras],
    )
