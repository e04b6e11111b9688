"""The face's motion in a clip: head, lids, corners of the mouth and brows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from triptych.pipeline.demo.face import Pose

Floats = NDArray[np.float64]

FRAME_RATE = 30  # frames per second
_BLINK = 8  # frames of one blink


def act(sentiment: float, mouth: Floats, rng: np.random.Generator) -> list[Pose]:
    """Pose the face for each frame.

    Parameters
    ----------
    sentiment
        -1 to 1; sets the height of the mouth's corners and the brows, and the amount of head motion.
    mouth
        Opening of the mouth in each frame, from the voice; shape (T,).
    rng
        Draws the phases of all motions.
    """
    time = np.arange(len(mouth)) / FRAME_RATE
    roll = (9.0 + 2.0 * sentiment) * _sway(time, rng)
    smile = sentiment * (0.3 + 0.7 * _waves(time, rng))
    brow = sentiment * (0.1 + 0.9 * _waves(time, rng))
    shift_x = 4.0 * (1 + 0.3 * sentiment) * _sway(time, rng)
    shift_y = 2.5 * (1 + 0.3 * sentiment) * _sway(time, rng)
    curves = np.stack([roll, shift_x, shift_y, mouth, _blinks(len(time), rng), smile, brow], axis=1)
    return [Pose(*(float(value) for value in row)) for row in np.round(curves, 4)]


def _sway(time: Floats, rng: np.random.Generator) -> Floats:
    """Oscillate between about -1 and 1, with random frequencies and phases."""
    slow, fast = 2 * np.pi * rng.uniform((0.45, 0.9), (0.65, 1.2))
    first, second = rng.uniform(0, 2 * np.pi, 2)
    sway: Floats = 0.8 * np.sin(slow * time + first) + 0.2 * np.sin(fast * time + second)
    return sway


def _waves(time: Floats, rng: np.random.Generator) -> Floats:
    """Oscillate between 0 and 1, once or twice a clip."""
    period, phase = rng.uniform(1.1, 1.6), rng.uniform(0, 2 * np.pi)
    waves: Floats = 0.5 - 0.5 * np.cos(2 * np.pi * time / period + phase)
    return waves


def _blinks(count: int, rng: np.random.Generator) -> Floats:
    """Closure of the lids: two separate blinks in each clip, three in a long one."""
    closure = np.zeros(count)
    shape = np.clip(1.25 * np.sin(np.pi * np.arange(1, _BLINK) / _BLINK), 0, 1)
    blinks = 2 if count < 75 else 3
    part = (count - _BLINK) / blinks
    for blink in range(blinks):
        start = int(blink * part + rng.uniform(0.15, 0.75) * (part - _BLINK)) + 1
        closure[start : start + len(shape)] = shape
    return closure
