"""A feature folder in memory: Features of the usual widths, from which their labels can be predicted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from triptych.extractors.audio.columns import audio_columns
from triptych.extractors.base import Features
from triptych.extractors.stage import text_columns
from triptych.extractors.vision.columns import VISION_COLUMNS

STAGES = {"text": text_columns(768), "audio": audio_columns(), "vision": VISION_COLUMNS}
GRID = np.round(np.arange(-1, 1.01, 0.2), 1)  # CH-SIMS' eleven levels
NAN = float("nan")


@dataclass(frozen=True)
class SyntheticClip:
    id: str
    split: str | None
    label: float = NAN
    label_T: float = NAN
    label_A: float = NAN
    label_V: float = NAN


@dataclass(frozen=True)
class SyntheticManifest:
    clips: tuple[SyntheticClip, ...]
    label_range: tuple[float, float] = (-1.0, 1.0)


class SyntheticStore:
    """The part of a FeatureStore that the trainer reads."""

    def __init__(self, clips: Iterable[SyntheticClip], features: dict[str, dict[str, Features]]) -> None:
        self.manifest = SyntheticManifest(tuple(clips))
        self.features = features
        self.recipe: dict[str, Any] = {
            "fingerprints": {stage: f"{stage}0123456789abcdef" for stage in STAGES},
            "recipe": {"vision": {"backend": "facemesh"}},
        }

    def ids(self, stage: str) -> list[str]:
        return list(self.features[stage])

    def read(self, stage: str, clip_id: str) -> Features:
        return self.features[stage][clip_id]


def make_features(stage: str, values: np.ndarray, valid: np.ndarray | None = None, **extras: Any) -> Features:
    rows = len(values)
    names, units = zip(*STAGES[stage], strict=True)
    if stage == "audio":
        extras.setdefault("voiced", np.ones(rows, bool))
    return Features(
        values=values.astype(np.float32),
        columns=names,
        units=units,
        times=np.full(rows, np.nan) if stage == "text" else np.arange(rows) / 30,
        valid=np.ones(rows, bool) if valid is None else valid,
        extras=extras,
    )


def make_store(
    count: int = 48,
    seed: int = 0,
    split: tuple[int, int, int] | None = (6, 2, 2),
    tokens_about: int = 20,
    shorter: int = 1,
    levels: Sequence[float] = tuple(GRID),
) -> SyntheticStore:
    """Clips of about 20 tokens, 110 audio and 75 vision rows, each modality showing its own label.

    With ``shorter`` there are that many times fewer audio and vision rows. Labels are drawn from ``levels``.

    A positive text has more of one token, a negative one more of another; in audio and vision a few columns
    move with the label.
    """
    random = np.random.default_rng(seed)
    embeddings = random.normal(size=(40, 768))
    labels = random.choice(levels, size=(count, 3))
    whole = np.round(labels.mean(axis=1) * 5) / 5
    features: dict[str, dict[str, Features]] = {stage: {} for stage in STAGES}
    clips = []
    names = np.repeat(("train", "valid", "test"), split) if split else np.array([None])
    for i, (text, audio, vision) in enumerate(labels):
        clip_id = f"video_{i // 10:04d}$_${i % 10:04d}"
        clips.append(SyntheticClip(clip_id, names[i % len(names)], float(whole[i]), text, audio, vision))
        tokens = random.integers(2, 40, size=random.integers(0.7 * tokens_about, 1.3 * tokens_about + 1))
        shows = random.random(len(tokens)) < 0.5
        tokens[shows] = (random.random(shows.sum()) < (1 + text) / 2).astype(int)
        features["text"][clip_id] = make_features(
            "text", embeddings[tokens] + 0.1 * random.normal(size=(len(tokens), 768))
        )
        rows = random.normal(size=(random.integers(90, 131) // shorter, 33)) + random.normal(size=33) * 0.3
        rows[:, :6] += audio
        features["audio"][clip_id] = make_features("audio", rows)
        rows = random.normal(size=(random.integers(60, 91) // shorter, 709)) + random.normal(size=709) * 0.3
        rows[:, -35:-20] += vision
        features["vision"][clip_id] = make_features("vision", rows)
    return SyntheticStore(clips, features)


def without(store: SyntheticStore, **removed: Iterable[int]) -> SyntheticStore:
    """Remove modalities from clips: `without(store, text=[0])`."""
    features = {stage: dict(by_clip) for stage, by_clip in store.features.items()}
    for stage, indices in removed.items():
        for index in indices:
            del features[stage][store.manifest.clips[index].id]
    return SyntheticStore(store.manifest.clips, features)


def relabelled(store: SyntheticStore, **labels: float) -> SyntheticStore:
    """Give every clip these labels."""
    return SyntheticStore([replace(clip, **labels) for clip in store.manifest.clips], store.features)
