"""Decode one stream of a clip, and count what of it is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from triptych.extractors.base import ExtractionError, Reason
from triptych.extractors.media.clock import start_time
from triptych.extractors.media.joins import Joins
from triptych.extractors.media.opening import packets

# Formats whose header has the length of each stream, and those whose header has the length of the whole file. Others
# have none, and FFmpeg estimates it.
LENGTH_OF_STREAM = frozenset({"mov", "avi", "flac"})
LENGTH_OF_FILE = frozenset({"matroska", "webm", "flv", "asf"})
# Headers round, and the last packets of a stream may be short: less than this [s] is not missing.
ROUNDING = Fraction(1, 4)


@dataclass
class Tally:
    """What was read of a file while one of its streams was decoded.

    Attributes
    ----------
    decoded, corrupt, refused
        Decoded frames (or blocks of sound); those that the decoder marks as corrupt; packets it gave nothing for.
    flagged
        Packets that the container marks as corrupt: of a transport stream, those after lost data.
    ends
        By stream index: the latest end of a packet [ticks of the stream].
    end
        The latest end of a decoded frame [ticks]; None where frames have no time stamps.
    """

    decoded: int = 0
    corrupt: int = 0
    refused: int = 0
    flagged: int = 0
    ends: dict[int, int] = field(default_factory=dict)
    end: int | None = None

    def count(self, packet: Any, stream: int) -> None:
        """Count a packet's end."""
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is not None:
            end = stamp + (packet.duration or 0)
            if stream not in self.ends or end > self.ends[stream]:
                self.ends[stream] = end

    def count_decoded(self, frame: Any) -> None:
        """Count a frame, or a block of sound."""
        self.decoded += 1
        self.corrupt += frame.is_corrupt
        if frame.pts is not None and (self.end is None or frame.pts + frame.duration > self.end):
            self.end = frame.pts + frame.duration


def decoded(container: Any, stream: Any, path: Path, joins: Joins, tally: Tally) -> Iterator[Any]:
    """Yield the frames that can be decoded: a broken packet is skipped, a broken container ends the stream.

    Raises
    ------
    ExtractionError
        ``undecodable``: no frame at all.
    """
    # Only in these formats the packets of other streams count.
    whole = LENGTH_OF_FILE & formats(container)
    remaining = packets(container) if whole else packets(container, stream)
    failure: av.FFmpegError | None = None
    draining, number = False, -1
    while not draining:
        try:
            packet = next(remaining, None)
        except av.FFmpegError as error:
            packet, failure = None, error
        draining = packet is None  # without a packet, decode() returns the frames left in the decoder
        if packet is not None:
            if packet.stream.index != stream.index:
                tally.count(packet, packet.stream.index)
                continue
            number += 1
            joins.apply(packet, stream.index, number)
            tally.flagged += packet.is_corrupt
            tally.count(packet, stream.index)
        try:
            frames = stream.decode(packet)
        except av.error.EOFError:
            break
        except av.FFmpegError as error:
            failure = error
            tally.refused += packet is not None and packet.size > 0  # an empty packet holds nothing
            continue
        for frame in frames:
            tally.count_decoded(frame)
            yield frame
    if not tally.decoded and (failure is not None or stream.type == "video"):
        cause = failure.strerror if failure is not None else "it has no frame"
        raise ExtractionError(
            Reason.UNDECODABLE, f"{path}: nothing in its {stream.type} stream decodes: {cause}"
        )


def formats(container: Any) -> set[str]:
    """Return the names of a container's format."""
    return set(container.format.name.split(","))


def damage(container: Any, stream: Any, joins: Joins, tally: Tally) -> tuple[str, ...]:
    """Describe what is missing of a decoded stream, in sentences for the user; empty for a whole stream."""
    notes = [*corrupt(stream, joins, tally)]
    end, whole = _lengths(container, stream, tally)
    if whole is not None and whole - end > ROUNDING:
        notes.append(f"{max(float(end), 0.0):.1f} of {float(whole):.1f} s decoded")
    return tuple(notes)


def corrupt(stream: Any, joins: Joins, tally: Tally) -> tuple[str, ...]:
    """Describe what could not be decoded of the packets that were read, in a sentence for the user."""
    flagged = tally.flagged - max(map(len, joins.shifts.values()), default=0)  # a join looks like lost data
    if (bad := max(tally.corrupt + tally.refused, flagged)) > 0:
        kind = "frames" if stream.type == "video" else "packets of sound"
        return (f"{bad} of {tally.decoded + tally.refused} {kind} corrupt",)
    return ()


def _lengths(container: Any, stream: Any, tally: Tally) -> tuple[Fraction, Fraction | None]:
    """Return where the decoded stream ends, and where it should by the header [s from the container's start]."""
    begin = start_time(container)
    names = formats(container)
    ends = {k: ticks * container.streams[k].time_base for k, ticks in tally.ends.items()}
    end = (ends.get(stream.index, begin) if tally.end is None else tally.end * stream.time_base) - begin
    if names & LENGTH_OF_STREAM and stream.duration:
        ticks = max(
            stream.duration, stream.frames if "avi" in names else 0
        )  # FFmpeg fits the first to the file
        return end, ((stream.start_time or 0) + ticks) * stream.time_base - begin
    if names & LENGTH_OF_FILE and container.duration:
        # A stream may be shorter than the file, whose length counts from zero.
        last = max(ends.values(), default=begin)
        return last - min(begin, Fraction(0)), Fraction(container.duration, 1_000_000)
    return end, None
