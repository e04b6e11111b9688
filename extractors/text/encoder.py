"""The text stage: one embedding a token, by a BERT-like model of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from triptych.extractors.base import BackendMissingError, Features
from triptych.extractors.columns import text_columns
from triptych.extractors.pretrained import how_to_get
from triptych.extractors.settings import TextSettings

# Padding included: what a core's cache holds, and what fills a graphics card.
BATCH_TOKENS = {"cpu": 256, "cuda": 32768}

_Encoded = tuple[int, list[int]]  # place in the input, token ids


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
        self._tokenizer, model = _load(settings)
        self._model = model.eval().to(device)
        self._device = device
        self._batch_tokens = BATCH_TOKENS[torch.device(device).type]
        limits = (settings.max_tokens, self._tokenizer.model_max_length, model.config.max_position_embeddings)
        self.max_tokens = min(limits)

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
        encoded = self._tokenizer(
            list(texts), truncation=True, max_length=self.max_tokens, return_overflowing_tokens=False
        )["input_ids"]
        results: dict[int, Features] = {}
        for batch in _batches(list(enumerate(encoded)), self._batch_tokens):
            for (place, ids), hidden in zip(batch, self._hidden_states(batch), strict=True):
                results[place] = self._features(ids, hidden, self._note(texts[place], ids))
        return [results[place] for place in range(len(texts))]

    def _hidden_states(self, batch: list[_Encoded]) -> Iterator[NDArray[np.float32]]:
        inputs = self._tokenizer.pad({"input_ids": [ids for _, ids in batch]}, return_tensors="pt")
        with torch.inference_mode():
            hidden = self._model(**inputs.to(self._device)).last_hidden_state.cpu().numpy()
        for (_, ids), rows in zip(batch, hidden, strict=True):
            yield rows[: len(ids)]

    def _features(self, ids: list[int], hidden: NDArray[np.float32], notes: tuple[str, ...]) -> Features:
        names, units = zip(*text_columns(hidden.shape[1]), strict=True)
        return Features(
            values=np.ascontiguousarray(hidden, dtype=np.float32),
            columns=names,
            units=units,
            times=np.full(len(ids), np.nan),
            valid=np.ones(len(ids), dtype=bool),
            extras={
                "tokens": np.array(self._tokenizer.convert_ids_to_tokens(ids), dtype=object),
                "input_ids": np.array(ids, dtype=np.int32),
            },
            notes=notes,
        )

    def _note(self, text: str, ids: list[int]) -> tuple[str, ...]:
        if len(ids) < self.max_tokens:
            return ()
        whole = len(self._tokenizer(text, verbose=False)["input_ids"])
        return (f"cut from {whole} to {len(ids)} tokens",) if whole > len(ids) else ()


def _load(settings: TextSettings) -> tuple[Any, Any]:
    """Load tokenizer and model from the folder, the cache, or else the hub, in this order."""
    folder = Path(settings.model).expanduser()
    local: dict[str, Any] = {"pretrained_model_name_or_path": str(folder), "local_files_only": True}
    hub: dict[str, Any] = {
        "pretrained_model_name_or_path": settings.model,
        "revision": settings.revision or "main",
    }
    # The cache alone first: with everything at hand, a broken network must not cost its timeouts.
    sources = [local] if folder.is_dir() else [{**hub, "local_files_only": True}, hub]
    cause: Exception = OSError("nothing was tried")
    for source in sources:
        try:
            with _quiet_transformers():
                tokenizer = AutoTokenizer.from_pretrained(**source)
                return tokenizer, AutoModel.from_pretrained(**source, dtype=torch.float32)
        except (OSError, ValueError, SafetensorError) as error:
            cause = error
    raise BackendMissingError(how_to_get(settings, str(cause))) from cause


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep loading bars and the report on unused weights (the heads of pre-training) off the terminal."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


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
