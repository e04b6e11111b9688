"""The vision stage: aligned pictures through a backend, and the rows condensed as the recipe says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from extractors.align import Aligned, aligned
from extractors.base import ExtractionError, Features, Frame, Reason
from extractors.settings import VisionSettings


class VisionBackend(Protocol):
    """What gives the 709 columns (`columns.VISION_COLUMNS`), a row a picture."""

    def extract(self, frames: Iterable[Aligned]) -> Features:
        """Rows of shape (T, 709), `valid` where a face was read; NO_FACE where there was none at all."""
        ...


def load_backend(settings: VisionSettings) -> VisionBackend:
    """Load the backend that the settings name.

    Raises
    ------
    extractors.base.BackendMissingError
        It is not installed.
    """
    from extractors.facemesh import FaceMesh

    return FaceMesh(settings)


def extract_vision(
    frames: Iterable[Frame], track: Features, backend: VisionBackend, settings: VisionSettings
) -> Features:
    """Align each picture to the face track, read it, and condense the rows.

    Parameters
    ----------
    frames
        The pictures from which the track was made.
    track
        Rows of the faces stage, shape (T, 15).
    """
    return condense(backend.extract(aligned(frames, track, settings)), settings)


def condense(features: Features, settings: VisionSettings) -> Features:
    """Drop the rows without a face and average runs of rows, where the settings say so.

    The authors' code did both, so that 275 pictures became 55 rows; time shrinks where faces are missing.
    A mean is taken over the usable rows of its run; the last run may be shorter.

    Returns
    -------
    Features
        Shape (ceil(T' / average), 709); `times` is the mean of each run's.
    """
    keep = features.valid if settings.drop_invalid else np.ones(len(features), dtype=bool)
    if not keep.any():
        raise ExtractionError(Reason.NO_FACE, "no row with a face is left")
    if keep.all() and settings.average == 1:
        return features
    values, times, valid = features.values[keep], features.times[keep], features.valid[keep]
    confidence = features.extras["confidence"][keep]
    starts = np.arange(0, len(values), settings.average)
    usable = np.add.reduceat(valid.astype(np.float64), starts)
    rows = np.diff(np.append(starts, len(values)))
    summed = np.add.reduceat(np.where(valid[:, None], values, 0.0).astype(np.float64), starts, axis=0)
    return Features(
        values=(summed / np.maximum(usable, 1)[:, None]).astype(np.float32),
        columns=features.columns,
        units=features.units,
        times=np.add.reduceat(times, starts) / rows,
        valid=usable > 0,
        extras={
            "confidence": (np.add.reduceat(confidence.astype(np.float64), starts) / rows).astype(np.float32)
        },
        notes=features.notes,
    )
