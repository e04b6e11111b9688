"""The language model in transformers on torch: the reference, and the source of exports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from triptych.extractors.pretrained import load_pretrained
from triptych.extractors.text.stage import TextSettings


class TorchModel:
    """A tokenizer and a model of transformers.

    Parameters
    ----------
    settings
        The model and its revision.
    device
        The device, by torch's name.

    Raises
    ------
    BackendMissingError
        The model is neither a folder, nor in the cache, nor on the hub.
    """

    def __init__(self, settings: TextSettings, device: str = "cpu") -> None:
        self.tokenizer, model = _load(settings)
        self.model = model.eval().to(device)
        self._device = device
        self.longest = _longest(self.tokenizer, self.model)
        self.padding_id = int(self.tokenizer.pad_token_id or 0)

    def token_ids(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Split texts into token ids, special ones included, at most `max_tokens` of each text."""
        encoded = self.tokenizer(
            list(texts), truncation=True, max_length=max_tokens, return_overflowing_tokens=False
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def whole_length(self, text: str) -> int:
        """Count the tokens of a text that is not cut."""
        return len(self.tokenizer(text, verbose=False)["input_ids"])

    def tokens(self, ids: list[int]) -> list[str]:
        """Name the tokens with these ids."""
        named: list[str] = self.tokenizer.convert_ids_to_tokens(ids)
        return named

    def hidden_states(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Compute the last hidden states, shape (B, T, D), of padded token ids and their mask, shape (B, T)."""
        with torch.inference_mode():
            hidden: NDArray[np.float32] = (
                self.model(
                    input_ids=torch.from_numpy(ids).to(self._device),
                    attention_mask=torch.from_numpy(mask).to(self._device),
                )
                .last_hidden_state.cpu()
                .numpy()
            )
        return hidden


def _load(settings: TextSettings) -> tuple[Any, Any]:
    """Load tokenizer and model from the folder, the cache, or else the hub, in this order."""

    def both(**source: Any) -> tuple[Any, Any]:
        tokenizer = AutoTokenizer.from_pretrained(**source)
        return tokenizer, AutoModel.from_pretrained(**source, dtype=torch.float32)

    return load_pretrained(settings, both)


def _longest(tokenizer: Any, model: Any) -> int:
    """Return the longest sequence that both tokenizer and model can take."""
    longest = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", 8192))
    positions = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    if isinstance(positions, torch.nn.Embedding) and positions.padding_idx is not None:
        # RoBERTa's positions start after the padding position.
        longest = min(longest, positions.num_embeddings - positions.padding_idx - 1)
    return int(longest)
