"""A small BERT with random weights, for machines that cannot download a language model."""

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
    "The text model is a small BERT with random weights from a fixed seed. It was never trained: it "
    "distinguishes words but knows nothing of their meaning. Use a trained model for real work."
)

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_PUNCTUATION = "，。！？、：；,.!?"


def make_bert(folder: Path, seed: int = 0, texts: Iterable[str] = ()) -> None:
    """Make a model folder that transformers' ``AutoTokenizer`` and ``AutoModel`` read, 768 units wide.

    Chinese is split character by character, as by bert-base-chinese. The same arguments give the same bytes;
    PyTorch's random state does not change.

    Parameters
    ----------
    folder
        Created if it is missing; model files in it are replaced, each in one step.
    seed
        Seed of the weights.
    texts
        Texts whose characters are added to the vocabulary of the demonstration's sentences.
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
        unfinished = Path(name)
        config.architectures = ["BertModel"]
        config.save_pretrained(unfinished)
        (unfinished / "model.safetensors").write_bytes(save(model.state_dict(), metadata={"format": "pt"}))
        (unfinished / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary), encoding="utf-8")
        (unfinished / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": 512})
        )
        (unfinished / "README.md").write_text(f"# A BERT with random weights\n\n{NOTICE}\n", encoding="utf-8")
        for path in sorted(unfinished.iterdir(), key=lambda path: path.name == "config.json"):
            path.replace(folder / path.name)


def _vocabulary(texts: Iterable[str]) -> list[str]:
    """The special tokens, then every character; letters and digits also as the continuation of a word."""
    characters = sorted(set("".join("".join((*every_text(), *texts)).split())))
    tokens = dict.fromkeys((*_SPECIAL, *_PUNCTUATION, *characters))
    tokens.update(
        dict.fromkeys(
            f"##{character}" for character in characters if character.isascii() and character.isalnum()
        )
    )
    return list(tokens)
