"""The language model as ONNX Runtime and `tokenizers` run its export: no torch, no transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from triptych.extractors.onnx_runtime import Network

NETWORK, TOKENIZER, FACTS = "model.onnx", "tokenizer.json", "facts.json"


class OnnxModel:
    """An exported language model; its methods are those of `torch_model.TorchModel`.

    Parameters
    ----------
    folder
        What `export.export_model` wrote.
    """

    def __init__(self, folder: Path) -> None:
        facts = json.loads((folder / FACTS).read_bytes())
        self.longest = int(facts["longest"])
        self.padding_id = int(facts["padding_id"])
        self._truncation_side = str(facts["truncation_side"])
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = bool(facts["split_special_tokens"])
        self._network = Network(folder / NETWORK)

    def token_ids(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Split texts into token ids, special ones included, at most `max_tokens` of each text."""
        self._tokenizer.enable_truncation(max_tokens, direction=self._truncation_side)
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]

    def whole_length(self, text: str) -> int:
        """Count the tokens of a text that is not cut."""
        self._tokenizer.no_truncation()
        return len(self._tokenizer.encode(text).ids)

    def tokens(self, ids: list[int]) -> list[str]:
        """Name the tokens with these ids."""
        return [self._tokenizer.id_to_token(each) or "" for each in ids]

    def hidden_states(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Compute the last hidden states, shape (B, T, D), of padded token ids and their mask, shape (B, T)."""
        return self._network(ids, mask)[0]
