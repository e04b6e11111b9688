"""Compare sentences batched by length with sentences one by one: CPU time and numbers.

    python tests/bench/text.py [MANIFEST.csv] [--model BERT_FOLDER] [--sentences 128] [--rounds 3]

MANIFEST.csv has a column ``text``; its first sentences are taken. Without one, sentences of the demonstration
are joined to lengths as in spoken Chinese. The plain implementation calls transformers as its documentation
shows: one sentence, one call of the model. By default the model is a BERT of bert-base's size with random
weights. One process, one thread, taking turns; figures are medians.
"""

from __future__ import annotations

import os

from triptych.pipeline.processes.threads import ONE_THREAD

os.environ.update(ONE_THREAD)

import argparse
import csv
import random
import tempfile
from pathlib import Path

import numpy as np
import torch
from bert_base import make_bert_base
from transformers import AutoModel, AutoTokenizer
from turns import Turns

from triptych.extractors.text.encoder import TextEncoder
from triptych.extractors.text.stage import TextSettings
from triptych.pipeline.demo.sentences import every_text


def sentences(manifest: Path | None, count: int) -> list[str]:
    if manifest is not None:
        with manifest.open(encoding="utf-8-sig", newline="") as lines:
            texts = [row["text"] for row in csv.DictReader(lines) if row["text"].strip()]
    else:
        known, chance = sorted(every_text()), random.Random(0)
        texts = ["".join(chance.choices(known, k=1 + index % 3)) for index in range(count)]
    return texts[:count]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path, nargs="?")
    parser.add_argument("--model", help="a BERT-like model's folder")
    parser.add_argument("--sentences", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    texts = sentences(arguments.manifest, arguments.sentences)
    with tempfile.TemporaryDirectory() as scratch:
        model_folder = arguments.model or str(Path(scratch) / "bert")
        if arguments.model is None:
            make_bert_base(Path(model_folder), texts)
        tokenizer = AutoTokenizer.from_pretrained(model_folder)
        model = AutoModel.from_pretrained(model_folder).eval()
        encoder = TextEncoder(TextSettings(model=model_folder))

        def plain() -> list[np.ndarray]:
            with torch.no_grad():
                return [
                    model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()
                    for text in texts
                ]

        pairs = zip((features.values for features in encoder.extract(texts)), plain(), strict=True)
        difference = max(np.abs(mine - its).max() for mine, its in pairs)
        turns = Turns()
        for _ in range(arguments.rounds):
            turns.take(lambda: encoder.extract(texts), plain)
    ours, theirs = turns.medians()
    lengths = [len(text) for text in texts]
    print(
        f"text: {theirs.cpu / ours.cpu:.1f} x less CPU, {theirs.wall / ours.wall:.1f} x by the clock: "
        f"{len(texts)} sentences of {min(lengths)} to {max(lengths)} characters, median {np.median(lengths):.0f}; "
        f"plain {theirs.cpu / len(texts) * 1e3:.1f} ms each, ours {ours.cpu / len(texts) * 1e3:.1f} ms; "
        f"largest difference {difference:.0e}"
    )


if __name__ == "__main__":
    main()
