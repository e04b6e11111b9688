"""The result of a stage, and the errors and reasons if there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # the command line reads this module
    import numpy as np
    from numpy.typing import NDArray


class Reason(StrEnum):
    """Why a stage of a clip has no features, as the ledger records it."""

    FILE_MISSING = "file_missing"
    NOT_A_FILE = "not_a_file"
    NOT_MEDIA = "not_media"
    UNDECODABLE = "undecodable"
    TRUNCATED = "truncated"
    TOO_LONG = "too_long"
    TOO_LARGE = "too_large"
    NO_VIDEO_STREAM = "no_video_stream"
    NO_AUDIO_STREAM = "no_audio_stream"
    EMPTY_AUDIO = "empty_audio"
    NON_FINITE_AUDIO = "non_finite_audio"
    NO_FACE = "no_face"
    NO_TRANSCRIPT = "no_transcript"
    NO_SPEECH = "no_speech"
    NOT_ALIGNED = "not_aligned"
    OPENFACE_CRASHED = "openface_crashed"
    OPENFACE_SHORT = "openface_short"
    TIMEOUT = "timeout"
    FRAME_TOO_SMALL = "frame_too_small"
    NO_SCRATCH_SPACE = "no_scratch_space"
    OUTSIDE_FILE = "outside_file"
    FILE_CHANGED = "file_changed"
    WORKER_KILLED = "worker_killed"
    OUT_OF_MEMORY = "out_of_memory"
    NOT_IN_FILE = "not_in_file"
    UNEXPECTED = "unexpected"


class ExtractionError(Exception):
    """A clip gave no features, for a typed reason.

    Parameters
    ----------
    reason
        The typed reason.
    detail
        One sentence for the user: what was found, and where.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class BackendMissingError(Exception):
    """A program, package or model that a setting asks for is missing; the text says how to get it."""


class UnusableSettingError(ValueError):
    """A setting cannot be used on this machine or with the other settings; the text says what to change."""


def package_version(package: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


class Frame(NamedTuple):
    """One frame on the clip's clock.

    Attributes
    ----------
    slot
        Index on the frame grid: the frame is shown at ``slot / frame_rate`` seconds.
    time
        That time [s], from the container's start.
    image
        RGB, uint8, shape (H, W, 3).
    """

    slot: int
    time: float
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class Features:
    """The rows of one stage of one clip.

    Attributes
    ----------
    values
        float32, shape (T, D). Always finite.
    columns, units
        D names, and D units (``""`` where there is none).
    times
        float64, shape (T,): seconds from the container's start, one clock for sound and frames; NaN where
        rows have no times.
    valid
        bool, shape (T,): the row is usable.
    extras
        Further arrays of T rows, by name; `Stage.extras` declares which ones a stage has.
    notes
        Sentences for the ledger on what a user should know about this result, such as a cut transcript.
    """

    values: NDArray[np.float32]
    columns: tuple[str, ...]
    units: tuple[str, ...]
    times: NDArray[np.float64]
    valid: NDArray[np.bool_]
    extras: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the shapes against each other, so that a malformed result is noticed at once."""
        rows, width = self.values.shape
        if not len(self.columns) == len(self.units) == width:
            raise ValueError(
                f"values of {width} columns with {len(self.columns)} names and {len(self.units)} units"
            )
        for name, array in {"times": self.times, "valid": self.valid, **self.extras}.items():
            if len(array) != rows:
                raise ValueError(f"{name} has {len(array)} rows where values has {rows}")

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        rows, width = self.values.shape
        valid = int(self.valid.sum())
        return f"Features({', '.join([f'{rows} rows x {width} columns', f'{valid} valid', *self.notes])})"
