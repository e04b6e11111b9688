"""When Whisper's tokens are spoken, by the cross-attention of the heads that follow the sound.

Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (2022): its authors align words so.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import median_filter

SMOOTHED = 7  # frames of the median filter


def token_frames(attention: NDArray[np.float32]) -> NDArray[np.int64]:
    """Find the frame at which each token begins.

    Parameters
    ----------
    attention
        Shape (heads, T, F), T and F at least 1: weights of F encoder frames at each of T decoder steps.

    Returns
    -------
    NDArray[np.int64]
        Shape (T,), rising: the first frame of each step on the cheapest path.
    """
    deviation = attention.std(axis=1, keepdims=True)
    centred = attention - attention.mean(axis=1, keepdims=True)
    weights = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)
    cost = -median_filter(weights, size=(1, 1, SMOOTHED), mode="reflect").mean(axis=0)
    found: NDArray[np.int64] = _first_frames(cost.astype(np.float64))
    return found


@njit(cache=True)  # type: ignore[untyped-decorator]
def _first_frames(cost: NDArray[np.float64]) -> NDArray[np.int64]:
    """Find the cheapest path from the first step and frame to the last ones, by dynamic time warping."""
    steps, frames = cost.shape
    total = np.full((steps + 1, frames + 1), np.inf)
    came = np.zeros(
        (steps + 1, frames + 1), np.int8
    )  # 0: both before, 1: the step before, 2: the frame before
    total[0, 0] = 0.0
    for frame in range(1, frames + 1):
        for step in range(1, steps + 1):
            best, origin = total[step - 1, frame - 1], 0
            if total[step - 1, frame] < best:
                best, origin = total[step - 1, frame], 1
            if total[step, frame - 1] < best:
                best, origin = total[step, frame - 1], 2
            total[step, frame] = best + cost[step - 1, frame - 1]
            came[step, frame] = origin
    first = np.zeros(steps, np.int64)
    step, frame = steps, frames
    while step > 0 and frame > 0:
        first[step - 1] = frame - 1
        move = came[step, frame]
        if move != 2:
            step -= 1
        if move != 1:
            frame -= 1
    return first
