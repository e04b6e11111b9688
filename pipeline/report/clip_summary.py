"""One clip in numbers: what it is, what each stage has of it, and what went wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import Features, Reason
from triptych.extractors.remedies import REMEDIES
from triptych.extractors.vision.columns import AU_INTENSITIES
from triptych.pipeline.manifest.columns import LABELS
from triptych.pipeline.report.frames import rows_or_none
from triptych.pipeline.run.folder import plan_folder

if TYPE_CHECKING:
    from triptych.pipeline.manifest.clips import Clip
    from triptych.pipeline.storage.store import FeatureStore

MAIN_UNITS = 3  # action units that are shown of a clip: those that move most
_FIRST = 3  # columns that are shown of a stage that is not known here
_HIDDEN_UNITS = ("h_", "e_")  # prefixes of columns without a meaning of their own
_AU_COLUMNS = tuple(f"AU{unit}_r" for unit in AU_INTENSITIES)
_ANGLES = {
    "gaze_angle_x": "gaze x",
    "gaze_angle_y": "gaze y",
    "pose_Rx": "head pitch",
    "pose_Ry": "head yaw",
    "pose_Rz": "head roll",
}


@dataclass(frozen=True, eq=False)
class Trace:
    """One quantity over time.

    Attributes
    ----------
    times
        Seconds from the container's start, shape (T,).
    values
        In `unit`, shape (T,); NaN where the row is not usable.
    """

    stage: str
    name: str
    unit: str
    times: NDArray[np.float64]
    values: NDArray[np.float64]

    def binned(self, seconds: float, bins: int) -> list[float]:
        """Return the mean in each of equal parts of a time axis; NaN where a part has no usable row."""
        place = np.clip((self.times / max(seconds, 1e-9) * bins).astype(int), 0, bins - 1)
        known = np.isfinite(self.values)
        count = np.bincount(place[known], minlength=bins)
        total = np.bincount(place[known], self.values[known], minlength=bins)
        means = [float(part) for part in np.where(count > 0, total / np.maximum(count, 1), np.nan)]
        return _bridged(means, place, known) if len(self.times) < bins else means


def _bridged(means: list[float], place: NDArray[np.int64], known: NDArray[np.bool_]) -> list[float]:
    """Repeat the last row in parts that no row falls into: there are fewer rows than parts."""
    rows = set(place.tolist())
    lost = set(place[~known].tolist())
    for part in range(1, len(means)):
        if part not in rows and part - 1 not in lost:
            means[part] = means[part - 1]
    return means


@dataclass(frozen=True)
class ColumnSummary:
    """Statistics of one column over the usable rows."""

    name: str
    unit: str
    mean: float
    sd: float
    min: float
    max: float


@dataclass(frozen=True)
class StageSummary:
    """What a stage has of the clip.

    Attributes
    ----------
    state
        ``done``, ``absent``, ``failed`` or ``missing``.
    rows, seconds, usable
        Number of rows, the time they cover (None where rows have no times), and the share that is valid.
    reason, detail, remedy
        Of a failure: the typed reason, a sentence, and what to do.
    note
        What the ledger records about the rows; empty for nothing.
    """

    stage: str
    state: str
    rows: int = 0
    seconds: float | None = None
    usable: float | None = None
    columns: tuple[ColumnSummary, ...] = ()
    reason: str = ""
    detail: str = ""
    remedy: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False)
class ClipSummary:
    """One clip.

    Attributes
    ----------
    seconds
        The time that its rows cover; None where no row has a time.
    labels
        By name; missing labels are left out.
    traces
        Curves for one time axis.
    """

    clip: Clip
    seconds: float | None
    labels: dict[str, float]
    stages: tuple[StageSummary, ...]
    traces: tuple[Trace, ...]

    @property
    def vision_note(self) -> str:
        """The ledger's notes on the vision rows."""
        return next((stage.note for stage in self.stages if stage.stage == "vision"), "")


