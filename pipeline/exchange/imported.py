"""An MMSA pickle as a feature folder, so that published features can be trained on here.

Nothing is invented that the file does not hold: columns are numbered, rows have no times, and the folder's
recipe names only the file. Clips cannot be extracted into such a folder, and a model trained on it refuses
features from any other source.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import Features, Reason, package_version
from triptych.extractors.stage import unnamed_columns
from triptych.pipeline.atomic import write_whole
from triptych.pipeline.errors import InputError
from triptych.pipeline.exchange.layout import LABEL_KEYS, checked, numbers
from triptych.pipeline.exchange.mmsa import UNKNOWN_TOKEN
from triptych.pipeline.exchange.pickles import load_arrays
from triptych.pipeline.manifest.clips import Clip, Manifest
from triptych.pipeline.manifest.label_range import LabelRange, guessed
from triptych.pipeline.manifest.writing import write_manifest
from triptych.pipeline.stages.stored import STORED, stored_recipe
from triptych.pipeline.storage.index import text_digest
from triptych.pipeline.storage.ledger import LedgerLine, LedgerWriter
from triptych.pipeline.storage.schema import IMPORTED, ShardHeader, ShardItem
from triptych.pipeline.storage.shards import write_shard
from triptych.pipeline.storage.streams import MODALITIES

CODE = 1  # increased whenever the same file would give other rows
GROUP = 64  # clips in a shard


@dataclass(frozen=True)
class Imported:
    """What was imported: clips by split, columns by modality, and notes for the user."""

    clips: dict[str, int]
    widths: dict[str, int]
    notes: tuple[str, ...]


def import_mmsa(file: Path, folder: Path, label_range: LabelRange | None = None) -> Imported:
    """Make a feature folder of a pickle in MMSA's layout, such as the released ``unaligned_39.pkl``.

    ``audio_lengths``, ``vision_lengths`` and the mask of ``text_bert`` give the number of a clip's rows;
    without them, the rows end with the last one that is not zero. Rows beyond a given length that are not zero
    are imported too. Zeros before the first row, instead of after the last, are padding as well. A vision row
    of zeros counts as a frame without a face. ``input_ids`` come from ``text_bert`` and are -1 without it; the
    ``tokens`` are empty, as the file does not hold them.

    Parameters
    ----------
    file
        Read by `pickles.load_arrays`, which executes nothing in it.
    folder
        A new folder, or one that was imported from the same file.
    label_range
        Lowest and highest possible label; by default -1 to 1, or -3 to 3 if the labels need it.

    Raises
    ------
    InputError
        The file has another layout (every problem is listed), or the folder holds other features.
    """
    origin = _origin(file)
    prints = {stage: _fingerprint(stage, origin) for stage in MODALITIES}
    stored = stored_recipe(folder) if folder.is_dir() else None
    if (stored and stored["fingerprints"] != prints) or folder.is_file():
        raise InputError(f"{folder}: already holds other features; pass a new folder to -o")
    data = load_arrays(file)
    notes: Counter[str] = Counter()
    splits = checked(file, data)
    clips = _clips(file, splits, label_range)
    missing = [
        line
        for modality in MODALITIES
        for line in _write(folder, modality, splits, prints[modality], origin, notes)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(clips, folder / "manifest.csv")
    if missing and stored is None:
        with LedgerWriter(folder) as ledger:
            for line in missing:
                ledger.write(line)
    recipe = {"imported": origin, "vision": {"backend": IMPORTED}}
    document = {"recipe": recipe, "fingerprints": prints}
    write_whole(folder / STORED, json.dumps(document, indent=2, ensure_ascii=False).encode())
    return Imported(
        {name: len(part["id"]) for name, part in splits.items()},
        {modality: splits["train"][modality].shape[2] for modality in MODALITIES},
        tuple(f"{count} {note}" for note, count in sorted(notes.items())),
    )


def _origin(file: Path) -> dict[str, str]:
    try:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error})") from error
    return {"file": file.name, "sha256": digest}


def _fingerprint(stage: str, origin: Mapping[str, str]) -> str:
    content = {"imported": origin["sha256"], "stage": stage, "code": CODE}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _write(
    folder: Path,
    modality: str,
    splits: Mapping[str, Mapping[str, Any]],
    fingerprint: str,
    origin: Mapping[str, str],
    notes: Counter[str],
) -> list[LedgerLine]:
    """Write a modality's shards; the ledger lines of the clips that have no rows of it."""
    clips = sorted(
        (identity, name, row) for name, part in splits.items() for row, identity in enumerate(part["id"])
    )
    lengths = {name: _lengths(modality, part) for name, part in splits.items()}
    header = _header(modality, fingerprint, origin)
    missing = []
    for start in range(0, len(clips), GROUP):
        items = []
        for identity, name, row in clips[start : start + GROUP]:
            features = _features(modality, splits[name], row, lengths[name][row], notes)
            digest = text_digest(splits[name]["raw_text"][row]) if modality == "text" else origin["sha256"]
            if features is not None:
                items.append(ShardItem(identity, digest, features))
            else:
                detail = f"all values in {origin['file']} are zero"
                missing.append(
                    LedgerLine(
                        identity, modality, "failed", Reason.NOT_IN_FILE, detail, 0.0, fingerprint, digest
                    )
                )
        if items:
            write_shard(folder / modality, header, items)
    return missing


