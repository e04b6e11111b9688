"""The declaration of the stage `words`: one row for each Chinese character or word of the transcript, with its span."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from triptych.extractors.base import BackendMissingError, package_version
from triptych.extractors.pretrained import download, keep_model, model_identity, resolve_model
from triptych.extractors.settings import MediaSettings, ModelName, PretrainedSettings, Revision
from triptych.extractors.stage import ClipExtractor, Downloaded, Input, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = (("start", "s"), ("end", "s"), ("score", ""))


class WordsSettings(PretrainedSettings):
    """The model that aligns a transcript to the sound."""

    section: ClassVar[str] = "words"

    backend: Annotated[
        Literal["ctc", "pocketsphinx"],
        Field(description="ctc: a CTC model of transformers; pocketsphinx: English, its own model."),
    ] = "ctc"
    model: ModelName = "jonatasgrosman/wav2vec2-large-xlsr-53-chinese-zh-cn"
    revision: Revision = ""
    window: Annotated[
        float,
        Field(ge=5, le=300, description="Seconds that the CTC model reads at once; longer clips in windows."),
    ] = 30.0
    join: Annotated[
        float,
        Field(
            ge=0, le=2, description="Gaps between words up to this long belong to the words beside them [s]."
        ),
    ] = 0.2


def _load(settings: WordsSettings, media: MediaSettings, device: str) -> ClipExtractor:
    if settings.backend == "pocketsphinx":
        from triptych.extractors.words.sphinx import SphinxAligner

        return SphinxAligner(settings, media.sample_rate)
    from triptych.extractors.words.ctc import CtcAligner

    return CtcAligner(settings, media.sample_rate, device)


def _resolve(settings: WordsSettings) -> WordsSettings:
    if settings.backend == "ctc":
        return resolve_model(settings)
    if package_version("pocketsphinx") is None:
        raise BackendMissingError(
            "words.backend = pocketsphinx: the package is not installed; `pip install 'triptych[asr-pocketsphinx]'`"
        )
    return settings


def _identity(settings: WordsSettings) -> str:
    if settings.backend == "pocketsphinx":  # its package includes the model
        return f"pocketsphinx {package_version('pocketsphinx')}"
    return model_identity(settings)


def _download(settings: WordsSettings) -> Downloaded | None:
    if settings.backend == "pocketsphinx":
        return None
    return download(settings, lambda found: _load(found, MediaSettings(), "cpu"))


def _resolved_model(own: Mapping[str, Any], new: Mapping[str, Any]) -> Mapping[str, Any]:
    return {} if own.get("backend") == "pocketsphinx" else keep_model(own, new)


STAGE = Stage(
    name="words",
    row="a Chinese character or a word of the transcript",
    settings=WordsSettings,
    reads=(Input.TEXT, Input.WAVEFORM),
    columns=lambda width: [COLUMNS],
    row_rate=None,
    uneven=True,
    extras={"tokens": "str", "begin": "int32", "stop": "int32"},
    load=_load,
    packages=("av", "numba", "soxr", "torch", "transformers"),
    model_identity=_identity,
    identified=frozenset({"model", "revision"}),
    resolve=_resolve,
    keep_resolved=_resolved_model,
    download=_download,
)
