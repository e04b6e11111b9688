"""The columns of tables of clips that are read."""

from __future__ import annotations

LABELS = ("label", "label_T", "label_A", "label_V")
# Numbers, and texts, that most clips do not have.
NUMBERS = ("start", "end", "text_confidence")
DETAILS = ("start", "end", "face", "text_source", "text_confidence")
COLUMNS = ("id", "path", "text", "split", *LABELS, "label_range", "root", "video_id", "clip_id", *DETAILS)
_NAMES = {name.lower(): name for name in COLUMNS} | {"mode": "split"}


def column_name(cell: str) -> str:
    """Return the column that a cell of the header names, in upper or lower case; other names unchanged."""
    name = cell.strip()
    return _NAMES.get(name.lower(), name)
