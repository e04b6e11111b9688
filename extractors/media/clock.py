"""The clip's clock: its zero, and how times are rounded."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

from triptych.extractors.base import ExtractionError, Reason

# A clip longer than this, in seconds, is assumed to have invalid time stamps.
LONGEST = 4 * 3600


def start_time(container: Any) -> Fraction:
    """Return the container's start time [s], relative to a time stamp of zero."""
    return Fraction(container.start_time or 0, 1_000_000)


def nearest(number: Fraction) -> int:
    """Round to the nearest integer, halves away from zero: FFmpeg's ``near``, not Python's ``round``."""
    magnitude = math.floor(abs(number) + Fraction(1, 2))
    return magnitude if number > 0 else -magnitude


def leap(path: Path, seconds: float) -> ExtractionError:
    return ExtractionError(
        Reason.UNDECODABLE, f"{path}: its time stamps leap to {seconds:.0f} s; a clip may last {LONGEST} s"
    )
