"""A model folder of bert-base's size with random weights, as fast as the real model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel


def make_bert_base(folder: Path, texts: Iterable[str] = ()) -> None:
    """Write the model folder: 12 layers of 768 units; the characters of `texts`, filled up to 21,128 tokens."""
    torch.manual_seed(0)
    config = BertConfig(vocab_size=21128, architectures=["BertModel"])
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    save_file(BertModel(config).state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set("".join("".join(texts).split())))]
    tokens += [f"[unused{index}]" for index in range(21128 - len(tokens))]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
