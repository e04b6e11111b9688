"""What a pickle in MMSA's layout must hold; a file that does not is refused with every problem listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.pipeline.errors import InputError
from triptych.pipeline.escaped import has_control, quoted
from triptych.pipeline.manifest.clips import SPLITS
from triptych.pipeline.manifest.columns import LABELS
from triptych.pipeline.storage.streams import MODALITIES

_LENGTHS = ("audio_lengths", "vision_lengths")
LABEL_KEYS = dict(zip(LABELS, ("", "_T", "_A", "_V"), strict=True))  # suffixes of "regression_labels"


def checked(file: Path, data: Any) -> dict[str, dict[str, Any]]:
    """Check the three splits of a loaded pickle, and make ids and texts plain text.

    Parameters
    ----------
    file
        The pickle, named in messages.
    data
        Its content.

    Returns
    -------
    dict
        Each split, with arrays of the shapes that MMSA reads.

    Raises
    ------
    InputError
        The content has another layout; every problem is listed.
    """
    if not isinstance(data, dict) or not all(isinstance(data.get(name), dict) for name in SPLITS):
        found = (
            f"a dict of {', '.join(map(str, data))}"[:200] if isinstance(data, dict) else type(data).__name__
        )
        raise InputError(
            f"{file}: expected MMSA's layout, a dict of train, valid and test; the file holds {found}"
        )
    problems = []
    splits: dict[str, dict[str, Any]] = {}
    for name in SPLITS:
        part = splits[name] = dict(data[name])
        where = f"{file}: {name}"
        if "regression_labels" not in part and "labels" in part:  # as MulT's files name them
            part["regression_labels"] = part["labels"]
        missing = [key for key in ("id", "regression_labels", *MODALITIES) if key not in part]
        if missing:
            problems.append(f"{where} has no {', '.join(missing)}")
            continue
        part["id"] = [_id(identity) for identity in part["id"]]
        texts = part.get("raw_text", [""] * len(part["id"]))
        part["raw_text"] = [_text(text).replace("\0", " ").strip() for text in texts]
        _even(part)
        problems += [f"{where}: {problem}" for problem in _problems(part)]
    if not problems:
        problems += [
            f"{file}: {modality} has {' and '.join(map(str, sorted(widths)))} columns in different splits"
            for modality in MODALITIES
            if len(widths := {part[modality].shape[2] for part in splits.values()}) > 1
        ]
        ids = Counter(identity for part in splits.values() for identity in part["id"])
        problems += [
            f"{file}: id {quoted(identity)} is used {count} times"
            for identity, count in ids.items()
            if count > 1
        ]
        problems += [
            f"{file}: id {quoted(identity)}: an id must not be empty or contain '/' or control characters"
            for identity in ids
            if not identity or "/" in identity or has_control(identity)
        ]
    if problems:
        raise InputError(problems)
    return splits


def _text(value: Any) -> str:
    """Return text that may have been stored as bytes, by Python 2 too, of which each byte is one character."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    text = str(value)
    try:
        return text.encode("latin1").decode("utf-8")
    except UnicodeError:
        return text


def _id(value: Any) -> str:
    """Return a clip's id: text, or its parts (video, start, end), joined; ``/`` between video and clip is ``$_$``."""
    if isinstance(value, np.ndarray | list | tuple) and np.size(value) > 1:
        video, *rest = (_text(part) for part in np.ravel(np.asarray(value, dtype=object)))
        return f"{video}$_${'_'.join(rest)}"
    text = _text(value[0] if isinstance(value, list | tuple) and value else value)
    return text if "$_$" in text else text.replace("/", "$_$", 1)


def _even(part: dict[str, Any]) -> None:
    """Give labels, lengths and rows the shapes that MMSA reads, where that loses nothing.

    Labels and lengths may have further axes of length 1. Rows may be a list of arrays of different lengths: they are
    padded with zeros, and their lengths noted.
    """
    count = len(part["id"])
    for key in (*(f"regression_labels{suffix}" for suffix in LABEL_KEYS.values()), *_LENGTHS):
        if key in part and (values := numbers(part[key])).size == count:
            part[key] = values.reshape(count)
    for modality in MODALITIES:
        rows = part[modality]
        is_ragged = isinstance(rows, list | tuple) or (isinstance(rows, np.ndarray) and rows.dtype == object)
        if not is_ragged:
            continue
        arrays = [numbers(one) for one in rows]
        if len(arrays) != count or any(
            one.ndim != 2 or one.shape[1:] != arrays[0].shape[1:] for one in arrays
        ):
            continue  # reported by `_problems`
        padded = np.zeros((count, max(map(len, arrays)), arrays[0].shape[1]))
        for index, one in enumerate(arrays):
            padded[index, : len(one)] = one
        part[modality] = padded
        if f"{modality}_lengths" in _LENGTHS:
            part.setdefault(f"{modality}_lengths", [len(one) for one in arrays])


def _problems(part: Mapping[str, Any]) -> list[str]:
    count = len(part["id"])
    problems = []
    for modality in MODALITIES:
        values = part[modality]
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu" or values.ndim != 3:
            problems.append(f"{modality} is not an array of numbers of three dimensions")
        elif len(values) != count or 0 in values.shape:
            problems.append(f"{modality} has shape {values.shape} for {count} ids")
    for key in ("raw_text", "audio_lengths", "vision_lengths"):
        if key in part and len(part[key]) != count:
            problems.append(f"{key} has {len(part[key])} entries for {count} ids")
    for suffix in LABEL_KEYS.values():
        key = f"regression_labels{suffix}"
        if key in part and numbers(part[key]).shape != (count,):
            problems.append(f"{key} is not {count} numbers")
    if "text_bert" in part and np.shape(part["text_bert"])[:2] != (count, 3):
        problems.append(f"text_bert has shape {np.shape(part['text_bert'])}, not ({count}, 3, L)")
    return problems


def numbers(values: Any) -> NDArray[np.float64]:
    """Convert to an array of numbers; what cannot be converted gives an array of shape (0, 0)."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return np.empty((0, 0))
