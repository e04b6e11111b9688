"""What a training's numbers depend on, its settings and seed apart: the clips and the code."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

import pipeline.trainer
from pipeline.trainer.data import SentimentData

# Modules of the trainer that read, keep or tell; all others of it decide a training's numbers. A system's settings
# are told apart from the code, so that changed settings of one leave the others' results as they are.
NOT_DECISIVE = (
    "checkpoint",
    "checks",
    "crossval",
    "predicting",
    "processes",
    "run",
    "shared",
    "systems",
    "telling",
    "tuning",
    "tuning_tpe",
)


def identity(data: SentimentData) -> str:
    """SHA-256 of what training reads of clips: ids, splits, labels, texts, and each clip's audio and vision.

    The latter are taken by their means and spreads, so that it is the same whether rows are loaded or not.
    """
    digest = hashlib.sha256(repr((data.ids, data.splits)).encode())
    arrays = [data.labels, *(np.zeros(0) if text is None else text.numpy() for text in data.text)]
    for pooled in (data.audio, data.vision):
        arrays += [pooled.count, pooled.mean, pooled.squares, pooled.lengths]
    for array in arrays:
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@cache
def code_digest(folder: Path = Path(pipeline.trainer.__file__).parent) -> str:
    """SHA-256 of what computes a training's numbers: the trainer's modules that do, and the libraries' versions."""
    files = sorted(file for file in folder.glob("*.py") if file.stem not in NOT_DECISIVE)
    files += sorted(folder.glob("models/*.py"))
    digest = hashlib.sha256(" ".join(version(name) for name in ("numpy", "scikit-learn", "torch")).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
