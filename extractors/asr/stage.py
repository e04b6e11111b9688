"""The declaration of the stage `asr`: the words that a recogniser hears, with their times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from triptych.extractors.base import BackendMissingError, package_version
from triptych.extractors.pretrained import download, keep_model, model_identity, resolve_model
from triptych.extractors.settings import MediaSettings, ModelName, PretrainedSettings, Revision
from triptych.extractors.stage import BatchExtractor, Downloaded, Input, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = (("start", "s"), ("end", "s"), ("confidence", "probability"))


class AsrSettings(PretrainedSettings):
    """The recogniser."""

    section: ClassVar[str] = "asr"

    backend: Annotated[
        Literal["transformers", "pocketsphinx"],
        Field(description="transformers: Whisper or a CTC model; pocketsphinx: English, its own model."),
    ] = "transformers"
    model: ModelName = "openai/whisper-small"
    revision: Revision = "973afd24965f72e36ca33b3055d56a652f456b4d"
    language: Annotated[
        str,
        Field(
            pattern="^([a-z]{2,3}(-[A-Za-z]+)?)?$",
            description="Code of the language that Whisper writes, such as zh; empty: it detects it.",
        ),
    ] = ""
    batch: Annotated[int, Field(ge=1, le=256, description="Pieces of at most 30 s computed together.")] = 8


def _load(settings: AsrSettings, media: MediaSettings, device: str) -> BatchExtractor:
    from triptych.extractors.asr.recognition import Recognition

    return Recognition(settings, media.sample_rate, device)


def _resolve(settings: AsrSettings) -> AsrSettings:
    if settings.backend == "transformers":
        return resolve_model(settings)
    if package_version("pocketsphinx") is None:
        raise BackendMissingError(
            "asr.backend = pocketsphinx: the package is not installed; `pip install 'triptych[asr-pocketsphinx]'`"
        )
    return settings


def identity(settings: AsrSettings) -> str:
    """Identify the recogniser by what decides its words."""
    if settings.backend == "pocketsphinx":  # its package includes the model
        return f"pocketsphinx {package_version('pocketsphinx')}"
    return model_identity(settings)


def _download(settings: AsrSettings) -> Downloaded | None:
    if settings.backend == "pocketsphinx":
        return None
    return download(settings, lambda found: _load(found, MediaSettings(), "cpu"))


def _resolved_model(own: Mapping[str, Any], new: Mapping[str, Any]) -> Mapping[str, Any]:
    return {} if own.get("backend") == "pocketsphinx" else keep_model(own, new)


STAGE = Stage(
    name="asr",
    row="a word, or a phrase where the model gives no words",
    settings=AsrSettings,
    reads=(Input.WAVEFORM,),
    columns=lambda width: [COLUMNS],
    row_rate=None,
    uneven=True,
    extras={"tokens": "str"},
    load=_load,
    batched=True,
    packages=("av", "onnxruntime", "silero-vad", "soxr", "torch", "transformers"),
    model_identity=identity,
    # The batch only changes speed, and the last digits of confidences.
    identified=frozenset({"model", "revision", "batch"}),
    resolve=_resolve,
    keep_resolved=_resolved_model,
    download=_download,
)
