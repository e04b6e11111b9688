"""A feature folder on disk whose clips have rows of the stage `words`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from feature_folder import COLUMNS, RATES, make_rows
from shard_cases import digest

from triptych.extractors.base import Features
from triptych.extractors.words.rows import word_rows
from triptych.extractors.words.tokens import tokens_of
from triptych.pipeline.manifest.clips import Clip, Manifest
from triptych.pipeline.manifest.writing import write_manifest
from triptych.pipeline.stages.graph import source_digest
from triptych.pipeline.storage.index import text_digest
from triptych.pipeline.storage.schema import ShardHeader, ShardItem
from triptych.pipeline.storage.shards import write_shard

WORD = 0.3  # seconds between the starts of two words; a word lasts 0.2 s


def make_word_folder(folder: Path, splits: dict[str, int], without_words: int = 0) -> list[Clip]:
    """Write clips of text, audio, vision and words; the last `without_words` clips have no words."""
    random = np.random.default_rng(0)
    clips = []
    for split, count in splits.items():
        for _ in range(count):
            k = len(clips)
            text = f"第{k}句，好 Naïve{'啊' * (k % 4)}。"
            labels = [float(round(x, 1)) for x in random.integers(-5, 6, 4) / 5]
            clips.append(Clip(f"v_{k:04d}$_$0001", f"v_{k:04d}.mp4", text, split, *labels, str(folder)))
    stages = {"text": _text, "audio": _media, "vision": _media, "words": _words}
    fingerprints = {stage: digest((stage, "synthetic")) for stage in stages}
    for stage, rows in stages.items():
        present = clips[: len(clips) - without_words] if stage == "words" else clips
        items = [
            ShardItem(
                clip.id,
                source_digest(stage, {"text": text_digest(clip.text), "media": digest(clip.id)}),
                rows(stage, clip),
            )
            for clip in present
        ]
        extra = {"backend": "facemesh"} if stage == "vision" else {}
        rate = RATES.get(stage, float("nan"))
        write_shard(
            folder / stage,
            ShardHeader(stage, fingerprints[stage], "{}", {"triptych": "0"}, rate, extra),
            items,
        )
    write_manifest(Manifest(tuple(clips)), folder / "manifest.csv")
    recipe = {"text": {}, "vision": {"backend": "facemesh"}, "words": {}}
    (folder / "recipe.json").write_text(json.dumps({"recipe": recipe, "fingerprints": fingerprints}))
    return clips


def bert_tokens(text: str) -> list[str]:
    """Divide as BERT does, with `naive` in two pieces."""
    pieces = []
    for character in text.replace("Naïve", "N").replace(" ", ""):
        pieces += ["na", "##ive"] if character == "N" else [character]
    return ["[CLS]", *pieces, "[SEP]"]


def _text(stage: str, clip: Clip) -> Features:
    tokens = bert_tokens(clip.text)
    rows = make_rows("text", len(tokens), int(clip.id[2:6]))
    return replace(rows, extras={**rows.extras, "tokens": np.array(tokens, object)})


def _media(stage: str, clip: Clip) -> Features:
    count = round((len(tokens_of(clip.text)) * WORD + 0.5) * RATES[stage])
    return make_rows(stage, count, int(clip.id[2:6]) + len(COLUMNS[stage]))


def _words(stage: str, clip: Clip) -> Features:
    tokens = tokens_of(clip.text)
    start = 0.1 + WORD * np.arange(len(tokens))
    return word_rows(tokens, start, start + 0.2, np.full(len(tokens), 0.9), np.ones(len(tokens), bool))
