"""Joins: where the time stamps of a recording jump, and the shifts that make one clock of its parts.

A recording in MPEG-TS, MPEG-PS or Ogg may consist of parts with clocks of their own. FFmpeg shifts a part when one
of its streams jumps, so that streams of unequal length come apart. Here the parts are found first, from the packets
of the whole file, and frames and sound of a part are shifted together.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
from av.format import Flags

from triptych.extractors.media.opening import packets

# FFmpeg's own limits [s]: stamps that fall back by more, or leap by more, begin a new clock.
BACK = Fraction(1, 10)
LEAP = Fraction(10)
# Frames and sound of one part begin within this time [s] of each other.
TOGETHER = Fraction(2)
# Sound of the previous part that is longer than its frames by up to this [s] is cut at a join; encoders pad it.
TAIL = Fraction(1, 10)


@dataclass
class _Segment:
    """Packets of one stream, up to a jump of its stamps. Times are stamps [s].

    Attributes
    ----------
    first
        Number of its first packet among those of its stream.
    position, last
        Places of its first and its last packet among all packets.
    beside
        By stream, the stamp that the other streams had reached at its start.
    """

    stream: int
    first: int
    position: int
    last: int
    start: Fraction
    end: Fraction
    beside: Mapping[int, Fraction]

    @property
    def is_apart(self) -> bool:
        """Whether its clock cannot be the one of the other streams."""
        return any(abs(self.start - stamp) > LEAP for stamp in self.beside.values())


@dataclass(frozen=True)
class Joins:
    """The shifts of a clip, by stream index.

    Attributes
    ----------
    shifts
        (number of the first packet that is shifted, shift [s]), by rising number.
    anchors
        Shifted times [s] at which a later part of the stream begins.
    notes
        Sentences on the jumps, for the user.
    """

    shifts: Mapping[int, tuple[tuple[int, Fraction], ...]] = field(default_factory=dict)
    anchors: Mapping[int, tuple[Fraction, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def apply(self, packet: Any, stream: int, number: int) -> None:
        """Shift the stamps of a stream's packet."""
        shifts = self.shifts.get(stream, ())
        index = bisect_right(shifts, number, key=lambda shift: shift[0])
        if not index:
            return
        ticks = round(shifts[index - 1][1] / packet.time_base)
        if packet.pts is not None:
            packet.pts += ticks
        if packet.dts is not None:
            packet.dts += ticks


def may_jump(container: Any) -> bool:
    """Return whether stamps of this format may jump, as FFmpeg has it."""
    return bool(container.format.flags & Flags.ts_discont.value)


def find_joins(container: Any, video: Any, audio: Any, begin: Fraction) -> Joins:
    """Read all packets of a file and return the shifts of its frames and its sound.

    Parameters
    ----------
    video, audio
        The two streams; either may be None.
    begin
        The container's start [s], for the times in the notes.
    """
    streams = [stream for stream in (video, audio) if stream is not None]
    segments = _segments(container, streams) if streams else {}
    jumped = [s.position for found in segments.values() for s in found if s is not found[0] or s.is_apart]
    if not jumped:
        return Joins()
    jump = min(jumped)
    every = sorted((s for found in segments.values() for s in found), key=lambda s: s.position)
    first = {s.stream: s for s in every if s.position < jump}
    later = [s for s in every if s.position >= jump]
    main = streams[0].index
    shifts = dict.fromkeys(segments, Fraction(0))
    current, ends = first.copy(), {k: segment.end for k, segment in first.items()}
    plan: dict[int, list[tuple[int, Fraction]]] = {k: [] for k in segments}
    anchors: dict[int, list[Fraction]] = {k: [] for k in segments}
    jumps = []
    for part in _parts(later):
        shift = _shift(part, main, shifts, ends, current)
        if not all(shift == shifts[k] and s.start + shift >= ends.get(k, 0) for k, s in part.items()):
            jumps.append(min(s.start for s in part.values()) + shift - begin)  # otherwise one stream pauses
        for k, segment in part.items():
            shifts[k], current[k] = shift, segment
            ends[k] = max(ends.get(k, segment.end + shift), segment.end + shift)
            plan[k].append((segment.first, shift))
            anchors[k].append(segment.start + shift)
    return Joins(
        {k: tuple(found) for k, found in plan.items()},
        {k: tuple(found) for k, found in anchors.items()},
        (_note(jumps),) if jumps else (),
    )


