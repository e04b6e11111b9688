"""A model folder of bert-base's size whose weights are random: its speed is the real one's."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel


def make_bert_base(folder: Path, texts: Iterable[str] = ()) -> None:
    """Make it: 12 layers of 768, a vocabulary of the characters of `texts` filled up to bert-base-chinese's 21,128."""
    torch.manual_seed(0)
    config = BertConfig(vocab_size=21128, architectures=["BertModel"])
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    save_file(BertModel(config).state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set("".join("".join(texts).split())))]
    words += [f"[unused{place}]" for place in range(21128 - len(words))]
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
