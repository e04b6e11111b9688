"""A clip read by PyAV: its frames on a grid and its sound as one waveform, both on one clock.

The clock's zero is the container's start, the earlier of the first frame's and the first sample's times, which
the ffmpeg program subtracts too. A stream that starts later than the container does so here as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import av
import cv2
import numpy as np
import soxr
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from triptych.extractors.base import ExtractionError, Frame, Reason
from triptych.extractors.settings import MediaSettings

Decoded = TypeVar("Decoded")

# A time stamp that is later than the end of the previous sound by more than this, in seconds, marks a silence. A
# smaller difference is taken for inexact time stamps (up to 28 ms in one WMA stream that was measured).
GAP = Fraction(1, 20)
# A clip longer than this, in seconds, is assumed to have invalid time stamps.
LONGEST = 4 * 3600
# A larger ratio of a pixel's sides means a damaged header, and would need an image of gigabytes.
MAX_PIXEL_ASPECT = 8


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
    """

    def __init__(self, path: str | Path, settings: MediaSettings, *, buffer_bytes: int = 512 * 2**20) -> None:
        self.path = Path(path)
        self.settings = settings
        self.buffer_bytes = buffer_bytes
        self._cached: list[Frame] | None = None

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
            ``file_missing``, ``undecodable`` or ``no_video_stream``. Of a damaged stream, what decodes is
            given.
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
        with _opened(self.path) as container:
            stream = _stream(container, "video", self.path)
            convert = _FrameConverter(stream.sample_aspect_ratio or Fraction(1))
            source: Any = None
            for slot, frame in on_grid(
                _spans(_decoded(container, stream, self.path), container, stream, rate)
            ):
                if slot > LONGEST * rate:
                    raise _leap(self.path, float(slot / rate))
                if frame is not source:
                    source, image = frame, convert(frame)
                if slot >= 0:
                    yield Frame(slot, float(slot / rate), image)

    def waveform(self) -> NDArray[np.float32]:
        """Decode the sound: the mean of its channels, then resampled by soxr at librosa's ``soxr_hq``.

        Sample 0 is the container's start. What the stream leaves out (a late start, a hole in its time
        stamps) is silence; an encoder's priming is dropped by FFmpeg and shifts nothing.

        Returns
        -------
        NDArray[np.float32]
            Shape (n,), n >= 1, ``settings.sample_rate`` samples a second, full scale 1.

        Raises
        ------
        ExtractionError
            ``file_missing``, ``undecodable``, ``no_audio_stream``, ``empty_audio`` or ``non_finite_audio``.
        """
        with _opened(self.path) as container:
            stream = _stream(container, "audio", self.path)
            runs = _sound_runs(_decoded(container, stream, self.path), container)
        if runs and max(run.end for run in runs) > LONGEST:
            raise _leap(self.path, float(max(run.end for run in runs)))
        waveform = _laid_out(runs, self.settings.sample_rate)
        if not len(waveform):
            raise ExtractionError(Reason.EMPTY_AUDIO, f"{self.path}: its audio stream holds no sample")
        if not np.isfinite(waveform).all():
            raise ExtractionError(
                Reason.NON_FINITE_AUDIO, f"{self.path}: NaN or infinity in its decoded samples"
            )
        return waveform


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise ExtractionError(Reason.FILE_MISSING, f"{path}: file not found")
    try:
        # "file:" keeps a colon in a name from being read as a protocol. Titles are often not UTF-8.
        with av.open(f"file:{path}", metadata_errors="replace") as container:
            yield container
    except av.FFmpegError as error:
        raise ExtractionError(Reason.UNDECODABLE, f"{path}: {error.strerror}") from error


