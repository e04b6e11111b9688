"""A clip that is a span of its file: reach its begin without decoding what comes before, and cut at its ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from triptych.extractors.media.clock import nearest, start_time
from triptych.extractors.media.sound import Run

# Formats whose index and time stamps are exact enough to begin in the middle: frames and sound are the same as if the
# file had been decoded from its start. All others are.
INDEXED = frozenset({"mov", "matroska", "webm"})
# Sound that is decoded before the span, so that a decoder's memory of it is complete; MP3 needs the most, Opus 80 ms.
PREROLL = Fraction(1)
# A part of the file this short at its end may be missing: headers round.
ROUNDING = 0.25


@dataclass(frozen=True)
class Section:
    """A span of a file.

    Attributes
    ----------
    start, end
        On the file's clock [s]; no end for the file's own.
    """

    start: Fraction
    end: Fraction | None

    @classmethod
    def of(cls, span: tuple[float, float | None] | None) -> Section:
        """Return a span given in seconds, or the whole file."""
        start, end = span or (0.0, None)
        return cls(
            Fraction(start).limit_denominator(10**6),
            None if end is None else Fraction(end).limit_denominator(10**6),
        )

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole file."""
        return not self.start and self.end is None

    @property
    def length(self) -> Fraction | None:
        """How long it is [s]; None up to the file's end."""
        return None if self.end is None else self.end - self.start

    def slots(self, rate: Fraction) -> float:
        """Return how many slots of a frame grid it has."""
        return float("inf") if self.length is None else max(nearest(self.length * rate), 1)

    def seek(self, container: Any, stream: Any) -> None:
        """Let reading begin shortly before the span, at a key frame, where the format allows that."""
        early = self.start - PREROLL
        if early <= 0 or not INDEXED & set(container.format.name.split(",")):
            return
        time = start_time(container) + early
        try:
            container.seek(int(time / stream.time_base), stream=stream, backward=True)
        except av.FFmpegError:
            container.seek(0)

    def missing(self, end: Fraction) -> tuple[str, ...]:
        """Describe what a file that ends early has not of the span, in a sentence for the user.

        Parameters
        ----------
        end
            Where the stream ends [s from the span's start].
        """
        if self.length is None or self.length - end <= ROUNDING:
            return ()
        return (
            f"the file ends early: {max(float(end), 0.0):.1f} of {float(self.length):.1f} s of the span are in it",
        )

    def sound(
        self, found: Iterable[tuple[Run, NDArray[np.float32]]]
    ) -> Iterator[tuple[Run, NDArray[np.float32]]]:
        """Cut runs of sound, as `sound_runs` yields them on the file's clock, to the span, on the span's own clock."""
        before: Run | None = None
        cut: Run | None = None
        for run, samples in found:
            begin = run.start + Fraction(run.samples - len(samples), run.rate) - self.start
            if self.length is not None and begin >= self.length:
                return
            skipped = max(nearest(-begin * run.rate), 0)
            stop = (
                len(samples)
                if self.length is None
                else min(nearest((self.length - begin) * run.rate), len(samples))
            )
            if skipped >= stop:
                continue
            if cut is None or run is not before:
                before, cut = run, Run(begin + Fraction(skipped, run.rate), run.rate)
            cut.samples += stop - skipped
            cut.late = run.late
            yield cut, samples[skipped:stop]
