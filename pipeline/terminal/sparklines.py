"""Curves in one line of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

LEVELS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float]) -> str:
    """Draw one character a value, from the lowest to the highest; a space where there is none (NaN).

    A curve without any change is drawn at half height.
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return " " * len(values)
    low, span = min(known), max(known) - min(known)

    def level(value: float) -> str:
        if not math.isfinite(value):
            return " "
        share = (value - low) / span if span > 0 else 0.5
        return LEVELS[min(int(share * len(LEVELS)), len(LEVELS) - 1)]

    return "".join(map(level, values))
