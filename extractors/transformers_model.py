"""Any encoder that transformers loads: what `extractors.bert` is not written for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging


class TransformersModel:
    """Tokens and last hidden states of a model of transformers.

    Parameters
    ----------
    source
        The arguments of its ``from_pretrained``.
    """

    def __init__(self, source: dict[str, Any], device: str) -> None:
        with _quiet_transformers():
            self._tokenizer = AutoTokenizer.from_pretrained(**source)
            self._model = AutoModel.from_pretrained(**source, dtype=torch.float32).eval().to(device)
        self._device = device
        self.max_tokens: int = min(
            self._tokenizer.model_max_length, self._model.config.max_position_embeddings
        )

    def token_ids(self, texts: Sequence[str], limit: int) -> list[tuple[list[int], int]]:
        """Token ids of each sentence, cut to `limit` with its end mark kept, and how many they were before."""
        cut = self._tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"]
        whole = self._tokenizer(list(texts), verbose=False)["input_ids"]
        return [(ids, len(uncut)) for ids, uncut in zip(cut, whole, strict=True)]

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The tokens of ids."""
        tokens: list[str] = self._tokenizer.convert_ids_to_tokens(list(ids))
        return tokens

    def hidden_states(self, sentences: Sequence[Sequence[int]]) -> torch.Tensor:
        """Last hidden states of sentences of N, padded behind: shape (N, longest, hidden size)."""
        inputs = self._tokenizer.pad(
            {"input_ids": [list(ids) for ids in sentences]}, padding_side="right", return_tensors="pt"
        )
        hidden: torch.Tensor = self._model(**inputs.to(self._device)).last_hidden_state
        return hidden


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
