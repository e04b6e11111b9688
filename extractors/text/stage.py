"""The declaration of the text stage."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from triptych.extractors.pretrained import download, keep_model, model_identity, resolve_model
from triptych.extractors.settings import MediaSettings, ModelName, PretrainedSettings, Revision
from triptych.extractors.stage import BatchExtractor, Input, Stage, text_columns

if TYPE_CHECKING:
    from triptych.extractors.base import Features
    from triptych.extractors.inputs import ClipInputs
    from triptych.extractors.text.encoder import TextEncoder


class TextSettings(PretrainedSettings):
    """The language model."""

    section: ClassVar[str] = "text"

    model: ModelName = "google-bert/bert-base-chinese"
    revision: Revision = "8f23c25b06e129b6c986331a13d8d025a92cf0ea"
    max_tokens: Annotated[
        int, Field(ge=3, le=8192, description="Longest sequence in tokens, [CLS] and [SEP] included.")
    ] = 512
    runtime: Annotated[
        Literal["onnx", "torch"],
        Field(description="onnx: ONNX Runtime, equal to torch to 1e-5; torch: transformers on torch."),
    ] = "onnx"


class _Texts:
    """Collects the transcripts of a group, so that they are embedded in batches of similar length."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._texts: dict[str, str] = {}

    def add(self, clip_id: str, clip: ClipInputs) -> bool:
        self._texts[clip_id] = clip.text
        return False

    def finish(self) -> Mapping[str, Features | Exception]:
        texts, self._texts = self._texts, {}
        try:
            return dict(zip(texts, self._encoder.extract(list(texts.values())), strict=True))
        except Exception:  # find the sentence that caused it
            return {clip_id: self._alone(text) for clip_id, text in texts.items()}

    def _alone(self, text: str) -> Features | Exception:
        try:
            return self._encoder.extract([text])[0]
        except Exception as error:
            return error


def _load(settings: TextSettings, media: MediaSettings, device: str) -> BatchExtractor:
    from triptych.extractors.text.encoder import TextEncoder

    return _Texts(TextEncoder(settings, device))


def _load_and_export(settings: TextSettings) -> None:
    """Load the model as a run does, so that exactly the files it needs are cached, and export it."""
    from triptych.extractors.model_cache import ExportError
    from triptych.extractors.text.export import ensure_exported
    from triptych.extractors.text.torch_model import TorchModel

    TorchModel(settings)
    if settings.runtime == "onnx":
        with suppress(ExportError):  # a run uses torch then
            ensure_exported(settings)


def _prepare(settings: TextSettings, device: str) -> None:
    from triptych.extractors.text.export import prepare

    prepare(settings, device)


STAGE = Stage(
    name="text",
    row="a token",
    settings=TextSettings,
    reads=(Input.TEXT,),
    columns=lambda width: [text_columns(width)],
    row_rate=None,
    extras={"tokens": "str", "input_ids": "int32"},
    load=_load,
    batched=True,
    packages=("onnxruntime", "tokenizers", "torch", "transformers"),
    model_identity=model_identity,
    identified=frozenset({"model", "revision"}),
    resolve=resolve_model,
    keep_resolved=keep_model,
    prepare=_prepare,
    download=lambda settings: download(settings, _load_and_export),
    default=True,
)
