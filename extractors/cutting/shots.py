"""Where one shot ends and the next one begins: hard cuts, and gradual transitions such as dissolves and fades.

A gradual transition mixes the frame before it with the frame after it, in a share that rises. So a frame in its
middle is close to a mixture of the two, which a moving camera or a moving person is not.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

Small = NDArray[np.float32]

REACH = 0.6  # a mixture is looked for between the frames this far before and after [s]
NEIGHBOURS = 3  # changes of frames on either side that a hard cut must exceed
CONTRAST = 2.5  # how far it must exceed them
AFTER = 3  # frames after a change that must differ too: a flash is over by then
MIX_RESIDUAL = 0.2  # of the distance of the frames before and after, in a mixture
MIDDLE = (0.3, 0.7)  # share of the frame after
MIN_STEPS = 4  # frames in a gradual transition


class ShotFinder:
    """Find the transitions between shots while frames come in; only those of the last two seconds are in memory.

    Parameters
    ----------
    threshold
        Mean absolute change of a pixel [levels of 255] from which on two frames show different shots.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._times: deque[float] = deque()
        self._frames: deque[Small] = deque()
        self._changes: deque[float] = deque()  # from the frame before to each
        self._found: list[tuple[float, float]] = []
        self._checked_cut = self._checked_mix = -np.inf

    def add(self, time: float, image: NDArray[np.uint8]) -> None:
        """Add a frame: its time [s] and its reduced copy, of one shape for all frames."""
        frame = image.astype(np.float32)
        self._changes.append(float(np.abs(frame - self._frames[-1]).mean()) if self._frames else 0.0)
        self._times.append(time)
        self._frames.append(frame)
        while self._times[0] < time - 2 * REACH - 0.2 and len(self._times) > 2 * (NEIGHBOURS + AFTER):
            self._times.popleft()
            self._frames.popleft()
            self._changes.popleft()
        self._look_for_cut()
        self._look_for_mixture()

    def transitions(self) -> NDArray[np.float64]:
        """Return where shots end and begin [s], shape (N, 2), by rising time; both are equal at a hard cut."""
        for _ in range(max(AFTER, NEIGHBOURS)):  # the last frames have no frames after them
            if self._frames:
                self._times.append(self._times[-1] + 1e-3)
                self._frames.append(self._frames[-1])
                self._changes.append(0.0)
                self._look_for_cut()
        return _merged(self._found)

    def _look_for_cut(self) -> None:
        at = len(self._times) - 1 - max(AFTER, NEIGHBOURS)
        if at < 1 or self._times[at] <= self._checked_cut:
            return
        self._checked_cut = self._times[at]
        change = self._changes[at]
        if change < self._threshold:
            return
        beside = [self._changes[k] for k in range(max(at - NEIGHBOURS, 1), at + NEIGHBOURS + 1) if k != at]
        if change < CONTRAST * float(np.median(beside)):
            return
        before = self._frames[at - 1]
        lasting = min(float(np.abs(self._frames[at + k] - before).mean()) for k in range(AFTER + 1))
        # The end of a flash is a change as large as its beginning, back to the frames before it.
        earlier = [self._frames[k] for k in range(max(at - 1 - AFTER, 0), at - 1)]
        back = min((float(np.abs(self._frames[at] - one).mean()) for one in earlier), default=np.inf)
        if lasting >= self._threshold * 0.7 and back >= self._threshold * 0.7:
            self._found.append((self._times[at], self._times[at]))

    def _look_for_mixture(self) -> None:
        """Look at the frame in the middle of the frames in memory."""
        times = np.array(self._times)
        middle = times[-1] - REACH
        if times[0] > middle - REACH or middle <= self._checked_mix:
            return
        self._checked_mix = middle + 0.03  # a transition lasts longer than this
        first, at = int(np.searchsorted(times, middle - REACH)), int(np.searchsorted(times, middle))
        before, after = self._frames[first], self._frames[-1]
        distance = after - before
        if float(np.abs(distance).mean()) < self._threshold:
            return
        power = float((distance * distance).sum())
        share, residual = _mixture(self._frames[at], before, distance, power)
        if residual > MIX_RESIDUAL or not MIDDLE[0] < share < MIDDLE[1]:
            return
        shares = [_mixture(self._frames[k], before, distance, power) for k in range(first, len(times))]
        inside = [k for k, (part, rest) in enumerate(shares, first) if 0.08 < part < 0.92]
        rising = np.diff([part for part, _ in shares])
        if len(inside) < MIN_STEPS or rising.max() > 0.4 or (rising < -0.05).any():
            return
        if max(shares[k - first][1] for k in inside) <= 1.5 * MIX_RESIDUAL:
            self._found.append((float(times[inside[0]]), float(times[inside[-1]])))


def _mixture(frame: Small, before: Small, distance: Small, power: float) -> tuple[float, float]:
    """Return the share of the later frame in a mixture, and what is left, relative to the frames' distance."""
    away = frame - before
    share = float((away * distance).sum()) / power
    rest = away - np.float32(share) * distance
    return share, float(np.sqrt(float((rest * rest).sum()) / power))


def _merged(spans: list[tuple[float, float]]) -> NDArray[np.float64]:
    """Join transitions that touch; a hard cut inside a gradual one is part of it."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1] + 0.1:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return np.array(merged, np.float64).reshape(-1, 2)
