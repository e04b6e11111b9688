"""The range of a data set's labels, such as -1 to 1 (CH-SIMS) or -3 to 3 (MOSI, MOSEI)."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Sequence
from typing import TypeGuard

from triptych.pipeline.escaped import quoted
from triptych.pipeline.manifest.columns import LABELS
from triptych.pipeline.manifest.rows import Row

logger = logging.getLogger(__name__)

LabelRange = tuple[float, float]
DEFAULT: LabelRange = (-1.0, 1.0)
WIDE: LabelRange = (-3.0, 3.0)  # of MOSI and MOSEI; guessed where labels need it
LEAST = 5  # labels beyond the default range, for a guess


def parse_range(text: str) -> LabelRange | None:
    """Read ``-3 3``; None where these are not two rising numbers."""
    parts = re.split(r"[\s,:;]+", text.strip())
    try:
        low, high = map(float, parts)
    except ValueError:
        return None
    return (low, high) if is_range(low, high) else None


def is_range(low: float, high: float) -> bool:
    """Return whether two numbers are a range."""
    return math.isfinite(low) and math.isfinite(high) and low < high


def format_range(label_range: LabelRange) -> str:
    """Write a range as ``-3 3``, for a cell of a manifest."""
    return f"{label_range[0]:g} {label_range[1]:g}"


def find_range(rows: Iterable[Row], given: LabelRange | None, problems: list[str]) -> LabelRange:
    """Return the range of the labels: the one given, or the rows' own, or else one that the labels of each table fit.

    Parameters
    ----------
    given
        The user's; it comes before the column ``label_range``.
    """
    tables: dict[str, list[Row]] = {}
    for row in rows:
        tables.setdefault(row.origin.rpartition(":")[0], []).append(row)
    stated: dict[LabelRange, str] = {}
    unstated: dict[str, list[float]] = {}
    for table, of_table in tables.items():
        found = _stated(of_table, problems)
        stated |= {label_range: origin for label_range, origin in found.items() if label_range not in stated}
        labels = [
            float(value) for row in of_table for name in LABELS if _is_number(value := row.values.get(name))
        ]
        if labels and not found:
            unstated[table] = labels
    if given is not None:
        return given
    ranges = dict(stated)
    for table, labels in unstated.items():
        ranges.setdefault(guessed(labels), table)
    if len(ranges) > 1:
        (one, here), (other, there) = list(ranges.items())[:2]
        problems.append(
            f"{there}: label_range {format_range(other)} differs from {format_range(one)} at {here}; a manifest has "
            "one range: divide it, scale the labels, or name one range for all by --label-range LOW HIGH"
        )
    return next(iter(ranges), DEFAULT)


def _stated(rows: Iterable[Row], problems: list[str]) -> dict[LabelRange, str]:
    """Return the ranges in the column ``label_range``, each with the first row that has it."""
    stated: dict[LabelRange, str] = {}
    for row in rows:
        if (cell := row.values.get("label_range")) is not None:
            found = parse_range(cell) if isinstance(cell, str) else None
            if found is None:
                problems.append(
                    f"{row.origin}: label_range = {quoted(cell)}: expected two rising numbers, such as -3 3"
                )
            else:
                stated.setdefault(found, row.origin)
    return stated


def guessed(labels: Sequence[float]) -> LabelRange:
    """Return the range that labels without a stated one fit: the default, or -3 to 3, which is reported."""
    largest = max(map(abs, labels), default=0.0)
    beyond = sum(abs(label) > DEFAULT[1] for label in labels)
    # In MOSI and MOSEI every second label is beyond 1; a label or two are errors.
    if 2 <= largest <= WIDE[1] and beyond >= max(LEAST, len(labels) / 10):
        logger.warning(
            "labels up to %g are taken as labels from -3 to 3, as in MOSI; --label-range LOW HIGH names another range",
            largest,
        )
        return WIDE
    return DEFAULT


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
