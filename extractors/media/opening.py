"""Open a media file, choose a stream and decode it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import av
from av.stream import Disposition

from triptych.extractors.base import ExtractionError, Reason


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise ExtractionError(Reason.FILE_MISSING, f"{path}: file not found")
    try:
        # "file:" keeps a colon in a name from being read as a protocol. Titles are often not UTF-8.
        with av.open(f"file:{path}", metadata_errors="replace") as container:
            yield container
    except av.FFmpegError as error:
        raise ExtractionError(Reason.UNDECODABLE, f"{path}: {error.strerror}") from error


def chosen_stream(container: Any, kind: Literal["video", "audio"], path: Path) -> Any:
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


def decoded(container: Any, stream: Any, path: Path) -> Iterator[Any]:
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
