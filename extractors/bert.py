"""BERT's encoder and its tokens, from a model's own files.

J. Devlin et al., "BERT: pre-training of deep bidirectional transformers", NAACL 2019: embeddings of words and
places, then layers of self-attention and of a dense pair, each added to what it read and normalised. It is what
transformers computes, without the seven seconds of other models' code that transformers imports for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing
from torch.nn import functional

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# What this encoder is written for, in the words of config.json and of tokenizer_config.json; a model that
# says otherwise is for transformers to load.
MODEL = {
    "model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute",
    "is_decoder": False, "add_cross_attention": False,
}  # fmt: skip
TOKENIZER = {f"{token[1:-1].lower()}_token": token for token in SPECIAL}
TOKENIZER_CLASSES = ("BertTokenizer", "BertTokenizerFast")


class Bert:
    """One model: tokens and last hidden states. `load_bert` makes it.

    Parameters
    ----------
    config
        As config.json has it.
    weights
        By transformers' names, without the ``bert.`` that models with a head put before them.
    tokenizer
        Sentences to tokens.
    """

    def __init__(
        self, config: Mapping[str, Any], weights: Mapping[str, torch.Tensor], tokenizer: Tokenizer
    ) -> None:
        self._layers, self._heads = config["num_hidden_layers"], config["num_attention_heads"]
        self._epsilon = config.get("layer_norm_eps", 1e-12)
        self._weights = weights
        self._tokenizer = tokenizer
        self.max_tokens: int = weights["embeddings.position_embeddings.weight"].shape[0]

    def token_ids(self, texts: Sequence[str], limit: int) -> list[tuple[list[int], int]]:
        """Token ids of each sentence, cut to `limit` with [SEP] kept, and how many they were before."""
        whole = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        return [(ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]], len(ids)) for ids in whole]

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The tokens of ids."""
        return [str(self._tokenizer.id_to_token(each)) for each in ids]

    def hidden_states(self, sentences: Sequence[Sequence[int]]) -> torch.Tensor:
        """Last hidden states of sentences of N, padded behind: shape (N, longest, hidden size)."""
        w = self._weights
        device = w["embeddings.word_embeddings.weight"].device
        longest = max(map(len, sentences))
        ids = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in sentences], device=device)
        lengths = torch.tensor([len(ids) for ids in sentences], device=device)
        seen = torch.arange(longest, device=device) < lengths[:, None]
        mask = None if bool(seen.all()) else seen[:, None, None, :].expand(-1, -1, longest, -1)
        words = functional.embedding(ids, w["embeddings.word_embeddings.weight"])
        words = words + w["embeddings.token_type_embeddings.weight"][0]
        x = self._normed("embeddings", words + w["embeddings.position_embeddings.weight"][:longest])
        for layer in range(self._layers):
            x = self._layer(f"encoder.layer.{layer}", x, mask)
        return x

    def _layer(self, name: str, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        query, key, value = (
            self._dense(f"{name}.attention.self.{which}", x)
            .view(*x.shape[:2], self._heads, -1)
            .transpose(1, 2)
            for which in ("query", "key", "value")
        )
        heads = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        attended = self._dense(f"{name}.attention.output.dense", heads.transpose(1, 2).flatten(2))
        x = self._normed(f"{name}.attention.output", attended + x)
        widened = functional.gelu(self._dense(f"{name}.intermediate.dense", x))
        return self._normed(f"{name}.output", self._dense(f"{name}.output.dense", widened) + x)

    def _dense(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _normed(self, name: str, x: torch.Tensor) -> torch.Tensor:
        w, place = self._weights, f"{name}.LayerNorm"
        return functional.layer_norm(x, x.shape[-1:], w[f"{place}.weight"], w[f"{place}.bias"], self._epsilon)


def load_bert(folder: Path, device: str) -> Bert | None:
    """Load a model's folder; None where it is not all there, or is for transformers to load.

    Raises
    ------
    OSError, ValueError, safetensors.SafetensorError
        A file cannot be read.
    """
    names = ("config.json", "tokenizer_config.json")
    if not all((folder / name).is_file() for name in names):
        return None
    config, words = (json.loads((folder / name).read_text(encoding="utf-8")) for name in names)
    if any(config.get(name, value) != value for name, value in MODEL.items()):
        return None
    tokenizer = _load_tokenizer(folder, words)
    weights = _load_weights(folder, device)
    if tokenizer is None or weights is None:
        return None
    bert = Bert(config, weights, tokenizer)
    bert.max_tokens = min(bert.max_tokens, words.get("model_max_length", bert.max_tokens))
    return bert


def _load_weights(folder: Path, device: str) -> dict[str, torch.Tensor] | None:
    if (file := folder / "model.safetensors").is_file():
        stored = load_file(file, device=device)
    elif (file := folder / "pytorch_model.bin").is_file():
        stored = torch.load(file, map_location=device, weights_only=True)
    else:
        return None
    # Weights that were brought over from TensorFlow call a normalisation's two gamma and beta.
    named = {
        name.removeprefix("bert.").replace(".gamma", ".weight").replace(".beta", ".bias"): values.float()
        for name, values in stored.items()
    }
    return named if "embeddings.position_embeddings.weight" in named else None


def _load_tokenizer(folder: Path, words: Mapping[str, Any]) -> Tokenizer | None:
    """WordPiece as BERT has it, with the flags of tokenizer_config.json, over tokenizer.json's words or vocab.txt's."""
    plain = {name: value["content"] if isinstance(value, dict) else value for name, value in words.items()
             if name in TOKENIZER}  # fmt: skip
    added = {token["content"] for token in words.get("added_tokens_decoder", {}).values()}
    if (
        words.get("tokenizer_class", TOKENIZER_CLASSES[0]) not in TOKENIZER_CLASSES
        or any(plain.get(name, token) != token for name, token in TOKENIZER.items())
        or added.difference(SPECIAL)
        or (folder / "added_tokens.json").is_file()
    ):
        return None
    if (file := folder / "tokenizer.json").is_file():
        vocabulary = json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"]
    elif (file := folder / "vocab.txt").is_file():
        with file.open(encoding="utf-8") as lines:
            vocabulary = {line.rstrip("\n"): place for place, line in enumerate(lines)}
    else:
        return None
    if not vocabulary.keys() >= set(SPECIAL):
        return None
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(
        clean_text=True,
        handle_chinese_chars=words.get("tokenize_chinese_chars", True),
        strip_accents=words.get("strip_accents"),
        lowercase=words.get("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = BertProcessing(*((mark, vocabulary[mark]) for mark in ("[SEP]", "[CLS]")))
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer
