"""Recordings with known content, joined from real clips: for the benches of `triptych cut`, and for its tests.

Of the 24 real clips, 21 have a sound that is not their face's: against the sounds of the others it correlates no better
with the mouth. They serve as faces with a voice-over, as bystanders and as voices. Speakers are the three others, whose
sound fits their mouth better than that of all others, and drawn faces of the demonstration, whose mouth and voice are
made together. Another folder of clips may be given, all of whose faces speak.

A recording is a sequence of pieces: a face that speaks, the same with music under it, two faces of which one speaks, a
face with somebody else's voice, a face that listens, speech without a face, music, and pauses. Each piece's span and
what should become of it are known.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings
from triptych.pipeline.demo.clips import make_clips
from triptych.pipeline.manifest.files import is_media

RATE, SOUND_RATE = 25, 32000
SIZE = (1280, 720)
SPEAKING = ("speaker", "speaker with music", "two faces")
KINDS = {
    "speaker": 0.4,
    "speaker with music": 0.1,
    "two faces": 0.14,
    "voice-over": 0.1,
    "listener": 0.06,
    "no face": 0.08,
    "music": 0.06,
    "silence": 0.06,
}
SETTINGS = MediaSettings(frame_rate=RATE, sample_rate=SOUND_RATE)


@dataclass(frozen=True)
class Piece:
    """One piece of a recording, and what is true of it.

    Attributes
    ----------
    kind
        One of `KINDS`.
    start, end
        Its span [s].
    speech
        Begin and end of the speech in it [s]; None without speech.
    face
        Centre of the speaker's face, as shares of the frame; None where no seen face speaks.
    clip
        The clip that is heard.
    text
        What is said.
    """

    kind: str
    start: float
    end: float
    speech: tuple[float, float] | None
    face: tuple[float, float] | None
    clip: str
    text: str = ""


@dataclass
class Clip:
    """A real clip: its frames, RGB, its sound, and when it speaks [s]."""

    name: str
    frames: list[NDArray[np.uint8]]
    sound: NDArray[np.float32]
    speech: tuple[float, float]
    text: str
    speaks: bool  # the sound is that of the face


def load_clips(folder: Path, drawn: int = 9, speakers: str = "video_retalking") -> list[Clip]:
    """Read all real clips of a folder with their transcripts from its ``label.csv``, and make some drawn ones.

    Parameters
    ----------
    drawn
        How many drawn clips are made.
    speakers
        The part of the names of real clips whose sound is that of the face; empty for all.
    """
    import csv

    table = {}
    if (folder.parent / "label.csv").is_file():
        with (folder.parent / "label.csv").open(encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                table[f"{row['video_id']}/{row['clip_id']}"] = row["text"]
    clips = []
    place = tempfile.TemporaryDirectory()
    make_clips(Path(place.name), drawn)
    drawings = sorted(Path(place.name).rglob("*.mp4"))
    for path in [*sorted(path for path in folder.rglob("*") if is_media(path.name)), *drawings]:
        source = MediaSource(path, SETTINGS)
        sound = source.waveform()
        sound = sound * np.float32(0.1 / max(float(np.sqrt((sound**2).mean())), 1e-4))
        frames = [_fitted(frame.image, SIZE[1]) for frame in source.frames()]
        name = f"{path.parent.name}/{path.stem}"
        speaks = path in drawings or speakers in name
        clips.append(Clip(name, frames, sound, speech_of(sound), table.get(name, ""), speaks))
    place.cleanup()
    return clips


def speech_of(sound: NDArray[np.float32]) -> tuple[float, float]:
    """Return begin and end of the loud part of a clean clip: 30 dB below its loudest 20 ms, without any network."""
    step = SOUND_RATE // 100
    power = np.array([(sound[k : k + 2 * step] ** 2).mean() for k in range(0, len(sound) - step, step)])
    loud = np.flatnonzero(power > power.max() / 1000)
    return float(loud[0]) / 100, float(loud[-1] + 2) / 100


def _fitted(image: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    scale = height / image.shape[0]
    return cv2.resize(image, (round(image.shape[1] * scale), height), interpolation=cv2.INTER_AREA)


@dataclass
class _Part:
    """A piece before it has a time: its images, its sound, and where speech and speaker are in it."""

    kind: str
    images: list[NDArray[np.uint8]]
    sound: NDArray[np.float32]
    speech: tuple[float, float] | None
    face: tuple[float, float] | None
    clip: Clip


def make_recording(
    clips: list[Clip], path: Path, seconds: float, seed: int, kinds: Mapping[str, float] = KINDS
) -> list[Piece]:
    """Write a recording of at least this length, and its truth beside it as JSON; return the truth.

    Parameters
    ----------
    kinds
        How often each kind of piece comes.
    """
    rng = np.random.default_rng(seed)
    pieces: list[Piece] = []
    with av.open(str(path), "w") as container:
        video = container.add_stream(
            "libx264", RATE, options={"preset": "ultrafast", "crf": "23", "g": "125"}
        )
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        audio = container.add_stream("aac", SOUND_RATE, layout="mono", bit_rate=96000)
        slot = 0
        for part in _parts(clips, rng, kinds):
            start = slot / RATE
            end = start + len(part.images) / RATE
            speech = part.speech and (start + part.speech[0], start + part.speech[1])
            text = part.clip.text if part.speech else ""
            pieces.append(Piece(part.kind, start, end, speech, part.face, part.clip.name, text))
            _write(container, video, audio, part, slot, rng)
            slot += len(part.images)
            if slot / RATE >= seconds:
                break
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    path.with_suffix(".json").write_text(json.dumps([asdict(piece) for piece in pieces]), encoding="utf-8")
    return pieces


def read_truth(path: Path) -> list[Piece]:
    """Read the truth beside a recording."""
    return [Piece(**each) for each in json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))]


def _write(container: Any, video: Any, audio: Any, part: _Part, slot: int, rng: np.random.Generator) -> None:
    for number, image in enumerate(part.images):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = slot + number, Fraction(1, RATE)
        container.mux(video.encode(frame))
    count = len(part.images) * SOUND_RATE // RATE
    sound = np.zeros(count, np.float32)
    sound[: len(part.sound)] = part.sound[:count]
    sound += rng.normal(0, 3e-4, count).astype(np.float32)  # no recording is silent
    frame = av.AudioFrame.from_ndarray(np.clip(sound, -1, 1)[None], format="fltp", layout="mono")
    frame.sample_rate, frame.time_base = SOUND_RATE, Fraction(1, SOUND_RATE)
    frame.pts = slot * SOUND_RATE // RATE
    container.mux(audio.encode(frame))


def _parts(clips: list[Clip], rng: np.random.Generator, shares_of: Mapping[str, float]) -> Iterator[_Part]:
    kinds, shares = list(shares_of), np.array(list(shares_of.values()))
    previous = None
    while True:
        kind = str(rng.choice(kinds, p=shares / shares.sum()))
        speakers = [one for one in clips if one.speaks]
        among = speakers if kind in SPEAKING else clips
        clip = among[int(rng.integers(len(among)))]
        part = _part(kind, clip, clips, rng)
        if previous is not None and rng.random() < 0.5:
            yield _pause(previous, rng)
        yield part
        previous = part


def _part(kind: str, clip: Clip, clips: list[Clip], rng: np.random.Generator) -> _Part:
    count = round(len(clip.sound) / SOUND_RATE * RATE)
    place = float(rng.uniform(0.3, 0.7))
    if kind in ("speaker", "speaker with music"):
        sound = clip.sound
        if kind == "speaker with music":
            sound = sound + _music(len(sound), rng) * np.float32(0.1)
        return _Part(kind, _placed([(clip, place)], count, rng), sound, clip.speech, (place, 0.4), clip)
    other = _other(clip, clips, rng)
    if kind == "two faces":
        left = bool(rng.random() < 0.5)
        order = [(clip, 0.25), (other, 0.75)] if left else [(other, 0.25), (clip, 0.75)]
        images = _placed(order, count, rng)
        return _Part(kind, images, clip.sound, clip.speech, (0.25 if left else 0.75, 0.4), clip)
    if kind == "voice-over":
        return _Part(kind, _placed([(other, place)], count, rng), clip.sound, clip.speech, None, clip)
    if kind == "listener":
        images = _placed([(_still(other), place)], count, rng)
        return _Part(kind, images, clip.sound, clip.speech, None, clip)
    if kind == "no face":
        return _Part(kind, _scenery(count, rng), clip.sound, clip.speech, None, clip)
    sound = _music(len(clip.sound), rng) if kind == "music" else np.zeros(len(clip.sound), np.float32)
    return _Part(kind, _placed([(other, place)], count, rng), sound, None, None, clip)


def _other(clip: Clip, clips: list[Clip], rng: np.random.Generator) -> Clip:
    """Choose a clip with other words: some clips share their sound."""
    others = [
        one
        for one in clips
        if one.name != clip.name
        and (not clip.text or one.text != clip.text)
        and abs(len(one.sound) - len(clip.sound)) > SOUND_RATE // 50
    ]
    return others[int(rng.integers(len(others)))]


def _still(clip: Clip) -> Clip:
    """Make a face that listens: the clip's first frames, before it speaks, to and fro."""
    first = clip.frames[: max(4, round(clip.speech[0] * RATE))]
    return Clip(clip.name, [*first, *first[-2:0:-1]], clip.sound, clip.speech, clip.text, False)


