"""Mutated media files end in frames and sound, or in a typed reason: no other error, and no endless work."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
from numbered_clips import write_numbered
from seeds import seeded

from triptych.extractors.base import ExtractionError
from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings

PATIENCE = 60.0  # seconds for one file of one second; an ordinary one takes 0.02
ORIGINALS = {
    "a.mp4": {},
    "b.mkv": {"video": "libvpx-vp9", "audio": "libopus"},
    "c.avi": {"video": "mpeg4", "audio": "libmp3lame", "rate": 44100},
    "d.ts": {"video": "mpeg2video", "audio": "mp2"},
    "e.flv": {"video": "flv", "audio": "libmp3lame", "rate": 44100},
    "f.mov": {"video": "mjpeg", "pixels": "yuvj420p", "audio": "pcm_s16le"},
    "g.wmv": {"video": "wmv2", "audio": "wmav2", "rate": 44100},
    "h.ts": {"video_options": {"x264-params": "tff=1"}},
    "i.mpg": {"video": "mpeg1video", "audio": "mp2"},
    "j.ogv": {"video": "libvpx", "audio": "flac"},
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    return {
        name: write_numbered(folder / name, count=30, **options).read_bytes()
        for name, options in ORIGINALS.items()
    }


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Damage a file in one of six ways; most often a few bytes, half of them in its header."""
    out = bytearray(data)
    kind = chance.choice(["bytes", "bytes", "bits", "cut", "remove", "repeat", "zeros"])
    at = chance.randrange(min(len(out), 1024) if chance.random() < 0.5 else len(out))
    length = chance.randrange(1, 2048)
    if kind in ("bytes", "bits"):
        for _ in range(chance.choice([1, 3, 10, 50])):
            place = at if chance.random() < 0.2 else chance.randrange(len(out))
            out[place] = chance.randrange(256) if kind == "bytes" else out[place] ^ 1 << chance.randrange(8)
    elif kind == "cut":
        del out[at:]
    elif kind == "remove":
        del out[at : at + length]
    elif kind == "repeat":
        out[at:at] = out[at : at + length]
    else:
        out[at : at + length] = bytes(len(out[at : at + length]))
    return bytes(out)


def read(path: Path) -> list[str]:
    """Read frames and sound; return what each ended in."""
    source = MediaSource(path, MediaSettings(), buffer_bytes=0)
    ends = []
    for call in (lambda: check_frames(source), lambda: check_sound(source)):
        try:
            call()
            ends.append("read")
        except ExtractionError as error:
            ends.append(str(error.reason) if error.detail else "no detail")
    return [*ends, "noted" if source.notes.frames or source.notes.sound else "without a note"]


def check_frames(source: MediaSource) -> None:
    slots = []
    for frame in source.frames():
        assert frame.image.dtype == np.uint8
        assert frame.image.ndim == 3
        slots.append(frame.slot)
    assert slots == list(range(slots[0], slots[0] + len(slots))) if slots else True


def check_sound(source: MediaSource) -> None:
    waveform = source.waveform()
    assert waveform.dtype == np.float32
    assert np.isfinite(waveform).all()


@pytest.mark.parametrize("files", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_mutated_media_files_are_read_or_refused(tmp_path, originals, files):
    ends: Counter[str] = Counter()
    for number in range(files):
        chance = random.Random(seeded(number))
        name = list(originals)[number % len(originals)]
        path = tmp_path / name
        path.write_bytes(mutated(originals[name], chance))
        started = monotonic()
        try:
            ends.update(read(path))
        except Exception as error:
            raise AssertionError(f"file {number}, a mutation of {name}") from error
        if monotonic() - started > PATIENCE:
            ends[f"slow: file {number} of {name}"] += 1
    print(dict(ends))
    assert not any(end.startswith("slow") for end in ends)
    assert not ends["no detail"]
    assert ends["read"] > files / 2
    assert ends["noted"] > files / 20
