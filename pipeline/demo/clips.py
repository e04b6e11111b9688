"""The demonstration's clips in CH-SIMS layout, with their ground truth in JSON files."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from triptych.pipeline.atomic import replacing, write_whole
from triptych.pipeline.demo.face import SIZE, Portrait, Pose
from triptych.pipeline.demo.motion import FRAME_RATE, act
from triptych.pipeline.demo.script import Script, write_scripts
from triptych.pipeline.demo.sentences import count_syllables
from triptych.pipeline.demo.voice import RATE, Speech, choose_manner, speak

AUDIO_HOP = 512 / 22050  # seconds between the audio rows of the ground truth
_LABELS = ("label", "label_T", "label_A", "label_V")
_COLUMNS = ("video_id", "clip_id", "text", *_LABELS, "annotation", "mode")


@dataclass(frozen=True)
class Truth:
    """The ground truth of a clip.

    Attributes
    ----------
    roll, shift_x, shift_y, mouth, blink, smile, brow
        Pose in frame k, at k / 30 s, in the units of `Pose`; float64, shape (T,).
    f0
        Pitch in audio row k, at k * 512 / 22050 s, in Hz; 0 where unvoiced; float64, shape (R,).
    """

    roll: NDArray[np.float64]
    shift_x: NDArray[np.float64]
    shift_y: NDArray[np.float64]
    mouth: NDArray[np.float64]
    blink: NDArray[np.float64]
    smile: NDArray[np.float64]
    brow: NDArray[np.float64]
    f0: NDArray[np.float64]


def make_clips(folder: Path, count: int = 48, seed: int = 0) -> None:
    """Make ``label.csv``, ``Raw/<video_id>/<clip_id>.mp4`` and ``truth/<video_id>/<clip_id>.json``.

    The same count and seed give the same files. Clips that exist and are intact are not made again, so that an
    interrupted run continues; ``label.csv`` is written last.

    Parameters
    ----------
    folder
        Created if it is missing.
    count
        Number of clips; six belong to one video.
    seed
        Seed of all random numbers.

    Raises
    ------
    ValueError
        `count` is less than 1.
    """
    scripts = write_scripts(count, seed)
    portrait = Portrait()
    for script in scripts:
        if not _is_made(folder, script):
            _make_clip(folder, script, portrait)
    rows = [[getattr(script, column) for column in _COLUMNS] for script in scripts]
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "label.csv") as path, path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([_COLUMNS, *rows])


def read_truth(folder: Path, clip: str) -> Truth:
    """Read the ground truth of a clip.

    Parameters
    ----------
    folder
        The folder that `make_clips` wrote.
    clip
        Its id, ``video_id$_$clip_id``.
    """
    video_id, _, clip_id = clip.partition("$_$")
    stored = json.loads(_truth_path(folder, video_id, clip_id).read_text(encoding="utf-8"))
    return Truth(**{field.name: np.array(stored[field.name], float) for field in fields(Truth)})


def _clip_path(folder: Path, script: Script) -> Path:
    return folder / "Raw" / script.video_id / f"{script.clip_id}.mp4"


def _truth_path(folder: Path, video_id: str, clip_id: str) -> Path:
    return folder / "truth" / video_id / f"{clip_id}.json"


def _is_made(folder: Path, script: Script) -> bool:
    """Check that the clip's ground truth is of this script, and that the video has the recorded checksum."""
    try:
        stored = json.loads(_truth_path(folder, script.video_id, script.clip_id).read_text(encoding="utf-8"))
        clip = _clip_path(folder, script).read_bytes()
    except (OSError, ValueError):
        return False
    return isinstance(stored, dict) and (stored.get("script"), stored.get("sha256")) == (
        script.digest,
        _sha256(clip),
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _make_clip(folder: Path, script: Script, portrait: Portrait) -> None:
    rng = np.random.default_rng(script.seed)
    speech = speak(count_syllables(script.text), choose_manner(script.voice, rng), rng)
    poses = act(script.face, speech.mouth[:: RATE // FRAME_RATE], rng)
    path, truth_path = _clip_path(folder, script), _truth_path(folder, script.video_id, script.clip_id)
    for file in (path, truth_path):
        file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        _encode(unfinished, (portrait.draw(pose) for pose in poses), speech.waveform)
    truth = {
        "script": script.digest,
        "sha256": _sha256(path.read_bytes()),
        "units": {
            "roll": "degree, clockwise",
            "shift": "pixel",
            "f0": "Hz",
            "others": "0 to 1, smile and brow -1 to 1",
        },
        **_truth(poses, speech),
    }
    write_whole(truth_path, json.dumps(truth).encode())


def _truth(poses: list[Pose], speech: Speech) -> dict[str, list[float]]:
    curves = {field.name: [getattr(pose, field.name) for pose in poses] for field in fields(Pose)}
    hop = round(AUDIO_HOP * RATE)
    return {**curves, "f0": [round(float(value), 3) for value in speech.f0[::hop]]}


def _encode(path: Path, images: Iterable[NDArray[np.uint8]], waveform: NDArray[np.float64]) -> None:
    """Write H.264 and AAC; in one thread, so that the same frames give the same bytes."""
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", FRAME_RATE, options={"preset": "superfast", "crf": "18"})
        video.width = video.height = SIZE
        video.pix_fmt = "yuv420p"
        video.thread_count = 1
        audio = container.add_stream("aac", RATE, layout="mono", bit_rate=96000)
        for image in images:
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(waveform.astype(np.float32)[None], format="fltp", layout="mono")
        # Without its own time base the audio would start 23 ms late, by the encoder's 1,024 priming samples.
        sound.sample_rate, sound.time_base, sound.pts = RATE, Fraction(1, RATE), 0
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
