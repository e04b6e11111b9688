"""Sound: decoded blocks joined into one waveform on the clip's clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from triptych.extractors.media.clock import nearest
from triptych.extractors.scratch import Scratch

# A time stamp that is later than the end of the previous sound by more than this, in seconds, marks a silence. A
# smaller difference is taken for inexact time stamps (up to 28 ms in one WMA stream that was measured).
GAP = Fraction(1, 20)
# Sound that is later than its time stamps by more than this [s] deserves a note; inexact ones fall back by 0.1 s.
LATE = Fraction(1, 5)
# At a join stamps are exact to less than this [s].
JITTER = Fraction(1, 100)
# Sound [s] that confirms a leap of the time stamps.
PATIENCE = 30
# Two channels cancel each other where their mean has less than this share of the louder one's energy (-30 dB). The mean
# of channels that have nothing in common has half of it, of a sound in one channel alone a quarter.
CANCELLED = 1e-3
AT_A_TIME = 2**16  # samples that are resampled at a time


@dataclass(eq=False)
class Run:
    """Continuous sound of one sample rate that starts at `start` seconds, as far as it was read."""

    start: Fraction
    rate: int
    samples: int = 0
    late: Fraction = Fraction(0)  # by how much it is later than its time stamps at most [s]

    @property
    def end(self) -> Fraction:
        return self.start + Fraction(self.samples, self.rate)


@dataclass
class Downmix:
    """Makes one channel of several: their mean, or one of them.

    Attributes
    ----------
    channel
        The channel to take; None for the mean.
    mean_energy, energies
        Of the blocks so far: energy of the mean, and of each of two channels.
    """

    channel: int | None = None
    mean_energy: float = 0.0
    energies: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))

    def __call__(self, block: Any) -> NDArray[np.float32]:
        """Return a decoded block as one channel, shape (n,), full scale 1."""
        samples = block.to_ndarray()
        if block.format.is_packed:
            samples = samples.reshape(-1, block.layout.nb_channels).T
        mono: NDArray[np.float64] = samples.mean(axis=0, dtype=np.float64)
        if self.channel is not None and self.channel < len(samples):
            mono = samples[self.channel].astype(np.float64)
        mono = _full_scale(mono, samples.dtype)
        if len(samples) == 2 and self.channel is None:
            self._measure(samples, mono)
        return mono.astype(np.float32)

    def _measure(self, samples: NDArray[Any], mono: NDArray[np.float64]) -> None:
        for index, channel in enumerate(samples):
            scaled = _full_scale(channel.astype(np.float64), samples.dtype)
            self.energies[index] += float(scaled @ scaled)
        self.mean_energy += float(mono @ mono)

    @property
    def cancels(self) -> bool:
        """Whether two channels cancel each other: their mean has less than a thousandth of the louder one's energy."""
        return self.mean_energy < CANCELLED * float(self.energies.max())

    @property
    def loudest(self) -> int:
        """The louder of two channels."""
        return int(self.energies.argmax())


def _full_scale(samples: NDArray[np.float64], stored: np.dtype[Any]) -> NDArray[np.float64]:
    """Scale samples that were stored as integers to full scale 1."""
    if stored == np.uint8:
        return samples / 128 - 1
    return samples / -float(np.iinfo(stored).min) if stored.kind == "i" else samples


def sound_runs(
    timed: Iterable[tuple[Fraction | None, Any]],
    anchors: Sequence[Fraction] = (),
    downmix: Callable[[Any], NDArray[np.float32]] | None = None,
) -> Iterator[tuple[Run, NDArray[np.float32]]]:
    """Join decoded blocks of sound into runs; a new run begins at a hole or at a change of the rate.

    A time that goes backwards is ignored, so that the sound continues, unless the clip is a joined recording: there
    it begins a run, which takes the place of what it overlaps.

    Parameters
    ----------
    timed
        (time from the clip's zero [s], None where it is unknown; block).
    anchors
        Times [s] at which later parts of a joined recording begin.
    downmix
        Makes one channel of a block's; by default their mean.

    Yields
    ------
    tuple
        The run, and the samples that a block adds to its end.
    """
    downmix = downmix or Downmix()
    run: Run | None = None
    for stamped, block in timed:
        end = run.end if run else Fraction(0)
        time = end if stamped is None else stamped
        joined = bool(anchors) and (time < end - JITTER or any(abs(time - at) <= JITTER for at in anchors))
        if not run or joined or time > end + GAP:
            run = Run(time, block.sample_rate)
        elif block.sample_rate != run.rate:
            run = Run(end, block.sample_rate)
        elif time < end - LATE:
            run.late = max(run.late, end - time)
        run.samples += block.samples
        yield run, downmix(block)