def _header(stage: str, fingerprint: str, origin: Mapping[str, str]) -> ShardHeader:
    software = {"triptych": package_version("triptych") or "", "numpy": np.__version__}
    recipe = json.dumps({"imported": dict(origin)}, ensure_ascii=False)
    return ShardHeader(stage, fingerprint, recipe, software, float("nan"), {"backend": IMPORTED})


# -- clips and their rows -------------------------------------------------------------------------------


def _clips(file: Path, splits: Mapping[str, Mapping[str, Any]], label_range: LabelRange | None) -> Manifest:
    clips = []
    found: list[float] = []
    for split, part in splits.items():
        labels = {
            label: numbers(part[f"regression_labels{suffix}"])
            if f"regression_labels{suffix}" in part
            else np.full(len(part["id"]), np.nan)
            for label, suffix in LABEL_KEYS.items()
        }
        found += [float(value) for values in labels.values() for value in values if np.isfinite(value)]
        for row, (identity, text) in enumerate(zip(part["id"], part["raw_text"], strict=True)):
            # Shortest decimal of the float32 value: 0.1 then equals the class edge 0.1.
            own: dict[str, Any] = {
                name: float(str(np.float32(values[row]))) for name, values in labels.items()
            }
            path = f"{identity.replace('$_$', '/')}.mp4"  # as in CH-SIMS; the file may be missing
            clips.append(Clip(id=identity, path=path, text=text or None, split=split, **own, root="."))
    low, high = label_range or guessed(found)
    lowest, highest = min(found, default=low), max(found, default=high)
    if not low - 1e-6 <= lowest <= highest <= high + 1e-6:
        raise InputError(
            f"{file}: labels from {lowest:g} to {highest:g}, outside [{low:g}, {high:g}]; name their range by "
            "--label-range LOW HIGH"
        )
    return Manifest(tuple(clips), (low, high))


def _lengths(modality: str, part: Mapping[str, Any]) -> Sequence[int]:
    stated = f"{modality}_lengths"
    tokens = np.asarray(part.get("text_bert", ()))
    aligned = stated not in part and tokens.shape[2:] == part[modality].shape[1:2]
    if (
        modality == "text" or aligned
    ):  # a row of audio for each token: rows of zeros, as that of [CLS], count too
        masks = np.asarray(part["text_bert"])[:, 1] if "text_bert" in part else np.zeros((len(part["id"]), 0))
        return [int(mask.sum()) for mask in masks]
    return [int(length) for length in part.get(stated, [0] * len(part["id"]))]


def _extent(nonzero: NDArray[np.bool_], stated: int) -> slice:
    """The clip's rows: every row that is not zero, and as many as the file states (0: it states none)."""
    filled, total = np.flatnonzero(nonzero), len(nonzero)
    if not len(filled):
        return slice(0)
    length = min(stated, total)
    if filled[0] > 0 and filled[-1] == total - 1 and (not stated or filled[0] >= total - length):
        return slice(total - length if stated else int(filled[0]), total)  # padded in front
    return slice(max(length, int(filled[-1]) + 1))


def _features(
    modality: str, part: Mapping[str, Any], row: int, stated: int, notes: Counter[str]
) -> Features | None:
    values = np.asarray(part[modality][row], dtype=np.float32)
    if not np.isfinite(values).all():
        notes[f"clips with {modality} values that are not finite: replaced by 0"] += 1
        values = np.nan_to_num(values, nan=0, posinf=0, neginf=0)
    rows = _extent(np.asarray(values.any(axis=1)), stated)
    if rows.stop == 0:
        notes[f"clips without {modality}: all values are zero"] += 1
        return None
    names, units = zip(*unnamed_columns(modality, values.shape[1]), strict=True)
    values = np.ascontiguousarray(values[rows])
    count = len(values)
    has_face = np.asarray(values.any(axis=1))
    ids = np.full(count, UNKNOWN_TOKEN, np.int32)
    if modality == "text" and "text_bert" in part:
        stored_ids = np.asarray(part["text_bert"][row][0])[rows]
        ids[: len(stored_ids)] = stored_ids
    extras: dict[str, dict[str, NDArray[Any]]] = {
        "text": {"tokens": np.full(count, "", dtype=object), "input_ids": ids},
        "audio": {"voiced": np.ones(count, dtype=bool)},
        "vision": {"confidence": has_face.astype(np.float32)},
    }
    return Features(
        values=values,
        columns=names,
        units=units,
        times=np.full(count, np.nan),
        valid=has_face if modality == "vision" else np.ones(count, dtype=bool),
        extras=extras[modality],
    )