def summarise(store: FeatureStore, clip: Clip) -> ClipSummary:
    """Read all rows of a clip, and what the ledger records about it.

    Raises
    ------
    triptych.pipeline.storage.schema.ShardError
        A shard with the clip is damaged.
    """
    plan, _, _ = plan_folder(
        store.folder, store.manifest, store.recipe["fingerprints"], store.stages, frozenset({clip.id})
    )
    stages, traces = [], list[Trace]()
    for name in store.stages:
        rows, planned = rows_or_none(store, name, clip.id), plan.stages[name]
        note = planned.notes.get(clip.id, "")
        if rows is not None:
            own = _traces(name, rows)
            traces += [trace for trace in own if trace.name not in ("score", "box height")]
            stages.append(_done(store, clip.id, name, rows, own, note))
        elif line := planned.failed.get(clip.id):
            known = line.reason in set(Reason)
            remedy = REMEDIES.get(Reason(line.reason), "") if known else ""
            stages.append(
                StageSummary(name, "failed", reason=line.reason, detail=line.detail, remedy=remedy, note=note)
            )
        else:
            stages.append(StageSummary(name, "absent" if clip.id in planned.absent else "missing", note=note))
    covered = [stage.seconds for stage in stages if stage.seconds is not None]
    labels = {name: value for name in LABELS if not math.isnan(value := getattr(clip, name))}
    return ClipSummary(clip, max(covered, default=None), labels, tuple(stages), tuple(traces))


def _done(
    store: FeatureStore, clip_id: str, name: str, rows: Features, traces: Sequence[Trace], note: str
) -> StageSummary:
    times = np.asarray(rows.times)
    seconds = None
    if len(times) and np.isfinite(times[-1]):
        rate = store.frame_rate(name, clip_id)
        seconds = float(times[-1]) + (1 / rate if math.isfinite(rate) and rate > 0 else 0.0)
    usable = float(np.mean(rows.valid)) if len(rows) else 0.0
    columns = tuple(found for trace in traces if (found := _column(trace)) is not None)
    return StageSummary(name, "done", len(rows), seconds, usable, columns, note=note)


def _column(trace: Trace) -> ColumnSummary | None:
    values = trace.values[np.isfinite(trace.values)]
    if not len(values):
        return None
    numbers = (values.mean(), values.std(), values.min(), values.max())
    return ColumnSummary(trace.name, trace.unit, *map(float, numbers))


def _traces(stage: str, rows: Features) -> list[Trace]:
    """Choose the quantities of a stage that are shown; an unknown stage shows its first columns."""
    times = np.asarray(rows.times, np.float64)
    columns = {name: number for number, name in enumerate(rows.columns)}
    units = dict(zip(rows.columns, rows.units, strict=True))

    def column(name: str) -> NDArray[np.float64]:
        return np.where(rows.valid, rows.values[:, columns[name]].astype(np.float64), np.nan)

    if "log_f0" in columns:
        voiced = np.asarray(rows.extras.get("voiced", rows.values[:, columns["log_f0"]] > 0), bool)
        f0 = Trace(stage, "F0", "Hz", times, np.where(voiced, np.exp(column("log_f0")), np.nan))
        return [
            f0,
            *(
                Trace(stage, "MFCC 0", units[name], times, column(name))
                for name in ("mfcc_0",)
                if name in columns
            ),
        ]
    if "score" in columns and "y1" in columns:
        height = Trace(stage, "box height", "pixel", times, column("y1") - column("y0"))
        return [Trace(stage, "score", units["score"], times, column("score")), height]
    if set(_AU_COLUMNS) <= columns.keys():
        return _vision_traces(stage, times, {name: column(name) for name in (*_AU_COLUMNS, *_ANGLES)})
    named = [name for name in rows.columns[:_FIRST] if not name.startswith(_HIDDEN_UNITS)]
    if not np.isfinite(times).all():
        named = []
    return [Trace(stage, name, units[name], times, column(name)) for name in named]


def _vision_traces(
    stage: str, times: NDArray[np.float64], values: dict[str, NDArray[np.float64]]
) -> list[Trace]:
    def movement(name: str) -> float:
        known = values[name][np.isfinite(values[name])]
        return float(known.std()) if len(known) else 0.0

    strongest = sorted(_AU_COLUMNS, key=movement, reverse=True)[:MAIN_UNITS]
    angles = [
        Trace(stage, label, "degree", times, np.rad2deg(values[name])) for name, label in _ANGLES.items()
    ]
    return [*(Trace(stage, name, "0 to 5", times, values[name]) for name in sorted(strongest)), *angles]
