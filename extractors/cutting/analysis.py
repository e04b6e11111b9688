"""What a recording is divided by: where somebody speaks, where shots begin, and all faces with their mouths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import Features
from triptych.extractors.cutting.energy import ENERGY_RATE
from triptych.extractors.cutting.scenes import read_scenes
from triptych.extractors.cutting.tracks import Track
from triptych.extractors.cutting.voice import RATE


@dataclass(frozen=True)
class Analysis:
    """What is known of a recording.

    Attributes
    ----------
    duration
        Length [s]: the later of the ends of frames and sound.
    frame_size
        Width and height, upright, in square pixels; zeros without frames.
    speech
        float32: probability of speech, `voice.RATE` values a second.
    energy
        float32: energy of speech, `energy.ENERGY_RATE` values a second.
    transitions
        float64, shape (N, 2): where shots end and begin [s]; equal at a hard cut.
    tracks
        All faces.
    """

    duration: float
    frame_size: tuple[int, int]
    speech: NDArray[np.float32]
    energy: NDArray[np.float32]
    transitions: NDArray[np.float64]
    tracks: tuple[Track, ...]

    @classmethod
    def of(cls, voice: Features | None, scenes: Features | None) -> Analysis:
        """Read the rows of the stages `voice` and `scenes`; None for a recording without sound, or without frames."""
        speech = np.zeros(0, np.float32) if voice is None else voice.values[:, 0]
        energy = np.zeros(0, np.float32) if voice is None else voice.values[:, 1:].reshape(-1)
        size, end, transitions, tracks = read_scenes(scenes)
        duration = max(end, len(speech) / RATE, len(energy) / ENERGY_RATE)
        return cls(duration, size, speech, energy, transitions, tracks)
