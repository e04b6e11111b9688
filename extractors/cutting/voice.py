"""Where somebody speaks: Silero's voice activity detector, whose weights are in its wheel, on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import BackendMissingError
from triptych.extractors.onnx_runtime import Network

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SAMPLE_RATE = 16000  # [Hz], of the network
SAMPLES = 512  # a probability
RATE = SAMPLE_RATE / SAMPLES  # probabilities a second [Hz]
_CONTEXT = 64  # samples of the block before that the network reads too
_BLOCKS = 512  # in one call: 16 s
_HYSTERESIS = 0.15  # speech ends where the probability falls this far below the threshold


def model_file() -> Path:
    """Find the network in the installed package, which is not imported: it would import torch.

    Raises
    ------
    BackendMissingError
        The package is missing, or is another version than the one that has this file.
    """
    try:
        package = distribution("silero-vad")
    except PackageNotFoundError:
        raise BackendMissingError(
            "speech is found by the package silero-vad: pip install silero-vad"
        ) from None
    file = Path(str(package.locate_file("silero_vad/data/silero_vad_16k_sequence.onnx")))
    if not file.is_file():
        raise BackendMissingError(
            f"silero-vad {package.version} has no {file.name}: pip install 'silero-vad>=6.2.3'"
        )
    return file


def speech_probabilities(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how likely each 32 ms of a waveform are speech.

    Parameters
    ----------
    sound
        Shape (n,), 16 kHz; long sound may be mapped from a file, since it is read 16 s at a time.

    Returns
    -------
    NDArray[np.float32]
        Shape (ceil(n / 512),), in [0, 1]: probability k is of samples 512 k to 512 k + 511. It depends on the samples
        before it too.
    """
    network = Network(model_file())
    hidden = cell = np.zeros((1, 1, 128), np.float32)
    found = [np.zeros(0, np.float32)]
    for block in _blocks(sound):
        probabilities, hidden, cell = network(block, hidden, cell)
        found.append(probabilities.reshape(-1))
    return np.concatenate(found)


def _blocks(sound: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Yield blocks of rows of 512 samples, each after the last 64 samples of the row before it."""
    context = np.zeros(_CONTEXT, np.float32)
    for first in range(0, len(sound), _BLOCKS * SAMPLES):
        piece = np.asarray(sound[first : first + _BLOCKS * SAMPLES], np.float32)
        rows = np.pad(piece, (0, -len(piece) % SAMPLES)).reshape(-1, SAMPLES)
        before = np.concatenate([context[None], rows[:-1, -_CONTEXT:]])
        context = rows[-1, -_CONTEXT:]
        yield np.concatenate([before, rows], axis=1)


def speech_segments(
    probabilities: Sequence[float] | NDArray[np.float32],
    *,
    threshold: float = 0.5,
    shortest: float = 0.25,
    pause: float = 0.1,
) -> list[tuple[float, float]]:
    """Return the spans of speech [s].

    Speech begins where the probability reaches the threshold, and ends where it has stayed 0.15 below the threshold
    for the length of a pause.

    Parameters
    ----------
    probabilities
        As `speech_probabilities` gives them.
    shortest
        Shorter speech is left out [s].
    pause
        Shorter pauses are part of the speech [s].
    """
    found: list[tuple[float, float]] = []
    low = max(threshold - _HYSTERESIS, 0.01)
    for start, end in _above(np.asarray(probabilities), threshold, low):
        if found and start - found[-1][1] < pause:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return [(start, end) for start, end in found if end - start >= shortest]


def _above(values: NDArray[np.float32], high: float, low: float) -> Iterable[tuple[float, float]]:
    """Yield spans [s] that begin at `high` and end below `low`."""
    changes = np.full(len(values), np.nan)
    changes[values >= high], changes[values < low] = 1, 0
    known = np.flatnonzero(~np.isnan(changes))
    if not len(known):
        return
    # Between the two bounds the state before goes on.
    last = np.maximum.accumulate(np.where(np.isnan(changes), -1, np.arange(len(values))))
    state = np.where(last < 0, 0, changes[np.maximum(last, 0)])
    edges = np.flatnonzero(np.diff(np.concatenate([[0], state, [0]])))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        yield float(start / RATE), float(end / RATE)
