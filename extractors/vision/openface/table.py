"""The CSV that OpenFace writes, one row per image."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.vision.columns import VISION_COLUMNS

ABOUT_THE_FRAME = ("frame", "face_id", "timestamp", "confidence", "success")
NAMES = tuple(name for name, _ in VISION_COLUMNS)


class WrongColumnsError(Exception):
    """The table is not in OpenFace 2.x's format; the clip is not the cause."""


class TornTableError(Exception):
    """The table exists but is incomplete."""


@dataclass(frozen=True)
class Table:
    """A table as it was written.

    Attributes
    ----------
    values
        float64, shape (T, 709), in the order of `columns.VISION_COLUMNS`; meaningless without success.
    success
        bool, shape (T,): a face was found in this image.
    confidence
        float32, shape (T,): OpenFace's own, 0 to 1.
    """

    values: NDArray[np.float64]
    success: NDArray[np.bool_]
    confidence: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.values)


def read_table(path: Path) -> Table:
    """Read a CSV by its column names; spaces around names and values are ignored.

    Timestamps are not read: for folders of images they are all 0.

    Raises
    ------
    WrongColumnsError
        Columns are missing.
    TornTableError
        It ends within its header or a row, or its rows are not those of images 1, 2, 3 ...
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        header = file.readline()
        if not header.endswith("\n"):
            raise TornTableError("breaks off in its header")
        position = {name.strip(): index for index, name in enumerate(header.split(","))}
        if missing := [name for name in (*ABOUT_THE_FRAME, *NAMES) if name not in position]:
            raise WrongColumnsError(
                f"{path.name} has {len(position)} columns and misses {len(missing)} of the 714 of OpenFace 2.x: "
                f"{', '.join(missing[:4])}{', ...' if len(missing) > 4 else ''}"
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of a table without rows
                rows = np.loadtxt(file, delimiter=",", ndmin=2)
        except ValueError as error:
            raise TornTableError(str(error)) from error
    if not len(rows):
        rows = np.empty((0, len(position)))
    if rows.shape[1] != len(header.split(",")):
        raise TornTableError(f"rows of {rows.shape[1]} numbers under a header of {len(position)} names")
    if (np.diff(rows[:, position["frame"]]) != 1).any():
        raise TornTableError("its frames are not in order")
    return Table(
        values=rows[:, [position[name] for name in NAMES]],
        success=rows[:, position["success"]] == 1,
        confidence=rows[:, position["confidence"]].astype(np.float32),
    )