def late_note(runs: Iterable[Run]) -> tuple[str, ...]:
    """Describe sound that is later than its time stamps, because they go back."""
    late = max((run.late for run in runs), default=0)
    return (f"the time stamps of the sound go back: it is up to {float(late):.1f} s late",) if late else ()


def timed(blocks: Iterable[Any], begin: Fraction) -> Iterator[tuple[Fraction | None, Any]]:
    """Give each decoded block its time from the clip's zero [s]; None where its stamp is not believed.

    A leap of the stamps that later ones take back was no hole in the sound, but the wrong stamp of one cluster, for
    example. So the blocks after a leap wait until `PATIENCE` seconds of sound confirm it.
    """
    end: float | None = None  # by the stamps
    resume = waited = 0.0  # where the sound ended before the leap, and how long it is since
    waiting: list[tuple[Fraction | None, Any]] = []
    for block in blocks:
        time = None if block.pts is None else block.pts * block.time_base - begin
        at = end or 0.0 if time is None else float(time)
        if waiting and end is not None and at < end - GAP:
            wrong = abs(at - resume - waited) <= GAP
            yield from ((None if wrong else stamp, earlier) for stamp, earlier in waiting)
            waiting.clear()
        elif waiting and waited > PATIENCE:
            yield from waiting
            waiting.clear()
        elif not waiting and end is not None and at > end + GAP:
            resume, waited = end, 0.0
            waiting.append((time, block))
        elif waiting:
            waiting.append((time, block))
        if not waiting:
            yield time, block
        length = block.samples / block.sample_rate
        end = at + length
        waited += length
    yield from waiting


def laid_out(sound: Iterable[tuple[Run, NDArray[np.float32]]], rate: int) -> NDArray[np.float32]:
    """Resample every run and put it at its time; samples before the start are cut.

    Long sound is in a temporary file that is mapped (`triptych.extractors.scratch`).
    """
    waveform = Scratch(np.float32)
    for run, blocks in groupby(sound, key=itemgetter(0)):
        at = nearest(run.start * rate)
        for samples in _resampled((block for _, block in blocks), run.rate, rate):
            waveform.write(samples[max(-at, 0) :], max(at, 0))
            at += len(samples)
    return waveform.array()


def _resampled(
    blocks: Iterable[NDArray[np.float32]], from_rate: int, rate: int
) -> Iterator[NDArray[np.float32]]:
    """Resample a run's blocks as if they were one; the values are those of `soxr.resample`."""
    if from_rate == rate:
        yield from _gathered(blocks)
        return
    stream = soxr.ResampleStream(from_rate, rate, 1, quality="HQ")
    read = written = 0
    for samples in _gathered(blocks):
        resampled = stream.resample_chunk(samples)
        yield resampled
        read, written = read + len(samples), written + len(resampled)
    length = -(-read * rate // from_rate)  # librosa rounds up, soxr to the nearest
    end = stream.resample_chunk(np.empty(0, np.float32), last=True)[: length - written]
    yield np.concatenate([end, np.zeros(length - written - len(end), dtype=np.float32)])


def _gathered(blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Join blocks to some that are worth a call."""
    waiting: list[NDArray[np.float32]] = []
    for block in blocks:
        waiting.append(block)
        if sum(map(len, waiting)) >= AT_A_TIME:
            yield np.concatenate(waiting)
            waiting.clear()
    if waiting:
        yield np.concatenate(waiting)
