"""A clip read by PyAV: its frames on a grid and its sound as one waveform, both on one clock.

The clock's zero is the container's start, the earlier of the first frame's and the first sample's times, which
the ffmpeg program subtracts too. A stream that starts later than the container does so here as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import ExtractionError, Frame, Reason
from triptych.extractors.media.clock import FRAMES_A_BYTE, SAMPLES_A_BYTE, LengthLimit, start_time
from triptych.extractors.media.decoding import Tally, corrupt, damage, decoded
from triptych.extractors.media.frames import FrameConverter, Spans, on_grid
from triptych.extractors.media.interlace import deinterlaced
from triptych.extractors.media.joins import Joins, find_joins, may_jump
from triptych.extractors.media.opening import best_streams, chosen_stream, opened
from triptych.extractors.media.section import Section
from triptych.extractors.media.sound import Downmix, Run, laid_out, late_note, sound_runs, timed
from triptych.extractors.scratch import all_finite
from triptych.extractors.settings import MediaSettings

LOWEST_RATE = 1000  # [Hz]; telephones have 8000


@dataclass
class MediaNotes:
    """Sentences for the ledger on the frames and on the sound of a clip, once they were read to their end."""

    frames: tuple[str, ...] = ()
    sound: tuple[str, ...] = ()


class MediaSource:
    """One clip. Each reading opens the file again, so no file stays open between calls.

    Parameters
    ----------
    path
        Any file that FFmpeg reads.
    settings
        The rates of the frame grid and of the waveform.
    buffer_bytes
        Size of the cache. If all frames fit, the first complete pass over `frames` caches them for the next ones;
        otherwise none are cached, and each pass decodes the clip again.
    span
        The clip is this span of the file [s], without an end up to the file's; time 0 is then its start. Frames and
        sound are as if the file had been cut there without loss.

    Attributes
    ----------
    notes
        What a user should know about the frames and the sound that were read so far.
    """

    def __init__(
        self,
        path: str | Path,
        settings: MediaSettings,
        *,
        buffer_bytes: int = 512 * 2**20,
        span: tuple[float, float | None] | None = None,
    ) -> None:
        self.path = Path(path)
        self.settings = settings
        self.buffer_bytes = buffer_bytes
        self.span = span
        self.notes = MediaNotes()
        self._section = Section.of(span)
        self._cached: list[Frame] | None = None
        self._joins: Joins | None = None

    def frames(self) -> Iterator[Frame]:
        """Yield the clip's frames on the frame grid, upright, in square pixels, all of one size.

        Each slot has the same frame as with ffmpeg's ``fps`` filter and its default rounding: a frame is due
        at the slot nearest to its presentation time, and is shown until the next one is due. Slots before the
        first frame or after the end of the last are left out. The images are read-only;
        slots with one frame share one array.

        Yields
        ------
        Frame
            By rising slot. Where frame sizes change within the stream, all are resized to the first.

        Raises
        ------
        ExtractionError
            ``file_missing``, ``not_a_file``, ``not_media``, ``undecodable``, ``no_video_stream``, ``too_long`` or
            ``too_large``. Of a damaged stream, what decodes is given; then ``truncated``, if the settings say so.
        """
        if self._cached is not None:
            yield from self._cached
            return
        cached: list[Frame] = []
        size, last = 0, None
        for frame in self._decoded_frames():
            size += 0 if frame.image is last else frame.image.nbytes
            last = frame.image
            if size <= self.buffer_bytes:
                cached.append(frame)
            else:
                cached.clear()
            yield frame
        if size <= self.buffer_bytes:
            self._cached = cached

    def _decoded_frames(self) -> Iterator[Frame]:
        rate = Fraction(self.settings.frame_rate).limit_denominator(1001)
        deinterlace, tally = self.settings.deinterlace == "auto", Tally()
        section = self._section
        with self._reading() as (container, joins):
            stream = chosen_stream(container, "video", self.path)
            convert = FrameConverter(
                stream.sample_aspect_ratio or Fraction(1), self.settings.max_pixels, self.path
            )
            convert.check(stream.codec_context.width, stream.codec_context.height)
            # A packet may have a larger frame than the header states; decoders pad, so this is no exact limit.
            stream.codec_context.options = {"max_pixels": str(2 * self.settings.max_pixels + 2**16)}
            section.seek(container, stream)
            spans = Spans.of(container, stream, rate, section.start)
            limit = self._length_limit(float(rate), FRAMES_A_BYTE)
            timed = spans(decoded(container, stream, self.path, joins, tally))
            source: Any = None
            slot, slots = -1, section.slots(rate)
            for slot, frame in on_grid(deinterlaced(timed) if deinterlace else timed):
                if slot >= slots:
                    break
                limit.check(abs(slot) / rate)
                if slot < 0 and not section.is_whole:
                    continue  # before the span
                if frame is not source:
                    source, image = frame, convert(frame)
                if slot >= 0:
                    yield Frame(slot, slot * rate.denominator / rate.numerator, image)
            lost = self._lost(container, stream, joins, tally, (slot + 1) / rate)
            remarks = spans.notes(stream, deinterlaced=deinterlace)
            if source is None and not section.is_whole:
                raise self._beyond()
        self.notes.frames = (*joins.notes, *lost, *remarks)
        self._refuse(lost)

    def waveform(self) -> NDArray[np.float32]:
        """Decode the sound: the mean of its channels, then resampled by soxr at librosa's ``soxr_hq``.

        Of two channels that cancel each other, the louder one is used, with a note.

        Sample 0 is the container's start. What the stream leaves out (a late start, a hole in its time
        stamps) is silence; an encoder's priming is dropped by FFmpeg and shifts nothing. Long sound is mapped from a
        temporary file.

        Returns
        -------
        NDArray[np.float32]
            Shape (n,), n >= 1, ``settings.sample_rate`` samples a second, full scale 1.

        Raises
        ------
        ExtractionError
            As for frames, or ``no_audio_stream``, ``empty_audio`` or ``non_finite_audio``.
        """
        downmix = Downmix()
        waveform, notes = self._sound(downmix)
        if downmix.cancels:
            channel = downmix.loudest
            waveform, notes = self._sound(Downmix(channel))
            notes = (*notes, f"the two channels cancel each other: channel {channel + 1} alone is used")
        self.notes.sound = notes
        if not len(waveform):
            raise ExtractionError(Reason.EMPTY_AUDIO, f"{self.path}: its audio stream holds no sample")
        if not all_finite(waveform):
            raise ExtractionError(
                Reason.NON_FINITE_AUDIO, f"{self.path}: NaN or infinity in its decoded samples"
            )
        return waveform

    def _sound(self, downmix: Downmix) -> tuple[NDArray[np.float32], tuple[str, ...]]:
        """Decode the sound once; return the waveform and what was found, in sentences for the user."""
        tally = Tally()
        runs: list[Run] = []
        with self._reading() as (container, joins):
            stream = chosen_stream(container, "audio", self.path)
            limit = self._length_limit(self.settings.sample_rate, SAMPLES_A_BYTE)
            self._section.seek(container, stream)
            blocks = timed(decoded(container, stream, self.path, joins, tally), start_time(container))

            def checked() -> Iterator[tuple[Run, NDArray[np.float32]]]:
                whole = self._section.is_whole
                mixed = sound_runs(blocks, joins.anchors.get(stream.index, ()), downmix)
                for run, samples in mixed if whole else self._section.sound(mixed):
                    self._check_rate(run.rate)
                    limit.check(run.end)
                    if not runs or run is not runs[-1]:
                        runs.append(run)
                    yield run, samples

            waveform = laid_out(checked(), self.settings.sample_rate)
            lost = self._lost(container, stream, joins, tally, runs[-1].end if runs else Fraction(0))
            if not runs and tally.decoded and not self._section.is_whole:
                raise self._beyond()
        self._refuse(lost)
        return waveform, (*joins.notes, *lost, *late_note(runs))

    def _lost(
        self, container: Any, stream: Any, joins: Joins, tally: Tally, end: Fraction
    ) -> tuple[str, ...]:
        """Describe what is missing of the clip; of a span, the rest of the file does not count."""
        if self._section.is_whole:
            return damage(container, stream, joins, tally)
        return (*corrupt(stream, joins, tally), *self._section.missing(end))

    def _beyond(self) -> ExtractionError:
        start, end = self.span or (0.0, None)
        until = "the file's end" if end is None else f"{end:g} s"
        return ExtractionError(
            Reason.OUTSIDE_FILE, f"{self.path}: nothing of it is in the span from {start:g} s to {until}"
        )

    def _length_limit(self, rate: float, a_byte: int) -> LengthLimit:
        return LengthLimit.of(self.path, self.settings.max_seconds, rate, a_byte)

    def _check_rate(self, rate: int) -> None:
        """Refuse sound at a rate that nothing records: each of its samples would become hundreds."""
        if rate < LOWEST_RATE:
            raise ExtractionError(
                Reason.UNDECODABLE, f"{self.path}: {rate} samples a second; sound has {LOWEST_RATE} or more"
            )

    @contextmanager
    def _reading(self) -> Iterator[tuple[Any, Joins]]:
        """Open the file. In formats whose time stamps may jump, its packets are read once before that."""
        if self._joins is None:
            with opened(self.path) as container:
                if not may_jump(container):
                    self._joins = Joins()
                    yield container, self._joins
                    return
                self._joins = find_joins(container, *best_streams(container), start_time(container))
        with opened(self.path) as container:
            yield container, self._joins

    def _refuse(self, lost: tuple[str, ...]) -> None:
        if lost and self.settings.truncated == "fail":
            raise ExtractionError(Reason.TRUNCATED, f"{self.path}: {'; '.join(lost)}")
