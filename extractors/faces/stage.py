"""The declaration of the faces stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from triptych.extractors.base import package_version
from triptych.extractors.faces.columns import FACE_COLUMNS
from triptych.extractors.settings import MediaSettings, Settings
from triptych.extractors.stage import FACES, ClipExtractor, Input, Stage

if TYPE_CHECKING:
    from triptych.extractors.base import Features
    from triptych.extractors.faces.tracker import FaceTracker
    from triptych.extractors.inputs import ClipInputs


class FacesSettings(Settings):
    """The face detector and its track."""

    min_face: Annotated[
        int,
        Field(ge=12, le=640, description="Smallest face searched, in pixels per 640 pixels of frame width."),
    ] = 20
    keyframe_every: Annotated[
        int, Field(ge=1, le=1000, description="Frames between detections on the whole frame.")
    ] = 15
    min_score: Annotated[
        float, Field(gt=0, lt=1, description="A tracked face with a lower score is detected again.")
    ] = 0.8
    runtime: Annotated[
        Literal["onnx", "torch"],
        Field(description="onnx: ONNX Runtime, equal to torch to 1e-5; torch: the networks on torch."),
    ] = "onnx"


class _Tracks:
    def __init__(self, tracker: FaceTracker) -> None:
        self._tracker = tracker

    def extract(self, clip: ClipInputs) -> Features:
        return self._tracker.extract(clip.frames(), clip.face)


def _load(settings: FacesSettings, media: MediaSettings, device: str) -> ClipExtractor:
    from triptych.extractors.faces.tracker import FaceTracker

    return _Tracks(FaceTracker(settings, device))


def _prepare(settings: FacesSettings, device: str) -> None:
    from triptych.extractors.faces.onnx_networks import prepare

    prepare(settings, device)


STAGE = Stage(
    name=FACES,
    row="a frame",
    settings=FacesSettings,
    reads=(Input.FRAMES,),
    columns=lambda width: [FACE_COLUMNS],
    row_rate=lambda settings, media: media.frame_rate,
    extras={"n_faces": "int16"},
    load=_load,
    prepare=_prepare,
    packages=("av", "facenet-pytorch", "onnxruntime", "opencv-python-headless", "torch"),
    model_identity=lambda settings: (
        f"facenet-pytorch {package_version('facenet-pytorch')}"
    ),  # it ships the weights
    default=True,
)
