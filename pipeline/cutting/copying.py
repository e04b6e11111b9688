"""A span of a recording as a file of its own, without encoding it again: from a key frame that lies in the pause."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from triptych.extractors.media.clock import start_time
from triptych.extractors.media.joins import may_jump
from triptych.extractors.media.opening import best_streams, opened, packets

LATE = Fraction(1, 50)  # a key frame this much after the span's start still shows its first frame [s]
_REACH = 2  # sound may be this far before its frames in the file [s]


@dataclass(frozen=True)
class _Place:
    """Where a copy begins: its key frame's time [s] on the streams' own clock, and the clock's zero."""

    time: Fraction
    zero: Fraction


def copy_span(recording: Path, start: float, end: float, earliest: float, target: Path) -> float | None:
    """Copy the packets of a span into a new file of the recording's own format.

    Parameters
    ----------
    start, end
        The span [s].
    earliest
        The copy may begin this early [s], since nobody speaks between that and `start`.

    Returns
    -------
    float or None
        Where the copy begins [s]; None where no key frame allows it, or the format or a codec cannot be copied. Its
        last frames may be a few after `end`.
    """
    with opened(recording) as source:
        if may_jump(source) or _rotated_or_cropped(source):
            return None
        place = _key_frame(source, start, earliest)
    if place is None:
        return None
    with opened(recording) as source:
        try:
            _write(source, place, place.zero + Fraction(end), target)
        except (av.FFmpegError, ValueError):  # a codec that the muxer refuses, or time stamps that it does
            return None
    return float(place.time - place.zero)


def _rotated_or_cropped(source: Any) -> bool:
    """Return whether the container says how to turn its frames: that is not copied with the packets."""
    video, _ = best_streams(source)
    if video is None:
        return False
    source.seek(0)
    for frame in source.decode(video):
        return bool(frame.rotation)
    return True


def _key_frame(source: Any, start: float, earliest: float) -> _Place | None:
    """Return the last key frame at or before a span's start; of sound alone, the start itself."""
    video, audio = best_streams(source)
    zero = start_time(source)
    wanted = zero + Fraction(start)
    if video is None:
        return None if audio is None else _Place(wanted, zero)
    source.seek(int(float(wanted) / video.time_base), stream=video, backward=True)
    found = None
    for packet in packets(source, video):
        if packet.pts is None:
            continue
        time = packet.pts * packet.time_base
        if packet.is_keyframe and time <= wanted + LATE:
            found = time
        # Matroska has no decoding times: the first frames after a seek are without.
        if packet.dts is not None and packet.dts * packet.time_base > wanted + LATE:
            break
    return None if found is None or found < zero + Fraction(earliest) else _Place(found, zero)


def _write(source: Any, place: _Place, end: Fraction, target: Path) -> None:
    streams = [stream for stream in best_streams(source) if stream is not None]
    with av.open(str(target), "w", format=_muxer(source)) as container:
        copies = {stream.index: container.add_stream_from_template(stream) for stream in streams}
        source.seek(int(float(max(place.time - _REACH, place.zero)) * av.time_base), backward=True)
        for packet in _between(_timed(packets(source, *streams)), place.time, end, len(streams)):
            offset = round(place.time / packet.time_base)
            packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
            packet.stream = copies[packet.stream.index]
            container.mux(packet)


def _muxer(source: Any) -> str:
    """Return the muxer of a recording's own kind."""
    names = source.format.name.split(",")
    for demuxed, muxer in (("mp4", "mp4"), ("matroska", "matroska"), ("avi", "avi"), ("flv", "flv")):
        if demuxed in names:
            return muxer
    raise ValueError(source.format.name)


def _timed(found: Iterator[Any]) -> Iterator[Any]:
    """Give packets that have no decoding time the ones before the first that is known of their stream."""
    waiting: dict[int, list[Any]] = {}
    for packet in found:
        if packet.pts is None:
            continue
        waits = waiting.setdefault(packet.stream.index, [])
        if packet.dts is None:
            waits.append(packet)
            continue
        for back, early in enumerate(reversed(waits), start=1):
            early.dts = packet.dts - back * max(early.duration or 0, 1)
        yield from waits
        waits.clear()
        yield packet


def _between(found: Iterator[Any], first: Fraction, end: Fraction, streams: int) -> Iterator[Any]:
    """Yield the packets that show a span, in the file's order.

    A frame after the end may be needed by one before it that follows in the file: it waits until one does.
    """
    waiting: dict[int, list[Any]] = {}
    started: set[int] = set()
    ended: set[int] = set()
    for packet in found:
        index = packet.stream.index
        time, decoded = packet.pts * packet.time_base, packet.dts * packet.time_base
        if decoded >= end:
            ended.add(index)
            if len(ended) == streams:
                return
            continue
        if time < first or (index not in started and not packet.is_keyframe):
            continue
        started.add(index)
        later = waiting.setdefault(index, [])
        if time >= end:
            later.append(packet)
            continue
        yield from later
        later.clear()
        yield packet
