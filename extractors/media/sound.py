"""Sound: decoded blocks joined into one waveform on the clip's clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from triptych.extractors.media.clock import nearest

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


@dataclass
class Run:
    """Continuous sound of one sample rate that starts at `start` seconds."""

    start: Fraction
    rate: int
    blocks: list[NDArray[np.float32]] = field(default_factory=list)
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
    check: Callable[[Run], None] = lambda run: None,
) -> list[Run]:
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
    check
        Called with the run after every block; what it raises ends the reading.
    """
    downmix = downmix or Downmix()
    runs: list[Run] = []
    for stamped, block in timed:
        end = runs[-1].end if runs else Fraction(0)
        time = end if stamped is None else stamped
        joined = bool(anchors) and (time < end - JITTER or any(abs(time - at) <= JITTER for at in anchors))
        if not runs or joined or time > end + GAP:
            runs.append(Run(time, block.sample_rate))
        elif block.sample_rate != runs[-1].rate:
            runs.append(Run(end, block.sample_rate))
        elif time < end - LATE:
            runs[-1].late = max(runs[-1].late, end - time)
        runs[-1].blocks.append(downmix(block))
        runs[-1].samples += block.samples
        check(runs[-1])
    return runs


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
