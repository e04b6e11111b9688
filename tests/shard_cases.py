"""Features of every stage, made from seeds, for the tests of shards, index and store."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from triptych.extractors.audio.columns import audio_columns
from triptych.extractors.base import Features
from triptych.extractors.faces.columns import FACE_COLUMNS
from triptych.extractors.stage import text_columns
from triptych.extractors.vision.columns import VISION_COLUMNS
from triptych.pipeline.storage.schema import ShardHeader, ShardItem

COLUMNS = {
    "text": text_columns(12),
    "audio": audio_columns(),
    "faces": FACE_COLUMNS,
    "vision": VISION_COLUMNS,
}
STAGES = tuple(COLUMNS)


def digest(word):
    return hashlib.sha256(str(word).encode()).hexdigest()


def make_header(stage, settings=0):
    rate = {"text": np.nan, "audio": 22050 / 512}.get(stage, 30.0)
    extra = {"backend": "facemesh", "average": 1} if stage == "vision" else {}
    recipe = json.dumps({"settings": settings})
    return ShardHeader(
        stage, digest((stage, settings)), recipe, {"triptych": "0.1.0", "模型": "bert"}, rate, extra
    )


def make_features(stage, rows, seed=0):
    rng = np.random.default_rng(seed)
    names, units = zip(*COLUMNS[stage], strict=True)
    extras = {
        "text": lambda: {
            "tokens": np.array(
                [rng.choice(["[CLS]", "我", "不", "##情", "😀", "é"]) for _ in range(rows)], object
            ),
            "input_ids": rng.integers(0, 21128, rows, dtype=np.int32),
        },
        "audio": lambda: {"voiced": rng.random(rows) < 0.5},
        "faces": lambda: {"n_faces": rng.integers(0, 9, rows, dtype=np.int16)},
        "vision": lambda: {"confidence": rng.random(rows, dtype=np.float32)},
    }[stage]()
    times = np.full(rows, np.nan) if stage == "text" else np.arange(rows) / 30
    values = rng.standard_normal((rows, len(names)), dtype=np.float32)
    return Features(values, names, units, times, rng.random(rows) < 0.9, extras)


def make_items(stage, lengths, first=0):
    return [
        ShardItem(f"video_{k:04d}$_$00{k}", digest(k), make_features(stage, rows, seed=k))
        for k, rows in enumerate(lengths, start=first)
    ]


def assert_same(found, expected):
    assert (found.columns, found.units) == (expected.columns, expected.units)
    assert set(found.extras) == set(expected.extras)
    for name in ("values", "times", "valid"):
        left, right = getattr(found, name), getattr(expected, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    for name, right in expected.extras.items():
        np.testing.assert_array_equal(found.extras[name], right)
        assert right.dtype.kind in "UO" or found.extras[name].dtype == right.dtype
