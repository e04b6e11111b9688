"""A second try, with another margin about the face, for clips in which OpenFace finds no face in any frame.

OpenFace's own detector fails at single sizes of a face: a clip of which it reads no frame at one margin may be read
completely at another. Imports no numpy: the stage's declaration reads `identity`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from triptych.extractors.base import BackendMissingError, ExtractionError, Features, Reason
from triptych.extractors.stage import FACES

if TYPE_CHECKING:
    from triptych.extractors.faces.crops import Aligned
    from triptych.extractors.inputs import ClipInputs
    from triptych.extractors.vision.backends import VisionBackend
    from triptych.extractors.vision.stage import VisionSettings

SECOND_MARGIN = 1.7  # side of the crop in boxes; the first one is `crops.STABLE_MARGIN`
_WIDER = f"the rows are those of crops with the margin {SECOND_MARGIN}"


def identity(settings: VisionSettings) -> str:
    """Extend the backend's identity by the second margin; empty where there is none: only stable crops have one."""
    usable = settings.backend == "openface" and settings.input == "stable"
    return f" second margin {SECOND_MARGIN}" if usable else ""


class SecondTry:
    """The clips of a batch, until it is known which of them are to be read again.

    Parameters
    ----------
    backend
        Reads the wider crops of the clips in which it found no face.
    """

    def __init__(self, backend: VisionBackend, settings: VisionSettings) -> None:
        self._backend, self._settings = backend, settings
        self._clips: dict[str, tuple[ClipInputs, Features]] = {}

    def add(self, clip_id: str, clip: ClipInputs) -> None:
        """Remember a clip of the batch, and its face track."""
        if identity(self._settings):
            self._clips[clip_id] = clip, clip.rows(FACES)

    def finish(self, rows: Mapping[str, Features | ExtractionError]) -> Mapping[str, Features | Exception]:
        """Return the batch's rows, those of clips without a face replaced by what the wider crops give."""
        clips, self._clips = self._clips, {}
        lost = [
            clip
            for clip, found in rows.items()
            if clip in clips and isinstance(found, ExtractionError) and found.reason == Reason.NO_FACE
        ]
        again: dict[str, Features | Exception] = {}
        for clip in lost:
            try:
                full = self._backend.add(clip, wider_crops(*clips[clip], self._settings))
            except BackendMissingError:
                raise
            except (
                Exception
            ) as error:  # it concerns this clip alone, such as a file that was replaced meanwhile
                again[clip] = error
                continue
            if full:
                again |= self._backend.finish()
        if lost:
            again |= self._backend.finish()
        return {**rows, **{clip: _noted(found) for clip, found in again.items()}}


def wider_crops(clip: ClipInputs, track: Features, settings: VisionSettings) -> Iterator[Aligned]:
    """Cut the frames of a clip to the tracked face once more, at the second margin."""
    from triptych.extractors.faces.crops import aligned

    return aligned(clip.frames(), widened(track), settings)


def widened(track: Features) -> Features:
    """Return a face track whose stable crops have the second margin."""
    from triptych.extractors.faces.crops import STABLE_MARGIN
    from triptych.extractors.faces.mtcnn import BOX

    # Boxes that are larger about the same centres give crops that are larger by the same factor.
    values = track.values.copy()
    boxes = values[:, BOX]
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    half *= SECOND_MARGIN / STABLE_MARGIN
    boxes[:, :2], boxes[:, 2:] = centre - half, centre + half
    return replace(track, values=values)


def is_wider(note: str) -> bool:
    """Return whether the notes on a clip's vision rows state that its crops have the second margin."""
    return _WIDER in note


def _noted(found: Features | Exception) -> Features | Exception:
    from triptych.extractors.faces.crops import STABLE_MARGIN

    if isinstance(found, Features):
        first = f"no face at the crop margin {STABLE_MARGIN}"
        note = f"{first}: {_WIDER}"
        return replace(found, notes=(*found.notes, note))
    if isinstance(found, ExtractionError) and found.reason == Reason.NO_FACE:
        margins = f"at the crop margin {STABLE_MARGIN} and again at {SECOND_MARGIN}"
        return ExtractionError(found.reason, f"{found.detail}, {margins}")
    return found
