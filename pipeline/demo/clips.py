"""Makes the demonstration's clips in CH-SIMS layout, and keeps the truth about them beside them."""

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

AUDIO_HOP = 512 / 22050  # seconds between the audio rows of the truth
_LABELS = ("label", "label_T", "label_A", "label_V")
_COLUMNS = ("video_id", "clip_id", "text", *_LABELS, "annotation", "mode")


@dataclass(frozen=True)
class Truth:
    """What is known of a clip because it was made.

    Attributes
    ----------
    roll, shift_x, shift_y, mouth, blink, smile, brow
        By picture k, at k / 30 s, as in `Pose`; float64, shape (T,).
    f0
        Hz by audio row k, at k * 512 / 22050 s; 0 where unvoiced; float64, shape (R,).
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

    The same count and seed give the same files. What is already there and right is left alone, so that an
    interrupted making goes on where it stopped; ``label.csv`` is written last.

    Parameters
    ----------
    folder
        Made where it is missing.
    count
        Clips, six to a video.
    seed
        Of everything drawn.

    Raises
    ------
    ValueError
        Fewer than one clip.
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
    """Read what is known of a clip.

    Parameters
    ----------
    folder
        The one given to `make_clips`.
    clip
        Its id, ``video_id$_$clip_id``.
    """
    video_id, _, clip_id = clip.partition("$_$")
    kept = json.loads(_truth_path(folder, video_id, clip_id).read_text(encoding="utf-8"))
    return Truth(**{field.name: np.array(kept[field.name], float) for field in fields(Truth)})


def _clip_path(folder: Path, script: Script) -> Path:
    return folder / "Raw" / script.video_id / f"{script.clip_id}.mp4"


def _truth_path(folder: Path, video_id: str, clip_id: str) -> Path:
    return folder / "truth" / video_id / f"{clip_id}.json"


def _is_made(folder: Path, script: Script) -> bool:
    """Whether the truth beside the clip is of this script, and the clip's bytes are those it tells of."""
    try:
        kept = json.loads(_truth_path(folder, script.video_id, script.clip_id).read_text(encoding="utf-8"))
        clip = _clip_path(folder, script).read_bytes()
    except (OSError, ValueError):
        return False
    return isinstance(kept, dict) and (kept.get("script"), kept.get("sha256")) == (
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
    for place in (path, truth_path):
        place.parent.mkdir(parents=True, exist_ok=True)
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


def _encode(path: Path, pictures: Iterable[NDArray[np.uint8]], waveform: NDArray[np.float64]) -> None:
    """Write H.264 and AAC; one thread, so that the same pictures give the same bytes."""
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", FRAME_RATE, options={"preset": "superfast", "crf": "18"})
        video.width = video.height = SIZE
        video.pix_fmt = "yuv420p"
        video.thread_count = 1
        audio = container.add_stream("aac", RATE, layout="mono", bit_rate=96000)
        for picture in pictures:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(waveform.astype(np.float32)[None], format="fltp", layout="mono")
        # Without a clock of its own the sound would keep the encoder's 1,024 samples of run-up, 23 ms late.
        sound.sample_rate, sound.time_base, sound.pts = RATE, Fraction(1, RATE), 0
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
