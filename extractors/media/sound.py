"""Sound: decoded blocks joined into one waveform on the clip's clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from triptych.extractors.media.clock import nearest, start_time

# A time stamp that is later than the end of the previous sound by more than this, in seconds, marks a silence. A
# smaller difference is taken for inexact time stamps (up to 28 ms in one WMA stream that was measured).
GAP = Fraction(1, 20)


@dataclass
class Run:
    """Continuous sound of one sample rate that starts at `start` seconds."""

    start: Fraction
    rate: int
    blocks: list[NDArray[np.float32]] = field(default_factory=list)
    samples: int = 0

    @property
    def end(self) -> Fraction:
        return self.start + Fraction(self.samples, self.rate)


def sound_runs(blocks: Iterable[Any], container: Any) -> list[Run]:
    """Join decoded blocks of sound into runs; a new run begins at a hole or at a change of the rate.

    A time stamp that goes backwards, or is after the container's end, is ignored: the sound continues.
    """
    begin = start_time(container)
    length = Fraction(container.duration, 1_000_000) if container.duration else None
    runs: list[Run] = []
    for block in blocks:
        end = runs[-1].end if runs else Fraction(0)
        time = end if block.pts is None else block.pts * block.time_base - begin
        if length is not None and time >= length:
            time = end
        if not runs or time > end + GAP:
            runs.append(Run(time, block.sample_rate))
        elif block.sample_rate != runs[-1].rate:
            runs.append(Run(end, block.sample_rate))
        runs[-1].blocks.append(_mono(block))
        runs[-1].samples += block.samples
    return runs


def _mono(block: Any) -> NDArray[np.float32]:
    """Average the channels, shape (n,), full scale 1."""
    samples = block.to_ndarray()
    if block.format.is_packed:
        samples = samples.reshape(-1, block.layout.nb_channels).T
    mono: NDArray[np.float64] = samples.mean(axis=0, dtype=np.float64)
    if samples.dtype == np.uint8:
        mono = mono / 128 - 1
    elif samples.dtype.kind == "i":
        mono /= -float(np.iinfo(samples.dtype).min)
    return mono.astype(np.float32)


def laid_out(runs: list[Run], rate: int) -> NDArray[np.float32]:
    """Resample every run and put it at its time; samples before the start are cut."""
    pieces = [(nearest(run.start * rate), _resampled(run, rate)) for run in runs]
    waveform = np.zeros(max([0, *(start + len(piece) for start, piece in pieces)]), dtype=np.float32)
    for start, piece in pieces:
        waveform[max(start, 0) : max(start + len(piece), 0)] = piece[max(-start, 0) :]
    return waveform


def _resampled(run: Run, rate: int) -> NDArray[np.float32]:
    samples = np.concatenate(run.blocks)
    if run.rate == rate:
        return samples
    length = -(-len(samples) * rate // run.rate)  # librosa rounds up, soxr to the nearest
    resampled: NDArray[np.float32] = soxr.resample(samples, run.rate, rate, quality="HQ")[:length]
    return np.concatenate([resampled, np.zeros(length - len(resampled), dtype=np.float32)])
