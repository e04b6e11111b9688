"""Columns of a clip that is a span of its file, and of a speaker among several faces."""

from __future__ import annotations

import math
import re
from typing import Any

from triptych.pipeline.escaped import quoted

_SHARE = r"(?:0?\.\d+|0|1|1\.0*|0\.)"
FACE = re.compile(rf"{_SHARE}[ ]{_SHARE}", re.ASCII)


def read_span(values: dict[str, Any], problems: list[str]) -> tuple[float | None, float | None]:
    """Return `start` and `end` of a row [s], None where they are empty; a problem is added where they are wrong."""
    start, end = (_seconds(values, name, problems) for name in ("start", "end"))
    if end is not None and (start or 0.0) >= end:
        problems.append(f"start {start or 0:g} is not before end {end:g}; correct one of them")
        return None, None
    return start, end


def _seconds(values: dict[str, Any], name: str, problems: list[str]) -> float | None:
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        problems.append(
            f"{name} = {quoted(value, 60)}: write seconds from the file's start, such as 83.25, or leave it empty"
        )
        return None
    return float(value)


def read_face(values: dict[str, Any], problems: list[str]) -> str | None:
    """Return the column `face` of a row; a problem is added where it is wrong."""
    value = values.get("face")
    if value is None:
        return None
    if not isinstance(value, str) or not FACE.fullmatch(value):
        problems.append(
            f"face = {quoted(value, 60)}: write the centre of the speaker's face as two shares of width and "
            "height, such as 0.3 0.4, or leave it empty"
        )
        return None
    return value


def face_centre(face: str) -> tuple[float, float]:
    """Return the centre that a valid `face` names."""
    x, y = face.split()
    return float(x), float(y)