def _segments(container: Any, streams: Iterable[Any]) -> dict[int, list[_Segment]]:
    found: dict[int, list[_Segment]] = {}
    number: dict[int, int] = {}
    reached: dict[int, Fraction] = {}  # the newest decoding stamp of each stream
    due: dict[int, Fraction] = {}  # the stamp that its next packet should have
    for position, packet in enumerate(_readable(container, streams)):
        k = packet.stream.index
        number[k] = number.get(k, -1) + 1
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None:
            continue
        tick = packet.time_base
        time = stamp * tick
        shown = time if packet.pts is None else packet.pts * tick
        length = (packet.duration or 0) * tick
        if k not in reached or time + BACK < reached[k] or abs(time - due[k]) > LEAP:
            beside = {other: at for other, at in reached.items() if other != k}
            new = _Segment(k, number[k], position, position, shown, shown, beside)
            found.setdefault(k, []).append(new)
        segment = found[k][-1]
        segment.last = position
        segment.start, segment.end = min(segment.start, shown), max(segment.end, shown + length)
        reached[k], due[k] = time, time + length
    return found


def _readable(container: Any, streams: Iterable[Any]) -> Iterator[Any]:
    with suppress(av.FFmpegError):  # what follows is not decoded either
        yield from packets(container, *streams)


def _parts(later: Iterable[_Segment]) -> list[dict[int, _Segment]]:
    """Put segments of different streams together that begin one part of the recording."""
    parts: list[dict[int, _Segment]] = []
    newest: dict[int, int] = {}  # the last part that each stream is in
    for segment in later:
        for index in range(newest.get(segment.stream, -1) + 1, len(parts)):
            if all(abs(segment.start - other.start) <= TOGETHER for other in parts[index].values()):
                break
        else:
            index = len(parts)
            parts.append({})
        parts[index][segment.stream] = segment
        newest[segment.stream] = index
    return parts


def _shift(
    part: Mapping[int, _Segment],
    main: int,
    shifts: Mapping[int, Fraction],
    ends: Mapping[int, Fraction],
    current: Mapping[int, _Segment],
) -> Fraction:
    """Return the shift of one part: its frames continue those before it, later where the sound is longer.

    Parameters
    ----------
    main
        The stream of the frames, where there is one.
    shifts, ends, current
        By stream, before this part: its shift, its shifted end [s] and its segment.
    """
    if len(part) == 1:
        (jumped,) = part.values()
        for other, stamp in jumped.beside.items():
            # The other stream goes on with the same stamps: the clock has not changed.
            if abs(jumped.start - stamp) <= TOGETHER and current[other].last > jumped.position:
                return shifts[other]
    seamless = {k: ends[k] - segment.start for k, segment in part.items() if k in ends}
    if not seamless:  # a stream that begins here, where the others are
        return max(
            stamp + shifts[other] - segment.start
            for segment in part.values()
            for other, stamp in segment.beside.items()
        )
    longest = max(seamless.values())
    frames = seamless.get(main, longest)
    return longest if longest > frames + TAIL else frames


def _note(jumps: list[Fraction]) -> str:
    shown = ", ".join(f"{float(at):.1f}" for at in jumps[:5]) + (", ..." if len(jumps) > 5 else "")
    times = "once" if len(jumps) == 1 else f"{len(jumps)} times"
    return f"the time stamps jump {times}, at {shown} s: what follows continues there"