def _stream(container: Any, kind: Literal["video", "audio"], path: Path) -> Any:
    """Choose the stream that FFmpeg thinks best, cover art aside, for decoding in this thread alone."""
    streams = [s for s in getattr(container.streams, kind) if not s.disposition & Disposition.attached_pic]
    if not streams:
        reason = Reason.NO_VIDEO_STREAM if kind == "video" else Reason.NO_AUDIO_STREAM
        raise ExtractionError(reason, f"{path}: has no {kind} stream")
    best = container.streams.best(kind)
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise ExtractionError(Reason.UNDECODABLE, f"{path}: FFmpeg has no decoder for its {kind} stream")
    stream.codec_context.thread_count = 1
    return stream


def _decoded(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    """Yield the frames that can be decoded: a broken packet is skipped, a broken container ends the stream."""
    packets = container.demux(stream)
    failure: av.FFmpegError | None = None
    empty, draining = True, False
    while not draining:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            packet, failure = None, error
        draining = packet is None  # without a packet, decode() returns the frames left in the decoder
        try:
            decoded = stream.decode(packet)
        except av.error.EOFError:
            break
        except av.FFmpegError as error:
            failure = error
            continue
        for frame in decoded:
            empty = False
            yield frame
    if empty and (failure is not None or stream.type == "video"):
        cause = failure.strerror if failure is not None else "it has no frame"
        raise ExtractionError(
            Reason.UNDECODABLE, f"{path}: nothing in its {stream.type} stream decodes: {cause}"
        )


def _start(container: Any) -> Fraction:
    """Return the container's start time [s], relative to a time stamp of zero."""
    return Fraction(container.start_time or 0, 1_000_000)


def _nearest(number: Fraction) -> int:
    """Round to the nearest integer, halves away from zero: FFmpeg's ``near``, not Python's ``round``."""
    magnitude = math.floor(abs(number) + Fraction(1, 2))
    return magnitude if number > 0 else -magnitude


def _spans(
    frames: Iterable[Any], container: Any, stream: Any, rate: Fraction
) -> Iterator[tuple[int, int, Any]]:
    """Give each frame the slots at which it is due and at which it ends.

    A missing time stamp or duration is derived from the previous frame, as in the ffmpeg program.
    """
    tick = stream.time_base
    start = _nearest(_start(container) / tick)
    step = _nearest(1 / (stream.average_rate * tick)) if stream.average_rate else 1
    before: int | None = None
    for frame in frames:
        made_up = 0 if before is None else before + step
        now = made_up if frame.pts is None else frame.pts - start
        if frame.duration:
            step = frame.duration
        elif before is not None and now > before:
            step = now - before
        yield _nearest(now * tick * rate), _nearest((now + step) * tick * rate), frame
        before = now


def on_grid(spans: Iterable[tuple[int, int, Decoded]]) -> Iterator[tuple[int, Decoded]]:
    """Put frames on a grid as ffmpeg's ``fps`` filter does.

    Parameters
    ----------
    spans
        (slot at which it is due, slot at which it ends, frame), in order of presentation. Only the last end
        is used: every other frame is shown until the next one is due.

    Yields
    ------
    tuple
        (slot, frame), without a hole from the first frame's slot on. Of several frames due at one slot
        the last is shown.
    """
    remaining = iter(spans)
    first = next(remaining, None)
    if first is None:
        return
    slot, end, shown = first
    for due, next_end, frame in remaining:
        while slot < due:
            yield slot, shown
            slot += 1
        end, shown = next_end, frame
    while slot < end:
        yield slot, shown
        slot += 1


class _FrameConverter:
    """Convert decoded frames to upright RGB images with square pixels, all of one size."""

    def __init__(self, pixel_aspect: Fraction) -> None:
        self._size: tuple[int, int] | None = None
        self._matrix: Any | None = None
        sane = Fraction(1, MAX_PIXEL_ASPECT) <= pixel_aspect <= MAX_PIXEL_ASPECT
        self._pixel_aspect = pixel_aspect if sane else Fraction(1)
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        rgb = self._reformatter.reformat(frame, format="rgb24", threads=1)
        image = cast("NDArray[np.uint8]", rgb.to_ndarray())
        height, width = image.shape[:2]
        if self._pixel_aspect > 1:  # the short side is stretched, so that no detail is lost
            width = _nearest(width * self._pixel_aspect)
        else:
            height = _nearest(height / self._pixel_aspect)
        if self._size is None:
            # Read once: PyAV's side data and its frame hold each other until the garbage is collected.
            self._matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
        image = upright(_resized(image, (width, height)), self._matrix)
        self._size = self._size or (image.shape[1], image.shape[0])
        image = np.ascontiguousarray(_resized(image, self._size))  # swscale pads its rows
        image.setflags(write=False)
        return image


def _resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return image if image.shape[1::-1] == size else cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def upright(image: NDArray[np.uint8], matrix: Any | None) -> NDArray[np.uint8]:
    """Rotate and mirror a stored image by its display matrix, rounded to the nearest right angle.

    Parameters
    ----------
    image
        Shape (H, W, 3).
    matrix
        FFmpeg's display matrix, nine native int32 by rows (a buffer or an array), or None: a stored point
        (x, y) is shown at (m0 x + m3 y, m1 x + m4 y), shifted into view.
    """
    if matrix is None:
        return image
    m = np.frombuffer(matrix, dtype=np.int32)
    across, down = m[0], m[4]
    if abs(m[1]) > abs(m[0]):
        image = cv2.transpose(image)
        across, down = m[3], m[1]
    if across < 0:
        image = cv2.flip(image, -1 if down < 0 else 1)
    elif down < 0:
        image = cv2.flip(image, 0)
    return image


@dataclass
class _Run:
    """Continuous sound of one sample rate that starts at `start` seconds."""

    start: Fraction
    rate: int
    blocks: list[NDArray[np.float32]] = field(default_factory=list)
    samples: int = 0

    @property
    def end(self) -> Fraction:
        return self.start + Fraction(self.samples, self.rate)


def _sound_runs(blocks: Iterable[Any], container: Any) -> list[_Run]:
    """Join decoded blocks of sound into runs; a new run begins at a hole or at a change of the rate.

    A time stamp that goes backwards, or is after the container's end, is ignored: the sound continues.
    """
    begin = _start(container)
    length = Fraction(container.duration, 1_000_000) if container.duration else None
    runs: list[_Run] = []
    for block in blocks:
        end = runs[-1].end if runs else Fraction(0)
        time = end if block.pts is None else block.pts * block.time_base - begin
        if length is not None and time >= length:
            time = end
        if not runs or time > end + GAP:
            runs.append(_Run(time, block.sample_rate))
        elif block.sample_rate != runs[-1].rate:
            runs.append(_Run(end, block.sample_rate))
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


def _leap(path: Path, seconds: float) -> ExtractionError:
    return ExtractionError(
        Reason.UNDECODABLE, f"{path}: its time stamps leap to {seconds:.0f} s; a clip may last {LONGEST} s"
    )


def _laid_out(runs: list[_Run], rate: int) -> NDArray[np.float32]:
    """Resample every run and put it at its time; samples before the start are cut."""
    pieces = [(_nearest(run.start * rate), _resampled(run, rate)) for run in runs]
    waveform = np.zeros(max([0, *(start + len(piece) for start, piece in pieces)]), dtype=np.float32)
    for start, piece in pieces:
        waveform[max(start, 0) : max(start + len(piece), 0)] = piece[max(-start, 0) :]
    return waveform


def _resampled(run: _Run, rate: int) -> NDArray[np.float32]:
    samples = np.concatenate(run.blocks)
    if run.rate == rate:
        return samples
    length = -(-len(samples) * rate // run.rate)  # librosa rounds up, soxr to the nearest
    resampled: NDArray[np.float32] = soxr.resample(samples, run.rate, rate, quality="HQ")[:length]
    return np.concatenate([resampled, np.zeros(length - len(resampled), dtype=np.float32)])