def _pause(part: _Part, rng: np.random.Generator) -> _Part:
    count = round(float(rng.uniform(0.4, 2.5)) * RATE)
    return _Part("silence", [part.images[-1]] * count, np.zeros(0, np.float32), None, None, part.clip)


def _placed(faces: list[tuple[Clip, float]], count: int, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Draw clips on a plain wall, each at its place, looped to the piece's length."""
    wall = np.full((SIZE[1], SIZE[0], 3), rng.integers(30, 200, 3), np.uint8)
    limit = SIZE[0] // len(faces)
    scale = float(rng.uniform(0.6, 1.0))
    light = float(rng.uniform(0.8, 1.1))
    images = []
    for number in range(count):
        image = wall.copy()
        for clip, place in faces:
            frame = clip.frames[number % len(clip.frames)]
            width = min(round(frame.shape[1] * scale), limit)
            small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            middle = small.shape[1] // 2
            small = small[:, max(0, middle - width // 2) : middle - width // 2 + width]
            left = int(np.clip(place * SIZE[0] - small.shape[1] / 2, 0, SIZE[0] - small.shape[1]))
            lit = cv2.convertScaleAbs(small, alpha=light)
            image[SIZE[1] - small.shape[0] :, left : left + small.shape[1]] = lit
        images.append(image)
    return images


def _scenery(count: int, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Draw moving stripes."""
    tile = cv2.resize(rng.integers(0, 255, (6, 16, 3)).astype(np.uint8), (2 * SIZE[0], SIZE[1]))
    return [np.ascontiguousarray(tile[:, 4 * (k % 300) : 4 * (k % 300) + SIZE[0]]) for k in range(count)]


def _music(samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Play chords of decaying tones, two a second."""
    time = np.arange(SOUND_RATE) / SOUND_RATE
    sound = np.zeros(samples + SOUND_RATE, np.float32)
    for start in range(0, samples, SOUND_RATE // 2):
        root = 110 * 2 ** (rng.integers(0, 24) / 12)
        for ratio in (1, 1.26, 1.5, 2, 3):
            tone = 0.05 * np.sin(2 * np.pi * root * ratio * time) * np.exp(-3 * time)
            sound[start : start + SOUND_RATE] += tone.astype(np.float32)
    return sound[:samples]


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path, help="folder Raw of real clips")
    parser.add_argument("output", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--speakers", default="video_retalking")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    found = load_clips(options.clips, speakers=options.speakers)
    for number in range(1, options.count + 1):
        target = options.output / f"recording_{number}.mp4"
        truth = make_recording(found, target, options.minutes * 60, number)
        print(f"{target}: {truth[-1].end:.0f} s, {len(truth)} pieces")
