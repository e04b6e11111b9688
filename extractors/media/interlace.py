"""Deinterlacing by libavfilter's yadif: one frame for each interlaced frame, at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import av

TICK = Fraction(1, 1000)  # yadif needs rising stamps, whatever their unit

Span = tuple[int, int, Any]  # (slot at which it is due, slot at which it ends, frame)


def deinterlaced(spans: Iterable[Span]) -> Iterator[Span]:
    """Deinterlace the frames that are marked as interlaced; a progressive video passes unchanged.

    Parameters
    ----------
    spans
        (slot at which it is due, slot at which it ends, decoded frame), in order of presentation.
    """
    yadif: _Yadif | None = None
    for due, end, frame in spans:
        shape = frame.width, frame.height, frame.format.name
        if yadif is not None and yadif.shape != shape:
            yield from yadif.rest()
            yadif = None
        if yadif is None and not frame.interlaced_frame:
            yield due, end, frame
            continue
        yadif = yadif or _Yadif(shape)
        yield from yadif.push(due, end, frame)
    if yadif is not None:
        yield from yadif.rest()


class _Yadif:
    """The filter for frames of one shape. It needs the frame after each, so it returns them one late."""

    def __init__(self, shape: tuple[int, int, str]) -> None:
        self.shape = shape
        self._waiting: deque[tuple[int, int]] = deque()
        self._pushed = 0
        self._graph = av.filter.Graph()
        if hasattr(self._graph, "threads"):  # PyAV 17.0 leaves libavfilter its default
            self._graph.threads = 1
        width, height, pixels = shape
        self._source = self._graph.add_buffer(width=width, height=height, format=pixels, time_base=TICK)
        yadif = self._graph.add("yadif", "mode=send_frame:deint=interlaced")
        self._sink = self._graph.add("buffersink")
        self._source.link_to(yadif)
        yadif.link_to(self._sink)
        self._graph.configure()

    def push(self, due: int, end: int, frame: Any) -> Iterator[Span]:
        self._waiting.append((due, end))
        frame.pts, self._pushed = self._pushed, self._pushed + 1
        self._source.push(frame)
        yield from self._pulled()

    def rest(self) -> Iterator[Span]:
        self._source.push(None)
        yield from self._pulled()

    def _pulled(self) -> Iterator[Span]:
        while self._waiting:
            try:
                frame = self._sink.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            yield (*self._waiting.popleft(), frame)
