"""An MMSA pickle as a feature folder, so that published features can be trained on here.

What such a file does not tell is not made up: columns have numbers for names, rows have no times, and the
folder's recipe says nothing but which file it came from. Clips cannot be extracted into it, and a model trained
on it refuses features that were made any other way.
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
from triptych.extractors.columns import unnamed_columns
from triptych.pipeline.atomic import write_whole
from triptych.pipeline.errors import InputError
from triptych.pipeline.exchange.layout import LABEL_KEYS, checked, numbers
from triptych.pipeline.exchange.mmsa import UNKNOWN_TOKEN
from triptych.pipeline.exchange.pickles import load_arrays
from triptych.pipeline.manifest.clips import Clip, Manifest, write_manifest
from triptych.pipeline.stages.recipe import STORED, stored_recipe
from triptych.pipeline.storage.index import text_digest
from triptych.pipeline.storage.ledger import LedgerLine, LedgerWriter
from triptych.pipeline.storage.schema import IMPORTED, ShardHeader, ShardItem
from triptych.pipeline.storage.shards import write_shard
from triptych.pipeline.trainer.settings import MODALITIES

CODE = 1  # raised whenever other rows come out of the same file
GROUP = 64


@dataclass(frozen=True)
class Imported:
    """What came in: clips by split, columns by modality, and what a user should know of it."""

    clips: dict[str, int]
    widths: dict[str, int]
    notes: tuple[str, ...]


def import_mmsa(file: Path, folder: Path, scale: float = 1.0) -> Imported:
    """Make a feature folder of a pickle in MMSA's layout, such as the released ``unaligned_39.pkl``.

    A clip's rows are the first ``audio_lengths`` and ``vision_lengths`` ones, those that the mask of
    ``text_bert`` counts, or, without these, all up to the last that is not zero; where lengths leave out rows
    that hold something, these are kept. Zeros in front instead of behind are padding too. A vision row of zeros
    shows no face. The text's ``input_ids`` are those of ``text_bert``, -1 without it; its tokens are not told.

    Parameters
    ----------
    file
        Read by `pickles.load_arrays`, which runs nothing that is in it.
    folder
        A new one, or one that was made of the same file.
    scale
        What labels are divided by: 3 for the [-3, 3] of MOSI and MOSEI.

    Raises
    ------
    InputError
        The file is not of that layout (every mistake), or the folder holds other features.
    """
    origin = _origin(file)
    prints = {stage: _fingerprint(stage, origin) for stage in MODALITIES}
    stored = stored_recipe(folder) if folder.is_dir() else None
    if (stored and stored["fingerprints"] != prints) or folder.is_file():
        raise InputError(f"{folder}: holds something else already; name a new folder after -o")
    data = load_arrays(file)
    notes: Counter[str] = Counter()
    splits = checked(file, data)
    clips = _clips(file, splits, scale)
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
    """Write a modality's shards; the ledger's lines of the clips that have nothing of it."""
    places = sorted(
        (identity, name, row) for name, part in splits.items() for row, identity in enumerate(part["id"])
    )
    lengths = {name: _lengths(modality, part) for name, part in splits.items()}
    header = _header(modality, fingerprint, origin)
    missing = []
    for start in range(0, len(places), GROUP):
        items = []
        for identity, name, row in places[start : start + GROUP]:
            features = _features(modality, splits[name], row, lengths[name][row], notes)
            digest = text_digest(splits[name]["raw_text"][row]) if modality == "text" else origin["sha256"]
            if features is not None:
                items.append(ShardItem(identity, digest, features))
            else:
                detail = f"nothing but zeros in {origin['file']}"
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


def _clips(file: Path, splits: Mapping[str, Mapping[str, Any]], scale: float) -> Manifest:
    clips = []
    widest = 0.0
    for name, part in splits.items():
        labels = {
            label: numbers(part[f"regression_labels{suffix}"]) / scale
            if f"regression_labels{suffix}" in part
            else np.full(len(part["id"]), np.nan)
            for label, suffix in LABEL_KEYS.items()
        }
        widest = max(widest, *(float(np.nanmax(np.abs(values), initial=0)) for values in labels.values()))
        for row, (identity, text) in enumerate(zip(part["id"], part["raw_text"], strict=True)):
            clips.append(
                Clip(
                    id=identity,
                    path=f"{identity.replace('$_$', '/')}.mp4",  # where CH-SIMS keeps it; it need not be there
                    text=text or None,
                    split=name,
                    # The shortest number that float32 cannot tell from it: 0.1 is then on the edge 0.1.
                    **{label: float(str(np.float32(values[row]))) for label, values in labels.items()},
                    root=".",
                )
            )
    if not widest <= 1 + 1e-6:
        raise InputError(
            f"{file}: labels reach {widest:g}, where [-1, 1] belongs; give --scale {np.ceil(widest):g} to "
            "divide them"
        )
    return Manifest(tuple(clips))


def _lengths(modality: str, part: Mapping[str, Any]) -> Sequence[int]:
    if modality == "text":
        masks = np.asarray(part["text_bert"])[:, 1] if "text_bert" in part else np.zeros((len(part["id"]), 0))
        return [int(mask.sum()) for mask in masks]
    return [int(length) for length in part.get(f"{modality}_lengths", [0] * len(part["id"]))]


def _extent(filled: NDArray[np.bool_], told: int) -> slice:
    """The clip's rows: all that hold something, and as many as the file tells (0 where it does not)."""
    places, total = np.flatnonzero(filled), len(filled)
    if not len(places):
        return slice(0)
    length = min(told, total)
    if places[0] > 0 and places[-1] == total - 1 and (not told or places[0] >= total - length):
        return slice(total - length if told else int(places[0]), total)  # padded in front
    return slice(max(length, int(places[-1]) + 1))


def _features(
    modality: str, part: Mapping[str, Any], row: int, told: int, notes: Counter[str]
) -> Features | None:
    values = np.asarray(part[modality][row], dtype=np.float32)
    if not np.isfinite(values).all():
        notes[f"clips with {modality} values that are not finite: they became 0"] += 1
        values = np.nan_to_num(values, nan=0, posinf=0, neginf=0)
    rows = _extent(values.any(axis=1), told)
    if rows.stop == 0:
        notes[f"clips without {modality}: nothing but zeros"] += 1
        return None
    names, units = zip(*unnamed_columns(modality, values.shape[1]), strict=True)
    kept = np.ascontiguousarray(values[rows])
    count = len(kept)
    shows = kept.any(axis=1)
    ids = np.full(count, UNKNOWN_TOKEN, np.int32)
    if modality == "text" and "text_bert" in part:
        pieces = np.asarray(part["text_bert"][row][0])[rows]
        ids[: len(pieces)] = pieces
    extras: dict[str, dict[str, NDArray[Any]]] = {
        "text": {"tokens": np.full(count, "", dtype=object), "input_ids": ids},
        "audio": {"voiced": np.ones(count, dtype=bool)},
        "vision": {"confidence": shows.astype(np.float32)},
    }
    return Features(
        values=kept,
        columns=names,
        units=units,
        times=np.full(count, np.nan),
        valid=shows if modality == "vision" else np.ones(count, dtype=bool),
        extras=extras[modality],
    )
