"""Test clips whose frames show their number and the pitch of whose sound is its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np

from triptych.extractors.base import Frame

FPS = 30
CELL, CELLS = 16, 4
LOWEST, SLOPE = 400.0, 400.0  # of the sweep [Hz, Hz/s]


def numbered(number: int) -> np.ndarray:
    """Draw a number as bright and dark cells; it survives any codec."""
    bits = np.array([number >> bit & 1 for bit in range(CELLS * CELLS)], np.uint8).reshape(CELLS, CELLS)
    grey = 30 + 190 * np.kron(bits, np.ones((CELL, CELL), np.uint8))
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


def number_of(image: np.ndarray) -> int:
    height, width = (side // CELLS for side in image.shape[:2])
    middle = image[height // 2 :: height, width // 2 :: width, 1].astype(int).ravel() > 125
    return sum(1 << bit for bit, one in enumerate(middle) if one)


def sweep(begin: float, seconds: float, rate: int) -> np.ndarray:
    """Return the sound from `begin` [s] on, shape (n,), int16: its frequency is its time."""
    t = begin + np.arange(round(seconds * rate)) / rate
    return (12000 * np.sin(2 * np.pi * (LOWEST * t + SLOPE * t * t / 2))).astype(np.int16)


def time_of(waveform: np.ndarray, rate: int, at: float) -> float:
    """Read the sound's own time [s] at a time of the waveform; NaN in silence."""
    middle, half = round(at * rate), round(0.03 * rate)
    window = waveform[max(middle - half, 0) : middle + half]
    if len(window) < 2 * half or np.abs(window).max() < 0.05 or np.abs(window[:: half // 4]).max() == 0:
        return float("nan")
    spectrum = np.abs(np.fft.rfft(window * np.hanning(len(window)), 1 << 16))
    return (spectrum.argmax() * rate / (1 << 16) - LOWEST) / SLOPE


def shown(frames: Sequence[Frame]) -> list[tuple[int, int]]:
    """Return (slot, number) of every row."""
    return [(frame.slot, number_of(frame.image)) for frame in frames]


def out_of_step(frames: Sequence[Frame], waveform: np.ndarray, rate: int) -> list[float]:
    """Return by how much [s] the sound is ahead of the frames, at every fifth new frame with sound."""
    new = [b for a, b in pairwise(frames) if b.image is not a.image]
    times = [(frame.time, number_of(frame.image) / FPS) for frame in new[4:-4:5]]
    found = [time_of(waveform, rate, at + 0.5 / FPS) - content - 0.5 / FPS for at, content in times]
    return [delay for delay in found if not np.isnan(delay)]


def write_numbered(
    path: Path,
    *,
    video: str | None = "libx264",
    audio: str | None = "aac",
    first: int = 0,
    count: int = 120,
    sound: tuple[float, float] | None = None,
    rate: int = 48000,
    layout: str = "mono",
    pixels: str = "yuv420p",
    fps: Fraction = Fraction(FPS),
    video_options: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    format: str | None = None,
    alter: Callable[[Any], Any] = lambda packet: packet,
) -> Path:
    """Write frames `first` to `first + count` and the sound of that time.

    Parameters
    ----------
    sound
        From and to [s] on the clip's clock; by default as long as the frames.
    alter
        Changes a packet before it is muxed, such as its stamps; None leaves it out.
    """
    begin, end = sound or (first / float(fps), (first + count) / float(fps))
    with av.open(str(path), "w", format=format, options=options or {}) as container:
        streams: list[tuple[Any, Iterator[Any]]] = []
        if video:
            stream = container.add_stream(video, rate=fps, options=video_options or {})
            stream.width = stream.height = CELL * CELLS
            stream.pix_fmt = pixels
            streams.append((stream, _images(range(first, first + count), first, fps, pixels)))
        if audio:
            stream = container.add_stream(audio, rate=rate, layout=layout)
            stream.bit_rate = 96000
            at = round((begin - first / float(fps)) * rate)
            streams.append((stream, _blocks(sweep(begin, end - begin, rate), rate, at, stream)))
        for stream, frames in streams:
            for frame in frames:
                _mux(container, stream.encode(frame), alter)
            _mux(container, stream.encode(None), alter)
    return path


def _mux(container: Any, packets: Sequence[Any], alter: Callable[[Any], Any]) -> None:
    for packet in packets:
        if (altered := alter(packet)) is not None:
            container.mux(altered)


def _images(numbers: Sequence[int], first: int, fps: Fraction, pixels: str) -> Iterator[Any]:
    for number in numbers:
        frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24").reformat(format=pixels)
        frame.pts, frame.time_base = number - first, 1 / fps
        yield frame


def _blocks(samples: np.ndarray, rate: int, at: int, stream: Any) -> Iterator[Any]:
    size = stream.codec_context.frame_size or 1024
    resampler = av.AudioResampler(stream.format.name, stream.layout, rate)
    for begin in range(0, len(samples), size):
        frame = av.AudioFrame.from_ndarray(samples[None, begin : begin + size], "s16", "mono")
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), at + begin
        yield from resampler.resample(frame)


def shifted(seconds: float, kinds: Sequence[str] = ("video", "audio")) -> Callable[[Any], Any]:
    """Return an `alter` that adds to the stamps of streams of some kinds."""

    def alter(packet: Any) -> Any:
        if packet.stream.type in kinds:
            ticks = round(seconds / packet.time_base)
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
        return packet

    return alter


def joined(path: Path, *parts: Path) -> Path:
    """Write recordings one after the other, as `cat` does."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path
