"""What a loaded stage is given of one clip; each input is made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import ExtractionError, Features, Frame, Reason
from triptych.extractors.stage import FACES, Input, Stage

if TYPE_CHECKING:
    from triptych.extractors.faces.crops import Aligned, CropSettings
    from triptych.extractors.media.source import MediaNotes, MediaSource


class UndeclaredInputError(RuntimeError):
    """A stage asks for an input that it does not declare: a change of that input would leave its rows stale."""


@dataclass(frozen=True)
class ClipInputs:
    """One clip, as one stage reads it. A stage gets only what its declaration names.

    Attributes
    ----------
    stage
        The stage that reads.
    transcript
        The transcript; empty where the clip has none.
    read_waveform, read_frames
        Decode the clip; may be called again.
    read_rows
        Gives the rows of another stage, by its name; raises the `ExtractionError` of that stage where it failed.
    open_media
        Gives the clip's media file, for a stage that reads it in its own way.
    face
        Centre of the speaker's face in the first second, as shares of the frame's width and height; None if unknown.
    """

    stage: Stage
    transcript: str
    read_waveform: Callable[[], NDArray[np.float32]]
    read_frames: Callable[[], Iterable[Frame]]
    read_rows: Callable[[str], Features]
    face: tuple[float, float] | None = None
    open_media: Callable[[], MediaSource] | None = None

    @property
    def text(self) -> str:
        """The transcript."""
        self._check(Input.TEXT)
        return self.transcript

    def waveform(self) -> NDArray[np.float32]:
        """Return the mono waveform, shape (n,), full scale 1, at the recipe's sample rate."""
        self._check(Input.WAVEFORM)
        return self.read_waveform()

    def media(self) -> MediaSource:
        """Return the media file, which the stage reads in its own way; only its path, span and settings are set.

        Raises
        ------
        ExtractionError
            ``file_missing``: the stage runs on arrays.
        """
        self._check(Input.MEDIA)
        if self.open_media is None:
            raise ExtractionError(Reason.FILE_MISSING, f"stage {self.stage.name} reads a file: give path=")
        return self.open_media()

    def frames(self) -> Iterable[Frame]:
        """Return the frames at the recipe's frame rate, in order."""
        self._check(Input.CROPS if Input.CROPS in self.stage.reads else Input.FRAMES)
        return self.read_frames()

    def crops(self, settings: CropSettings) -> Iterator[Aligned]:
        """Cut the frames to the tracked face: one aligned crop a frame, as `crops.aligned` describes."""
        from triptych.extractors.faces.crops import aligned  # OpenCV: a run of text alone needs none

        self._check(Input.CROPS)
        return aligned(self.read_frames(), self.read_rows(FACES), settings)

    def rows(self, name: str) -> Features:
        """Return the rows of another stage of the clip.

        Raises
        ------
        ExtractionError
            That stage failed for this clip.
        """
        if name not in self.stage.upstream:
            raise UndeclaredInputError(
                f"stage {self.stage.name} reads rows of {name}; name it in rows_of of its declaration"
            )
        return self.read_rows(name)

    def _check(self, needed: Input) -> None:
        if needed not in self.stage.reads:
            raise UndeclaredInputError(
                f"stage {self.stage.name} reads {needed}; name Input.{needed.name} in reads of its declaration"
            )


def with_media_notes(features: Features, stage: Stage, notes: MediaNotes | None) -> Features:
    """Add the notes on the media file to rows of a stage: those on the frames, or the sound, that it read."""
    if notes is None:
        return features
    sound = notes.sound if Input.WAVEFORM in stage.reads else ()
    frames = notes.frames if {Input.FRAMES, Input.CROPS} & set(stage.reads) else ()
    return replace(features, notes=tuple(dict.fromkeys((*features.notes, *frames, *sound))))
