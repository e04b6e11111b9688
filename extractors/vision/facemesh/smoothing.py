"""The One Euro filter (Casiez, Roussel and Vogel 2012) over the points of a face, as MediaPipe's video mode has it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CUTOFF, SPEED_CUTOFF = 0.05, 1.0
"""Of points that stand still, and of their speed [Hz]."""

BETA = 80.0
"""Growth of the cutoff with speed [Hz per face width a second]."""


class Smoother:
    """Smooths the points of one face over its frames: strongly where they stand still, hardly where they move."""

    def __init__(self) -> None:
        self._time = 0.0
        self._given: NDArray[np.float64] | None = None
        self._speed = self._smooth = np.zeros(())

    def __call__(self, points: NDArray[np.float64], time: float) -> NDArray[np.float64]:
        """Return the smoothed points of the next frame.

        Parameters
        ----------
        points
            shape (N, D), pixels.
        time
            Seconds; later than the frame's before.
        """
        if self._given is None:
            self._smooth, self._speed = points, np.zeros_like(points)
        else:
            step = time - self._time
            size = float(np.ptp(points[:, :2], axis=0).mean())
            speed = (points - self._given) / (max(size, 1e-6) * step)
            self._speed = self._speed + _share(SPEED_CUTOFF, step) * (speed - self._speed)
            share = _share(CUTOFF + BETA * np.abs(self._speed), step)
            self._smooth = self._smooth + share * (points - self._smooth)
        self._given, self._time = points, time
        return self._smooth


def _share(cutoff: float | NDArray[np.float64], step: float) -> float | NDArray[np.float64]:
    """Return the share of a new value in a low-pass filter's result."""
    turns = 2 * np.pi * cutoff * step
    return turns / (1 + turns)
