"""A small BERT whose weights are random: a language model in form, for where none can be downloaded."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save
from transformers import BertConfig, BertModel

from triptych.pipeline.demo.sentences import every_text

NOTICE = (
    "The text model is a small BERT whose weights are random, drawn from a fixed seed and never trained: "
    "it tells words apart and knows nothing of their meaning. Name a trained one for real work."
)

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_PUNCTUATION = "，。！？、：；,.!?"


def make_bert(folder: Path, seed: int = 0, texts: Iterable[str] = ()) -> None:
    """Make a model folder that transformers' ``AutoTokenizer`` and ``AutoModel`` read, 768 wide.

    Chinese is split character by character, as bert-base-chinese does. The same arguments give the same
    bytes; PyTorch's own random state is left as it was.

    Parameters
    ----------
    folder
        Made where it is missing; files in it that belong to a model are replaced, each in one step.
    seed
        Of the weights.
    texts
        Their characters join the vocabulary, beside those of the demonstration's sentences.
    """
    vocabulary = _vocabulary(texts)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=768,
        num_hidden_layers=2,
        num_attention_heads=12,
        intermediate_size=256,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(config)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".making-") as name:
        made = Path(name)
        config.architectures = ["BertModel"]
        config.save_pretrained(made)
        (made / "model.safetensors").write_bytes(save(model.state_dict(), metadata={"format": "pt"}))
        (made / "vocab.txt").write_text("".join(f"{piece}\n" for piece in vocabulary), encoding="utf-8")
        (made / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": 512})
        )
        (made / "README.md").write_text(f"# A BERT with random weights\n\n{NOTICE}\n", encoding="utf-8")
        for path in sorted(made.iterdir(), key=lambda path: path.name == "config.json"):
            path.replace(folder / path.name)


def _vocabulary(texts: Iterable[str]) -> list[str]:
    """The special tokens, then every character met; letters and digits also as a word's continuation."""
    characters = sorted(set("".join("".join((*every_text(), *texts)).split())))
    pieces = dict.fromkeys((*_SPECIAL, *_PUNCTUATION, *characters))
    pieces.update(dict.fromkeys(f"##{each}" for each in characters if each.isascii() and each.isalnum()))
    return list(pieces)
