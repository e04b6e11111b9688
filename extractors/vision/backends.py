"""The vision stage's backends, and the rows condensed as the recipe says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import Protocol

import numpy as np

from triptych.extractors.base import ExtractionError, Features, Reason
from triptych.extractors.faces.crops import Aligned
from triptych.extractors.vision.stage import VisionSettings


class VisionBackend(Protocol):
    """A source of the 709 columns (`columns.VISION_COLUMNS`), one row per frame, for one clip or several at once."""

    @property
    def software(self) -> Mapping[str, str]:
        """Return the versions, hashes and models of the programs that compute the numbers, by name."""

    def add(self, clip: str, frames: Iterable[Aligned]) -> bool:
        """Read a clip's frames; return True when `finish` should be called before the next clip.

        Raises
        ------
        triptych.extractors.base.ExtractionError
            The clip has no features; it is then not among those of `finish`.
        """

    def finish(self) -> dict[str, Features | ExtractionError]:
        """Return, by clip, the rows of all clips read, and forget them.

        Shape (T, 709), `valid` where a face was read; NO_FACE where no frame has one.
        """


class OneByOne:
    """A backend that reads each clip as it comes."""

    def __init__(self, extract: Callable[[Iterable[Aligned]], Features], software: Mapping[str, str]) -> None:
        self.software = software
        self._extract = extract
        self._done: dict[str, Features | ExtractionError] = {}

    def add(self, clip: str, frames: Iterable[Aligned]) -> bool:
        """Read the clip."""
        self._done[clip] = self._extract(frames)
        return True

    def finish(self) -> dict[str, Features | ExtractionError]:
        """Return what was read."""
        done, self._done = self._done, {}
        return done


def load_backend(settings: VisionSettings) -> VisionBackend:
    """Load the backend that the settings name.

    Raises
    ------
    triptych.extractors.base.BackendMissingError
        It is not installed.
    """
    if settings.backend == "openface":
        from triptych.extractors.vision.openface.backend import OpenFace

        return OpenFace(settings)
    from triptych.extractors.vision.facemesh.backend import FaceMesh

    return OneByOne(FaceMesh(settings).extract, {"ai-edge-litert": version("ai-edge-litert")})


def condense(features: Features, settings: VisionSettings) -> Features:
    """Drop rows without a face and average consecutive rows, if the settings say so.

    The authors' code did both, so that 275 frames became 55 rows; time shrinks where faces are missing.
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
