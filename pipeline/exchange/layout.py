"""What a pickle in MMSA's layout must hold, and what is wrong with one that does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import SPLITS
from triptych.pipeline.manifest.csv_text import LABELS
from triptych.pipeline.trainer.settings import MODALITIES

LABEL_KEYS = dict(zip(LABELS, ("", "_T", "_A", "_V"), strict=True))  # behind "regression_labels"


def checked(file: Path, data: Any) -> dict[str, dict[str, Any]]:
    """The three splits, with arrays of the shapes that MMSA reads; every mistake at once."""
    if not isinstance(data, dict) or not all(isinstance(data.get(name), dict) for name in SPLITS):
        found = (
            f"a dict of {', '.join(map(str, data))}"[:200] if isinstance(data, dict) else type(data).__name__
        )
        raise InputError(f"{file}: MMSA's pickles are a dict of train, valid and test; this is {found}")
    mistakes = []
    splits: dict[str, dict[str, Any]] = {}
    for name in SPLITS:
        part = splits[name] = dict(data[name])
        where = f"{file}: {name}"
        lacking = [key for key in ("id", "regression_labels", *MODALITIES) if key not in part]
        if lacking:
            mistakes.append(f"{where} has no {', '.join(lacking)}")
            continue
        part["id"] = [str(identity) for identity in part["id"]]
        texts = part.get("raw_text", [""] * len(part["id"]))
        part["raw_text"] = [str(text).replace("\0", " ").strip() for text in texts]
        mistakes += [f"{where}: {problem}" for problem in _problems(part)]
    if not mistakes:
        mistakes += [
            f"{file}: {modality} has {' and '.join(map(str, sorted(widths)))} columns in different splits"
            for modality in MODALITIES
            if len(widths := {part[modality].shape[2] for part in splits.values()}) > 1
        ]
        ids = Counter(identity for part in splits.values() for identity in part["id"])
        mistakes += [f"{file}: id {identity!r} stands there twice" for identity, n in ids.items() if n > 1]
        mistakes += [
            f"{file}: id {i!r}: empty, or with a '/' or NUL" for i in ids if not i or set(i) & {"/", "\0"}
        ]
    if mistakes:
        raise InputError(mistakes)
    return splits


def _problems(part: Mapping[str, Any]) -> list[str]:
    count = len(part["id"])
    problems = []
    for modality in MODALITIES:
        values = part[modality]
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu" or values.ndim != 3:
            problems.append(f"{modality} is no array of numbers of three dimensions")
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
    """An array of numbers; one of no useful shape where it is none."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return np.empty((0, 0))
