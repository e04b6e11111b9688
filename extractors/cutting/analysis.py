"""Everything that the division of a recording is decided by: one pass over its frames, one over its sound."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import ExtractionError, Reason
from triptych.extractors.cutting.energy import ENERGY_RATE, SAMPLE_RATE, speech_energy
from triptych.extractors.cutting.reading import Recording
from triptych.extractors.cutting.settings import CutSettings
from triptych.extractors.cutting.shots import ShotFinder
from triptych.extractors.cutting.tracks import SIDE, Track, TrackFinder
from triptych.extractors.settings import MediaSettings

if TYPE_CHECKING:
    from triptych.extractors.faces.mtcnn import Mtcnn

Progress = Callable[[float], None]
FORMAT = "triptych-cutting/1"
_SEVERAL = ("track_times", "track_boxes", "track_scores", "track_mouths")


@dataclass(frozen=True)
class Analysis:
    """What is known of a recording.

    Attributes
    ----------
    duration
        Length [s]: the later of the ends of frames and sound.
    frame_size
        Width and height, upright, in square pixels.
    speech
        float32: probability of speech, `voice.RATE` values a second.
    energy
        float32: energy of speech, `energy.ENERGY_RATE` values a second.
    transitions
        float64, shape (N, 2): where shots end and begin [s]; equal at a hard cut.
    tracks
        All faces.
    cpu
        Seconds of CPU by part: ``decode``, ``shots``, ``faces`` and ``sound``.
    notes
        Sentences on what is missing of the recording.
    """

    duration: float
    frame_size: tuple[int, int]
    speech: NDArray[np.float32]
    energy: NDArray[np.float32]
    transitions: NDArray[np.float64]
    tracks: tuple[Track, ...]
    cpu: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        """Write everything to an .npz file."""
        text = {
            "format": FORMAT,
            "duration": self.duration,
            "frame_size": self.frame_size,
            "cpu": self.cpu,
            "notes": self.notes,
        }
        parts = [(track.times, track.boxes, track.scores, track.mouth) for track in self.tracks]
        empty = (
            np.zeros(0),
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.float32),
            np.zeros((0, 3), np.float32),
        )
        joined = [np.concatenate(arrays) for arrays in zip(empty, *parts, strict=True)]
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                about=np.array(json.dumps(text)),
                speech=self.speech,
                energy=self.energy,
                transitions=self.transitions,
                track_lengths=np.array([len(track.times) for track in self.tracks], np.int64),
                **dict(zip(_SEVERAL, joined, strict=True)),
            )

    @classmethod
    def load(cls, path: Path) -> Analysis:
        """Read what `save` wrote; nothing in the file is executed.

        Raises
        ------
        ValueError
            The file is not an analysis, or is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                if about["format"] != FORMAT:
                    raise ValueError(f"its format is {about['format']}")
                ends = np.cumsum(file["track_lengths"])[:-1]
                divided = [np.split(file[name], ends) for name in _SEVERAL]
                tracks = [Track(*arrays) for arrays in zip(*divided, strict=True)]
                return cls(
                    float(about["duration"]),
                    (int(about["frame_size"][0]), int(about["frame_size"][1])),
                    file["speech"],
                    file["energy"],
                    file["transitions"],
                    tuple(tracks) if len(file["track_lengths"]) else (),
                    {name: float(seconds) for name, seconds in about["cpu"].items()},
                    tuple(about["notes"]),
                )
        except (KeyError, TypeError, IndexError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path}: not an intact analysis: {error}. Remove it to analyse again."
            ) from error


class _Costs(dict[str, float]):
    """Seconds of CPU by part."""

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        started = process_time()
        yield
        self[part] = self.get(part, 0.0) + process_time() - started


def analyse(
    path: Path,
    settings: CutSettings,
    media_settings: MediaSettings,
    *,
    progress: Progress | None = None,
    mtcnn: Mtcnn | None = None,
) -> Analysis:
    """Read a recording's frames once and its sound once.

    Parameters
    ----------
    path
        Any file that FFmpeg reads.
    media_settings
        Limits of length and size; the rates of frames and sound are not used.
    progress
        Called with the time [s] that was reached, about once for each second of the recording.
    mtcnn
        The face detector; loaded if it is None.

    Raises
    ------
    ExtractionError
        As for reading frames and sound. A recording without sound has no speech: no error.
    BackendMissingError
        silero-vad is missing.
    """
    costs = _Costs(decode=0.0, shots=0.0, faces=0.0, sound=0.0)
    notes: list[str] = []
    with costs.of("sound"):
        speech, energy = _sound(path, media_settings, notes)
    recording = Recording(path, media_settings)
    shots, tracks = _frames(recording, settings, costs, progress, mtcnn)
    notes += recording.notes
    duration = max(recording.end, len(energy) / ENERGY_RATE)
    return Analysis(
        duration,
        recording.size,
        speech,
        energy,
        shots,
        tuple(tracks),
        dict(costs),
        tuple(dict.fromkeys(notes)),
    )


def _sound(
    path: Path, media_settings: MediaSettings, notes: list[str]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return probabilities and energy of speech; both are empty for a recording without sound."""
    from triptych.extractors.cutting.voice import speech_probabilities
    from triptych.extractors.media.source import MediaSource

    source = MediaSource(path, media_settings.model_copy(update={"sample_rate": SAMPLE_RATE}))
    try:
        waveform = source.waveform()
    except ExtractionError as error:
        if error.reason not in (Reason.NO_AUDIO_STREAM, Reason.EMPTY_AUDIO):
            raise
        notes.append(error.detail)
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    notes += source.notes.sound
    return speech_probabilities(waveform), speech_energy(waveform)


def _frames(
    recording: Recording,
    settings: CutSettings,
    costs: _Costs,
    progress: Progress | None,
    mtcnn: Mtcnn | None,
) -> tuple[NDArray[np.float64], list[Track]]:
    """Return the transitions between shots, and the face tracks."""
    if mtcnn is None:
        from triptych.extractors.faces.mtcnn import Mtcnn

        mtcnn = Mtcnn()
    shots = ShotFinder(settings.cut_threshold)
    tracks = TrackFinder(mtcnn, settings.min_face, 1 / settings.detection_rate)
    frames, due, reported = recording.frames(), 0.0, 0.0
    while True:
        with costs.of("decode"):
            time, frame = next(frames, (0.0, None))
            small = None if frame is None else recording.small(frame)
        if small is None:
            break
        with costs.of("shots"):
            shots.add(time, small)
        if time >= due - 1e-3:
            due = max(due + 1 / settings.mouth_rate, time)
            with costs.of("decode"):
                image = recording.reduced(frame, SIDE)
            with costs.of("faces"):
                tracks.add(time, image)
        if progress is not None and time >= reported + 1:
            reported = time
            progress(time)
    with costs.of("faces"):
        found = tracks.tracks()
    return shots.transitions(), found
