"""BERT's encoder and its tokens, from a model's own files.

J. Devlin et al., "BERT: pre-training of deep bidirectional transformers", NAACL 2019: embeddings of words and
places, then layers of self-attention and of a dense pair, each added to what it read and normalised. It is what
transformers computes, without the seven seconds of other models' code that transformers imports for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from torch.nn import functional as F

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# The settings that this encoder is written for; a model with others is transformers' to load.
CONFIG = {
    "model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute",
    "is_decoder": False, "add_cross_attention": False,
}  # fmt: skip
TOKENIZER = {"tokenizer_class": "BertTokenizer", **{f"{s[1:-1].lower()}_token": s for s in SPECIAL}}


@dataclass(frozen=True)
class Bert:
    """The encoder of one model.

    Attributes
    ----------
    weights
        By transformers' names, without the ``bert.`` that models with a head put before them.
    """

    weights: Mapping[str, torch.Tensor]
    layers: int
    heads: int
    epsilon: float

    def __call__(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Give the last hidden states, shape (N, T, hidden size), of token ids (N, T) padded behind `lengths`."""
        seen = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        mask = None if bool(seen.all()) else seen[:, None, None, :]
        w = self.weights
        words = F.embedding(ids, w["embeddings.word_embeddings.weight"])
        words = words + w["embeddings.token_type_embeddings.weight"][0]
        x = words + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = self._normed("embeddings", x)
        for layer in range(self.layers):
            x = self._layer(f"encoder.layer.{layer}", x, mask)
        return x

    def _layer(self, name: str, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        query, key, value = (
            self._dense(f"{name}.attention.self.{which}", x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for which in ("query", "key", "value")
        )
        heads = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        attended = self._dense(f"{name}.attention.output.dense", heads.transpose(1, 2).flatten(2))
        x = self._normed(f"{name}.attention.output", attended + x)
        widened = F.gelu(self._dense(f"{name}.intermediate.dense", x))
        return self._normed(f"{name}.output", self._dense(f"{name}.output.dense", widened) + x)

    def _dense(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _normed(self, name: str, x: torch.Tensor) -> torch.Tensor:
        w, place = self.weights, f"{name}.LayerNorm"
        return F.layer_norm(x, x.shape[-1:], w[f"{place}.weight"], w[f"{place}.bias"], self.epsilon)


def load_encoder(folder: Path, device: str) -> Bert | None:
    """Load the encoder of a model's folder; None where transformers must be asked."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    files = [folder / name for name in ("model.safetensors", "pytorch_model.bin") if (folder / name).is_file()]
    if any(config.get(name, value) != value for name, value in CONFIG.items()) or not files:
        return None
    stored = (
        load_file(files[0], device=device)
        if files[0].suffix == ".safetensors"
        else torch.load(files[0], map_location=device, weights_only=True, mmap=True)
    )
    weights = {_name(name): values.float() for name, values in stored.items()}
    bert = Bert(
        weights,
        config["num_hidden_layers"],
        config["num_attention_heads"],
        config.get("layer_norm_eps", 1e-12),
    )
    return bert
