"""The declaration of the vision stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from triptych.extractors.base import UnusableSettingError, package_version
from triptych.extractors.settings import MediaSettings, Settings
from triptych.extractors.stage import BatchExtractor, Downloaded, Input, Stage
from triptych.extractors.vision.columns import VISION_COLUMNS

if TYPE_CHECKING:
    from triptych.extractors.base import Features
    from triptych.extractors.inputs import ClipInputs
    from triptych.extractors.vision.backends import VisionBackend


class VisionSettings(Settings):
    """The vision backend and its input images."""

    backend: Annotated[
        Literal["auto", "facemesh", "openface"],
        Field(
            description="auto: openface where its program is found, else facemesh; decided once per folder."
        ),
    ] = "auto"
    input: Annotated[
        Literal["stable", "original", "frame"],
        Field(
            description="A steady square crop, a crop of each frame's own box (the authors' code), or the whole frame."
        ),
    ] = "stable"
    image_size: Annotated[int, Field(ge=64, le=1024, description="Side of a crop [pixels].")] = 224
    model: Annotated[
        str,
        Field(
            max_length=4096,
            description="A local face_landmarker.task for facemesh; empty: MediaPipe's, fetched once.",
        ),
    ] = ""
    min_confidence: Annotated[
        float,
        Field(ge=0, le=1, description="Rows whose confidence is lower are not valid, with either backend."),
    ] = 0.5
    drop_invalid: Annotated[
        bool, Field(description="Leave out rows without a face, so that time shrinks.")
    ] = False
    average: Annotated[int, Field(ge=1, le=1000, description="Average this many rows into one.")] = 1


class _Crops:
    """Gives the aligned crops to a backend, and condenses its rows according to the settings."""

    def __init__(self, settings: VisionSettings, backend: VisionBackend) -> None:
        from triptych.extractors.vision.margins import SecondTry

        self._settings = settings
        self._backend = backend
        self._second_try = SecondTry(backend, settings)

    @property
    def software(self) -> Mapping[str, str]:
        return self._backend.software

    def add(self, clip_id: str, clip: ClipInputs) -> bool:
        full = self._backend.add(clip_id, clip.crops(self._settings))
        self._second_try.add(clip_id, clip)
        return full

    def finish(self) -> Mapping[str, Features | Exception]:
        found = self._second_try.finish(self._backend.finish())
        return {clip_id: self._condensed(rows) for clip_id, rows in found.items()}

    def _condensed(self, rows: Features | Exception) -> Features | Exception:
        from triptych.extractors.vision.backends import condense

        if isinstance(rows, Exception):
            return rows
        try:
            return condense(rows, self._settings)
        except Exception as error:
            return error


def _load(settings: VisionSettings, media: MediaSettings, device: str) -> BatchExtractor:
    from triptych.extractors.vision.backends import load_backend

    return _Crops(settings, load_backend(settings))


def _resolve(settings: VisionSettings) -> VisionSettings:
    from triptych.extractors.vision.openface import program

    automatic = settings.backend == "auto"
    if automatic:
        settings = settings.model_copy(update={"backend": "openface" if program.find() else "facemesh"})
        if problem := program.invalid_path():
            raise UnusableSettingError(f"vision.backend = auto: {problem}")
    if settings.backend == "openface":
        _check_openface()
    else:
        settings = _check_facemesh(settings)
    return settings


def _check_facemesh(settings: VisionSettings) -> VisionSettings:
    from triptych.extractors.vision.facemesh import bundle

    if package_version("ai-edge-litert") is None:
        raise UnusableSettingError(
            "vision.backend = facemesh: the package ai-edge-litert is not installed. Run "
            "`pip install 'triptych[facemesh]'`, or leave vision out: --only text,audio,faces"
        )
    if settings.model:
        return settings.model_copy(update={"model": str(bundle.model_file(settings.model).resolve())})
    return settings


def _check_openface() -> None:
    from triptych.extractors.vision.openface import program

    found = program.find()
    if found is None:
        missing = program.invalid_path() or "no FeatureExtraction on PATH and OPENFACE_BIN names none"
        raise UnusableSettingError(
            f"vision.backend = openface: {missing}. Install OpenFace 2.x and set OPENFACE_BIN to its "
            "FeatureExtraction, or use --set vision.backend=facemesh"
        )
    if problem := program.problem(found):
        raise UnusableSettingError(f"vision.backend = openface: {problem}")
    program.seconds_allowed(0)  # raises where OPENFACE_SECONDS_PER_FRAME is no number


def _model_identity(settings: VisionSettings) -> str:
    if settings.backend != "openface":
        from triptych.extractors.vision.facemesh import bundle

        return f"face landmarker {bundle.model_identity(settings.model)}"
    from triptych.extractors.vision import margins
    from triptych.extractors.vision.openface import program

    found = program.find()
    if found is None:
        return "openface, not here"
    which = program.identity(found)
    return f"openface {which.program} {which.models}{margins.identity(settings)}"


def _keep_resolved(own: Mapping[str, Any], new: Mapping[str, Any]) -> Mapping[str, Any]:
    """Keep the backend that `auto` was once resolved to in this folder."""
    automatic = new.get("backend", "auto") == "auto"
    return {"backend": own["backend"]} if automatic and own.get("backend") else {}


def _notice(settings: VisionSettings) -> str:
    if settings.backend != "facemesh":
        return ""
    return "vision.backend = facemesh: computed from MediaPipe's face mesh; its values differ from OpenFace's"


def _prepare(settings: VisionSettings, device: str) -> None:
    """Fetch the model file before workers start, so that its progress and its errors come once."""
    if settings.backend != "openface":
        from triptych.extractors.vision.facemesh import bundle

        bundle.model_file(settings.model)


def _download(settings: VisionSettings) -> Downloaded | None:
    settings = _resolve(settings)
    if settings.backend == "openface":
        return None
    from triptych.extractors.vision.facemesh import bundle

    file = bundle.model_file(settings.model)
    return Downloaded(
        settings.model or bundle.NAME, "" if settings.model else bundle.SHA256[:16], str(file.parent)
    )


def _attributes(settings: VisionSettings) -> Mapping[str, str]:
    own = {"backend": settings.backend, "input": settings.input}
    if settings.backend == "openface":
        return own
    from triptych.extractors.vision.facemesh import bundle

    known = bundle.model_identity(settings.model) == bundle.model_identity("")
    return {**own, "model_licence": bundle.LICENCE} if known else own


def _clean_up(whose: Literal["own", "stale"]) -> None:
    from triptych.extractors.vision.openface import scratch

    if whose == "own":
        scratch.remove_own()
    else:
        scratch.remove_stale()


STAGE = Stage(
    name="vision",
    row="a frame",
    settings=VisionSettings,
    reads=(Input.CROPS,),
    columns=lambda width: [VISION_COLUMNS],
    row_rate=lambda settings, media: media.frame_rate / settings.average,
    extras={"confidence": "float32"},
    load=_load,
    batched=True,
    shares_start=lambda settings: settings.backend == "openface",
    packages=("av", "opencv-python-headless"),
    model_identity=_model_identity,
    identified=frozenset({"model"}),
    resolve=_resolve,
    keep_resolved=_keep_resolved,
    attributes=_attributes,
    prepare=_prepare,
    download=_download,
    notice=_notice,
    clean_up=_clean_up,
    default=True,
)
