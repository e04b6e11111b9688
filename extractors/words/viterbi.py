"""The most probable path of a CTC model through a known sequence of symbols.

CTC (Graves et al. 2006) emits in each frame one symbol or the blank; a path emits the symbols in order, each for one
frame or more, with any number of blank frames between them, and one at least between two equal symbols.

Memory is bounded: scores of every `BLOCK`-th frame are saved on the way forward, and the choices within a block are
computed a second time on the way back. For T frames and S symbols that is O(S * (T / BLOCK + BLOCK)), not O(S * T).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

BLOCK = 128  # frames


def best_path(
    scores: NDArray[np.float32], symbols: NDArray[np.int64], skips: NDArray[np.bool_]
) -> NDArray[np.int64] | None:
    """Find the path with the highest sum of log probabilities.

    Parameters
    ----------
    scores
        Shape (T, U): log probability of the blank, column 0, and of the symbols that occur, in each frame.
    symbols
        Shape (S,), S >= 1: the columns of `scores` in the order in which the symbols are spoken.
    skips
        Shape (S,): no blank is needed before the symbol; False where it equals the one before it.

    Returns
    -------
    int64, shape (T,), or None
        The index in `symbols` that each frame emits, -1 for the blank. None if the frames are too few for any path.
        Of paths with equal sums, one that stays in a symbol is preferred.
    """
    if len(scores) < frames_needed(skips):
        return None
    saved = np.empty((-(-len(scores) // BLOCK), 2 * len(symbols) + 1), np.float64)
    last = _forward(scores, symbols, skips, saved)
    if not np.isfinite(last[-2:]).any():
        return None
    state = len(last) - 1 if last[-1] > last[-2] else len(last) - 2
    states = _backward(scores, symbols, skips, saved, state)
    path: NDArray[np.int64] = np.where(states % 2 == 1, states // 2, -1)
    return path


def frames_needed(skips: NDArray[np.bool_]) -> int:
    """Count the frames of the shortest path: one for each symbol, and a blank before each that cannot skip it."""
    return len(skips) + int((~skips[1:]).sum())


@njit(cache=True)  # type: ignore[untyped-decorator]
def _step(before, after, choices, frame, symbols, skips):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Advance by one frame: states 2 k + 1 are the symbols, even ones the blanks around them."""
    for state in range(len(before)):
        best, choice = before[state], 0
        if state > 0 and before[state - 1] > best:
            best, choice = before[state - 1], 1
        if state % 2 == 1 and state > 1 and skips[state // 2] and before[state - 2] > best:
            best, choice = before[state - 2], 2
        choices[state] = choice
        column = symbols[state // 2] if state % 2 == 1 else 0
        after[state] = best + frame[column]


@njit(cache=True)  # type: ignore[untyped-decorator]
def _forward(scores, symbols, skips, saved):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Return the scores of all states in the last frame, and save those of the first frame of each block."""
    states = 2 * len(symbols) + 1
    now, other = np.full(states, -np.inf), np.empty(states)
    choices = np.empty(states, np.int8)
    now[0], now[1] = scores[0, 0], scores[0, symbols[0]]
    saved[0] = now
    for t in range(1, len(scores)):
        _step(now, other, choices, scores[t], symbols, skips)
        now, other = other, now
        if t % BLOCK == 0:
            saved[t // BLOCK] = now
    return now


@njit(cache=True)  # type: ignore[untyped-decorator]
def _backward(scores, symbols, skips, saved, state):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Return the state of each frame, given the last one's."""
    path = np.empty(len(scores), np.int64)
    choices = np.empty((BLOCK + 1, saved.shape[1]), np.int8)
    other = np.empty(saved.shape[1])
    for block in range(len(saved) - 1, -1, -1):
        first = block * BLOCK
        last = min(first + BLOCK, len(scores) - 1)
        now = saved[block].copy()
        for t in range(first + 1, last + 1):
            _step(now, other, choices[t - first], scores[t], symbols, skips)
            now, other = other, now
        path[last] = state
        for t in range(last, first, -1):
            state -= choices[t - first, state]
            path[t - 1] = state
    return path
