"""The script of each demonstration clip: its sentence, the acted sentiment, and its labels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triptych.pipeline.demo.sentences import write_sentence

GRID = (-1.0, -0.8, -0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # CH-SIMS' labels
CLIPS_PER_VIDEO = 6
_EDITION = "1"  # changed whenever the same script gives another video, audio or ground truth

_SHARED = 0.6  # correlation of each modality's sentiment with their common component
_ACTED = (0.06, 0.2, 0.2)  # standard deviation of the acted sentiment around the label: text, audio, vision
_WEIGHTS = (0.4, 0.3, 0.3)  # weights of text, audio and vision in the multimodal label
_STRETCH = 1.25  # factor on their weighted mean, which alone is too close to zero


@dataclass(frozen=True)
class Script:
    """One clip before it is made.

    Attributes
    ----------
    video_id, clip_id
        As in CH-SIMS; text, with leading zeros.
    text
        The sentence.
    label, label_T, label_A, label_V
        Sentiment of the whole clip, the sentence, the voice and the face, on CH-SIMS' grid.
    mode
        train, valid or test.
    voice, face
        The sentiment that is acted: the label plus a little noise.
    seed
        Seed of the random numbers that make the clip.
    """

    video_id: str
    clip_id: str
    text: str
    label: float
    label_T: float
    label_A: float
    label_V: float
    mode: str
    voice: float
    face: float
    seed: tuple[int, ...]

    @property
    def annotation(self) -> str:
        """CH-SIMS' annotation of the multimodal label."""
        return "Neutral" if self.label == 0 else "Positive" if self.label > 0 else "Negative"

    @property
    def digest(self) -> str:
        """Hash that changes whenever the clip would change."""
        return hashlib.sha256(repr((_EDITION, self)).encode()).hexdigest()


def write_scripts(count: int, seed: int) -> list[Script]:
    """Draw the scripts of all clips: labels that differ by modality, evenly spread, in stratified splits.

    Raises
    ------
    ValueError
        `count` is less than 1.
    """
    if count < 1:
        raise ValueError(f"count of clips is {count}; at least 1 is needed")
    rng = np.random.default_rng((seed, 0))
    shared = rng.normal(size=count)
    text, audio, vision = (
        _even_grid(_SHARED * shared + np.sqrt(1 - _SHARED**2) * rng.normal(size=count)) for _ in range(3)
    )
    mixture = _STRETCH * (_WEIGHTS[0] * text + _WEIGHTS[1] * audio + _WEIGHTS[2] * vision)
    whole = np.clip(np.round(mixture * 5) / 5, -1, 1) + 0.0  # + 0 turns -0 into 0
    modes = _modes(whole, rng)
    acted = np.clip(
        np.stack([text, audio, vision]) + rng.normal(size=(3, count)) * np.array(_ACTED)[:, None], -1, 1
    )
    return [
        Script(
            video_id=f"demo_{index // CLIPS_PER_VIDEO + 1:04d}",
            clip_id=f"{index % CLIPS_PER_VIDEO + 1:04d}",
            text=write_sentence(float(acted[0, index]), rng),
            label=float(whole[index]),
            label_T=float(text[index]),
            label_A=float(audio[index]),
            label_V=float(vision[index]),
            mode=modes[index],
            voice=round(float(acted[1, index]), 6),
            face=round(float(acted[2, index]), 6),
            seed=(seed, index + 1),
        )
        for index in range(count)
    ]


def _even_grid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values' ranks, mapped evenly to the grid."""
    ranks = values.argsort().argsort()
    return np.take(GRID, ranks * len(GRID) // len(values))


def _modes(labels: NDArray[np.float64], rng: np.random.Generator) -> list[str]:
    """Three train, one valid and one test among each five clips of neighbouring labels."""
    order = np.lexsort((rng.random(len(labels)), labels))
    modes = [""] * len(labels)
    for start in range(0, len(labels), 5):
        five = rng.permutation(["train", "train", "train", "valid", "test"])
        for index, mode in zip(order[start : start + 5], five, strict=False):
            modes[index] = str(mode)
    return modes
