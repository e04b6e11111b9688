"""The likeliest path through pitch candidates: stage 2 of pYIN (Mauch and Dixon, ICASSP 2014), by Viterbi.

A state is a pitch bin, voiced or unvoiced. A transition's probability is a triangle over the change of pitch times the
probability of a change of voicing, so a step is one banded max-plus product for voiced and one for unvoiced states.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

SWITCH_PROBABILITY = 0.01

TINY = float(np.finfo(np.float64).tiny)  # what librosa adds to a probability before it takes the logarithm
_LOG_TINY = math.log(TINY)
_LOG_STAY = math.log(1 - SWITCH_PROBABILITY)
_LOG_SWITCH = math.log(SWITCH_PROBABILITY)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _banded_max(padded: NDArray[np.float64], triangle: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    """Max-plus product with the band: ``out[j] = max over k of padded[half + k] + triangle[abs(j - k)]``."""
    half, bins = len(triangle) - 1, len(out)
    out[:] = padded[half : half + bins]
    for distance in range(1, half + 1):
        below, above = padded[half - distance :], padded[half + distance :]
        for j in range(bins):
            out[j] = max(out[j], max(below[j], above[j]) + triangle[distance])


def viterbi(
    probabilities: Sequence[NDArray[np.float64]], triangle: NDArray[np.float64], edge: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Most likely path; state j < bins is pitch bin j voiced, state bins + j the same bin unvoiced.

    The rows come in blocks, each of which may be computed when it is asked for: they are read forwards, and then
    backwards again. Only the values of each block's last row are stored in between, so that memory is that of one
    block.

    Parameters
    ----------
    probabilities
        Blocks of shape (rows, bins); rows of all together: T.

    Returns
    -------
    NDArray
        Shape (T,).
    """
    bins = len(edge)
    ends = [(np.full(bins, -np.inf), np.full(bins, -np.inf))]
    values = None
    for block in probabilities:
        values = _forward(block, *ends[-1], triangle, edge, len(ends) == 1)
        ends.append((values[0][-1].copy(), values[1][-1].copy()))
    states: list[NDArray[np.int64]] = []
    for number in range(len(probabilities) - 1, -1, -1):
        if number < len(probabilities) - 1:
            values = _forward(probabilities[number], *ends[number], triangle, edge, number == 0)
        assert values is not None
        states.append(_backtrack(*values, triangle, edge, int(states[-1][0]) if states else -1))
    return np.concatenate(states[::-1])


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _forward(
    probabilities: NDArray[np.float64],
    voiced_before: NDArray[np.float64],
    unvoiced_before: NDArray[np.float64],
    triangle: NDArray[np.float64],
    edge: NDArray[np.float64],
    is_first: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the logarithms of the best paths to each voiced and unvoiced state, shape (rows, bins) each.

    librosa's matrix is dense: outside the band, and for a bin that is not a candidate, a probability is `TINY`. All
    jumps out of the band therefore cost the same, and only the jump from the best state of all can be optimal.
    A voiced state that is not a candidate is never on the best path if the unvoiced state of its bin is possible:
    the unvoiced state is more likely (1e-16 against 1e-308), by more than two changes of voicing cost.
    Only the values are stored; the backward pass computes each state's predecessor again.

    Parameters
    ----------
    voiced_before, unvoiced_before
        Values of the row before, unless `is_first`.
    """
    rows, bins = probabilities.shape
    half = len(triangle) - 1
    both_sides = np.full(
        -(-(2 * half + 1) // 8) * 8, -np.inf
    )  # whole vectors are faster than some and a rest
    both_sides[: 2 * half + 1] = np.concatenate((triangle[:0:-1], triangle))
    voiced, unvoiced = np.full((rows, bins), -np.inf), np.empty((rows, bins))
    padded = np.full(bins + 2 * half, -np.inf)
    from_unvoiced, from_voiced = np.zeros(bins), np.zeros(bins + len(both_sides))
    highest, jump = -np.inf, 0.0
    alive, count = np.empty(bins, np.int64), 0
    earlier_voiced, earlier_unvoiced = voiced_before, unvoiced_before
    for j in range(bins):
        if voiced_before[j] > -np.inf:
            alive[count] = j
            count += 1
            highest = max(highest, voiced_before[j])
    for t in range(rows):
        if t or not is_first:
            jump = _LOG_TINY + max(highest, earlier_unvoiced.max())
            padded[half : half + bins] = earlier_unvoiced + edge
            _banded_max(padded, triangle, from_unvoiced)
            from_voiced[:] = -np.inf
            for k in alive[:count]:
                value, reached = earlier_voiced[k] + edge[k], from_voiced[k:]
                for j in range(len(both_sides)):
                    reached[j] = max(reached[j], value + both_sides[j])
        total, count = 0.0, 0
        for j in range(bins):
            if probabilities[t, j] > 0:
                total += probabilities[t, j]
                alive[count] = j
                count += 1
        log_unvoiced = math.log((1 - min(total, 1.0)) / bins + TINY)
        for j in range(bins):
            stays, switches = from_unvoiced[j] + _LOG_STAY, from_voiced[half + j] + _LOG_SWITCH
            unvoiced[t, j] = log_unvoiced + max(max(stays, switches), jump)
        if total >= 1:
            count = bins
            alive[:] = np.arange(bins)
        highest = -np.inf
        for j in alive[:count]:
            stays, switches = from_voiced[half + j] + _LOG_STAY, from_unvoiced[j] + _LOG_SWITCH
            voiced[t, j] = math.log(probabilities[t, j] + TINY) + max(max(stays, switches), jump)
            highest = max(highest, voiced[t, j])
        earlier_voiced, earlier_unvoiced = voiced[t], unvoiced[t]
    return voiced, unvoiced


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _backtrack(
    voiced: NDArray[np.float64],
    unvoiced: NDArray[np.float64],
    triangle: NDArray[np.float64],
    edge: NDArray[np.float64],
    later: int,
) -> NDArray[np.int64]:
    """Follow the best path back from the state of the row after these, or from its end where `later` is negative.

    Among equal states the lowest number wins.
    """
    rows, bins = voiced.shape
    half = len(triangle) - 1
    states = np.empty(rows, np.int64)
    last = rows - 1
    if later < 0:
        state = voiced[-1].argmax()
        if unvoiced[-1].max() > voiced[-1, state]:
            state = bins + unvoiced[-1].argmax()
        states[-1] = later = state
        last = rows - 2
    for t in range(last, -1, -1):
        at, is_voiced = later % bins, later < bins
        highest = best = -np.inf
        top = state = 0
        for kind in range(2):
            values = unvoiced[t] if kind else voiced[t]
            log_switch = _LOG_STAY if is_voiced == (kind == 0) else _LOG_SWITCH
            for k in range(bins):
                if values[k] > highest:
                    highest, top = values[k], kind * bins + k
            for k in range(max(at - half, 0), min(at + half + 1, bins)):
                value = values[k] + (edge[k] + triangle[abs(at - k)] + log_switch)
                if value > best:
                    best, state = value, kind * bins + k
        states[t] = later = top if highest + _LOG_TINY > best else state
    return states
