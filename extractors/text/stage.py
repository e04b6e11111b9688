"""The declaration of the text stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from triptych.extractors.settings import MediaSettings, TextSettings
from triptych.extractors.stage import BatchExtractor, Downloaded, Input, Stage, numbered

if TYPE_CHECKING:
    from triptych.extractors.base import Features
    from triptych.extractors.inputs import ClipInputs
    from triptych.extractors.text.encoder import TextEncoder


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


def _model_identity(settings: TextSettings) -> str:
    from triptych.extractors.pretrained import model_identity

    return model_identity(settings)


def _resolve(settings: TextSettings) -> TextSettings:
    from triptych.extractors.pretrained import resolve_model

    return resolve_model(settings)


def _download(settings: TextSettings) -> Downloaded:
    from triptych.extractors.pretrained import downloaded, resolve_model

    resolved = resolve_model(settings)
    _load(
        resolved, MediaSettings(), "cpu"
    )  # as a run loads it, so that exactly the files it opens are cached
    return downloaded(resolved)


def _keep_resolved(own: Mapping[str, object], new: Mapping[str, object]) -> Mapping[str, object]:
    from triptych.extractors.pretrained import keep_revision

    return keep_revision(own, new)


STAGE = Stage(
    name="text",
    row="a token",
    settings=TextSettings,
    reads=(Input.TEXT,),
    columns=lambda width: [numbered("h", width)],
    row_rate=None,
    extras={"tokens": "str", "input_ids": "int32"},
    load=_load,
    batched=True,
    packages=("torch", "transformers"),
    model_identity=_model_identity,
    identified=frozenset({"model", "revision"}),
    resolve=_resolve,
    keep_resolved=_keep_resolved,
    download=_download,
    default=True,
)
