"""A feature folder on disk, made from seeds without any extractor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from shard_cases import digest

from triptych.extractors.audio.columns import audio_columns
from triptych.extractors.base import Features
from triptych.extractors.stage import text_columns
from triptych.extractors.vision.columns import VISION_COLUMNS
from triptych.pipeline.manifest.clips import Clip, Manifest
from triptych.pipeline.manifest.writing import write_manifest
from triptych.pipeline.storage.index import text_digest
from triptych.pipeline.storage.schema import ShardHeader, ShardItem
from triptych.pipeline.storage.shards import write_shard

RATES = {"text": float("nan"), "audio": 22050 / 512, "vision": 30.0}
COLUMNS = {"text": text_columns(768), "audio": audio_columns(), "vision": VISION_COLUMNS}


def make_rows(stage: str, count: int, seed: int) -> Features:
    random = np.random.default_rng(seed)
    names, units = zip(*COLUMNS[stage], strict=True)
    values = random.standard_normal((count, len(names)), dtype=np.float32)
    valid = random.random(count) < 0.9 if stage == "vision" else np.ones(count, bool)
    valid[-1:] = True
    values[~valid] = 0
    extras = {
        "text": {
            "tokens": np.array(["[CLS]", *"字" * (count - 2), "[SEP]"][:count], object),
            "input_ids": np.array([101, *random.integers(200, 900, count)], np.int32)[:count],
        },
        "audio": {"voiced": np.ones(count, bool)},
        "vision": {"confidence": valid.astype(np.float32)},
    }
    times = np.full(count, np.nan) if stage == "text" else np.arange(count) / RATES[stage]
    return Features(values, names, units, times, valid, extras[stage])


def make_folder(
    folder: Path,
    splits: dict[str, int],
    lengths: tuple[int, int, int] = (8, 30, 20),
    missing: dict[str, list[int]] | None = None,
    group: int = 16,
    wordy: str | None = None,
) -> list[Clip]:
    """Write a feature folder whose clips have about this many rows.

    `missing` gives, by stage, the numbers of the clips without it; texts of the split `wordy` are twice as long.
    """
    random = np.random.default_rng(0)
    clips = []
    for split, count in splits.items():
        for _ in range(count):
            k = len(clips)
            labels = [float(round(x, 1)) for x in random.integers(-5, 6, 4) / 5]
            clips.append(
                Clip(
                    f"v_{k:04d}$_$0001", f"v_{k:04d}/0001.mp4", f"第{k}句，好。", split, *labels, str(folder)
                )
            )
    fingerprints = {stage: digest((stage, "synthetic")) for stage in COLUMNS}
    for stage, about in zip(COLUMNS, lengths, strict=True):
        counts = random.integers(max(2, about // 2), about * 3 // 2 + 1, len(clips))
        if stage == "text":
            counts *= np.array([2 if clip.split == wordy else 1 for clip in clips])
        present = [k for k in range(len(clips)) if k not in (missing or {}).get(stage, ())]
        for start in range(0, len(present), group):
            items = [
                ShardItem(
                    clips[k].id,
                    text_digest(clips[k].text) if stage == "text" else digest(k),
                    make_rows(stage, counts[k], k),
                )
                for k in present[start : start + group]
            ]
            extra = {"backend": "facemesh"} if stage == "vision" else {}
            header = ShardHeader(stage, fingerprints[stage], "{}", {"triptych": "0"}, RATES[stage], extra)
            write_shard(folder / stage, header, items)
    write_manifest(Manifest(tuple(clips)), folder / "manifest.csv")
    recipe = {"text": {}, "vision": {"backend": "facemesh"}}
    (folder / "recipe.json").write_text(json.dumps({"recipe": recipe, "fingerprints": fingerprints}))
    return clips
