"""Synthetic clips of CH-SIMS' shape: what the benches of store and trainer read.

Lengths are drawn, not CH-SIMS' own: seconds from a gamma distribution of mean 3.67 and deviation 1.88, cut to
1 to 10 (the paper's average and range; the deviation makes mean + 3 std of the audio rows 400); audio rows at
22,050 / 512 Hz, vision rows at 6 Hz (30 Hz averaged over 5), about 4.2 tokens a second and [CLS] and [SEP]; at
most 39, 400 and 55 rows. Values are noise, moved a little by the labels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.audio.columns import audio_columns
from triptych.extractors.base import Features
from triptych.extractors.stage import text_columns
from triptych.extractors.vision.columns import VISION_COLUMNS
from triptych.pipeline.manifest.clips import Clip, Manifest
from triptych.pipeline.manifest.writing import write_manifest
from triptych.pipeline.storage.index import text_digest
from triptych.pipeline.storage.schema import ShardHeader, ShardItem
from triptych.pipeline.storage.shards import write_shard

SPLITS = {"train": 1368, "valid": 456, "test": 457}
STAGES = {
    "text": (39, text_columns(768), float("nan")),
    "audio": (400, audio_columns(), 22050 / 512),
    "vision": (55, VISION_COLUMNS, 6.0),
}
GROUP = 64


def make_clips(splits: dict[str, int] | None = None) -> list[Clip]:
    """Clips with CH-SIMS' eleven levels of labels; no videos belong to them."""
    random = np.random.default_rng(0)
    clips = []
    for split, count in (splits or SPLITS).items():
        for _ in range(count):
            unimodal = random.integers(-5, 6, 3) / 5
            labels = [round(float(unimodal.mean()) * 5) / 5, *(float(label) for label in unimodal)]
            video, clip = divmod(len(clips), 38)
            text = f"第{len(clips)}句。"
            clips.append(
                Clip(
                    f"video_{video:04d}$_${clip:04d}",
                    f"{video:04d}/{clip:04d}.mp4",
                    text,
                    split,
                    *labels,
                    "/nowhere",
                )
            )
    return clips


def make_rows(clips: list[Clip]) -> Iterator[dict[str, Features]]:
    """Every clip's three stages, one clip after the other."""
    random = np.random.default_rng(1)
    for clip in clips:
        seconds = np.clip(random.gamma((3.67 / 1.88) ** 2, 1.88**2 / 3.67), 1, 10)
        tokens = seconds * 4.2 * random.uniform(0.7, 1.3) + 2
        counts = {"text": tokens, "audio": seconds * 22050 / 512, "vision": seconds * 6}
        labels = {"text": clip.label_T, "audio": clip.label_A, "vision": clip.label_V}
        rows = {}
        for stage, (longest, columns, rate) in STAGES.items():
            count = min(longest, max(2, int(counts[stage])))
            values = random.standard_normal((count, len(columns)), dtype=np.float32)
            values[:, -8:] += np.float32(labels[stage])
            rows[stage] = _features(stage, columns, rate, values)
        yield rows


def _features(stage: str, columns: tuple, rate: float, values: NDArray[np.float32]) -> Features:
    count = len(values)
    names, units = zip(*columns, strict=True)
    extras = {
        "text": {
            "tokens": np.full(count, "字", dtype=object),
            "input_ids": np.full(count, 2000, np.int32),
        },
        "audio": {"voiced": np.ones(count, bool)},
        "vision": {"confidence": np.ones(count, np.float32)},
    }
    times = np.full(count, np.nan) if stage == "text" else np.arange(count) / rate
    return Features(values, names, units, times, np.ones(count, bool), extras[stage])


def write_folder(folder: Path, clips: list[Clip], rows: list[dict[str, Features]]) -> None:
    """Write them as `triptych extract` would."""
    prints = {stage: text_digest(stage) for stage in STAGES}
    for stage, (_, _, rate) in STAGES.items():
        items = [
            ShardItem(clip.id, text_digest(clip.text or "" if stage == "text" else clip.id), found[stage])
            for clip, found in zip(clips, rows, strict=True)
        ]
        header = ShardHeader(stage, prints[stage], "{}", {}, rate)
        for start in range(0, len(items), GROUP):
            write_shard(folder / stage, header, items[start : start + GROUP])
    write_manifest(Manifest(tuple(clips)), folder / "manifest.csv")
    recipe = {"vision": {"backend": "synthetic"}}
    (folder / "recipe.json").write_text(json.dumps({"recipe": recipe, "fingerprints": prints}))
