"""The text stage: one embedding a token, by a BERT-like model of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from huggingface_hub import try_to_load_from_cache
from numpy.typing import NDArray
from safetensors import SafetensorError

from extractors.base import BackendMissingError, Features
from extractors.bert import load_bert
from extractors.columns import text_columns
from extractors.hub import how_to_get
from extractors.settings import TextSettings

# Padding included: what a core's cache holds, and what fills a graphics card.
BATCH_TOKENS = {"cpu": 256, "cuda": 32768}

_Encoded = tuple[int, list[int]]  # place in the input, token ids


class LanguageModel(Protocol):
    """What `TextEncoder` asks of a model: `extractors.bert.Bert`, `extractors.transformers_model.TransformersModel`."""

    max_tokens: int

    def token_ids(self, texts: Sequence[str], limit: int) -> list[tuple[list[int], int]]:
        """Token ids of each sentence, cut to `limit` with its end mark kept, and how many they were before."""

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The tokens of ids."""

    def hidden_states(self, sentences: Sequence[Sequence[int]]) -> torch.Tensor:
        """Last hidden states of sentences of N, padded behind: shape (N, longest, hidden size)."""


class TextEncoder:
    """The last hidden state of every token, [CLS] and [SEP] included.

    The paper (section 4.1) takes them from pre-trained Chinese BERT-base: 768 numbers a token.

    Parameters
    ----------
    settings
        The model, its revision and the longest sequence.
    device
        Where torch computes, in its words.

    Raises
    ------
    BackendMissingError
        The model is neither a folder, nor in the cache, nor to be had from the hub.
    """

    def __init__(self, settings: TextSettings, device: str = "cpu") -> None:
        self._model = _load(settings, device)
        self._batch_tokens = BATCH_TOKENS[torch.device(device).type]
        self.max_tokens = min(settings.max_tokens, self._model.max_tokens)

    def extract(self, texts: Sequence[str]) -> list[Features]:
        """Embed sentences, batched by length.

        Parameters
        ----------
        texts
            Any number of sentences, none empty.

        Returns
        -------
        list of Features
            One a sentence, in order: `values` of shape (tokens, hidden size), `times` NaN, extras
            ``tokens`` and ``input_ids``. A sentence over the limit is cut, [SEP] kept, with a note.
        """
        if not texts:
            return []
        encoded = self._model.token_ids(texts, self.max_tokens)
        results: dict[int, Features] = {}
        for batch in _batches([(place, ids) for place, (ids, _) in enumerate(encoded)], self._batch_tokens):
            for (place, ids), hidden in zip(batch, self._hidden_states(batch), strict=True):
                results[place] = self._features(ids, hidden, encoded[place][1])
        return [results[place] for place in range(len(texts))]

    def _hidden_states(self, batch: list[_Encoded]) -> Iterator[NDArray[np.float32]]:
        with torch.inference_mode():
            hidden = self._model.hidden_states([ids for _, ids in batch]).cpu().numpy()
        for (_, ids), rows in zip(batch, hidden, strict=True):
            yield rows[: len(ids)]

    def _features(self, ids: list[int], hidden: NDArray[np.float32], whole: int) -> Features:
        names, units = zip(*text_columns(hidden.shape[1]), strict=True)
        return Features(
            values=np.ascontiguousarray(hidden, dtype=np.float32),
            columns=names,
            units=units,
            times=np.full(len(ids), np.nan),
            valid=np.ones(len(ids), dtype=bool),
            extras={
                "tokens": np.array(self._model.tokens(ids), dtype=object),
                "input_ids": np.array(ids, dtype=np.int32),
            },
            notes=(f"cut from {whole} to {len(ids)} tokens",) if whole > len(ids) else (),
        )


def _load(settings: TextSettings, device: str) -> LanguageModel:
    """Load the model from the folder, the cache, or else the hub, in this order."""
    folder = Path(settings.model).expanduser()
    revision = settings.revision or "main"
    local: dict[str, Any] = {"pretrained_model_name_or_path": str(folder), "local_files_only": True}
    hub: dict[str, Any] = {"pretrained_model_name_or_path": settings.model, "revision": revision}
    if folder.is_dir():
        sources, held = [local], folder
    else:
        # The cache alone first: with everything at hand, a broken network must not cost its timeouts.
        sources = [{**hub, "local_files_only": True}, hub]
        held = Path(str(try_to_load_from_cache(settings.model, "config.json", revision=revision))).parent
    try:
        if bert := load_bert(held, device):
            return bert
    except (OSError, ValueError, SafetensorError) as error:
        raise BackendMissingError(how_to_get(settings, str(error))) from error
    from extractors.transformers_model import TransformersModel

    cause: Exception = OSError("nothing was tried")
    for source in sources:
        try:
            return TransformersModel(source, device)
        except (OSError, ValueError, SafetensorError) as error:
            cause = error
    raise BackendMissingError(how_to_get(settings, str(cause))) from cause


def _batches(encoded: list[_Encoded], most: int) -> Iterator[list[_Encoded]]:
    """Group sentences of like length, so that little of a batch is padding."""
    batch: list[_Encoded] = []
    for item in sorted(encoded, key=lambda item: len(item[1])):
        if batch and len(item[1]) * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch
