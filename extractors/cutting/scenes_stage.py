"""The declaration of the stage `scenes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triptych.extractors.base import package_version
from triptych.extractors.cutting.settings import ScenesSettings
from triptych.extractors.settings import MediaSettings
from triptych.extractors.stage import Input, Stage

if TYPE_CHECKING:
    from triptych.extractors.base import Features
    from triptych.extractors.inputs import ClipInputs


class _Scenes:
    """The face detector, loaded once, and the settings."""

    def __init__(self, settings: ScenesSettings, mtcnn: Any) -> None:
        self._settings, self._mtcnn = settings, mtcnn

    def extract(self, clip: ClipInputs) -> Features:
        from triptych.extractors.cutting.scenes import extract_scenes

        return extract_scenes(clip.media(), self._settings, self._mtcnn)


def _load(settings: ScenesSettings, media: MediaSettings, device: str) -> _Scenes:
    from triptych.extractors.faces.mtcnn import Mtcnn

    return _Scenes(settings, Mtcnn(device))


def _prepare(settings: ScenesSettings, device: str) -> None:
    from triptych.extractors.faces.onnx_networks import prepare
    from triptych.extractors.faces.stage import FacesSettings

    prepare(FacesSettings(), device)


def _columns(width: int) -> list[Any]:
    from triptych.extractors.cutting.scenes import COLUMNS

    return [COLUMNS]


STAGE = Stage(
    name="scenes",
    row="the begin of a shot, or a face at one moment",
    settings=ScenesSettings,
    reads=(Input.MEDIA,),
    columns=_columns,
    row_rate=None,  # several faces are seen at one time, which is in two columns
    load=_load,
    prepare=_prepare,
    packages=("av", "facenet-pytorch", "onnxruntime", "opencv-python-headless", "torch"),
    model_identity=lambda settings: f"facenet-pytorch {package_version('facenet-pytorch')}",
)
