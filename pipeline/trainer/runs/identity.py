"""Digests of the clips and the code, which decide a training's numbers besides its settings and seed."""

from __future__ import annotations

import hashlib
import itertools
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

import triptych.pipeline.trainer
from triptych.pipeline.trainer.data.clips import SentimentData

# The trainer's modules whose code decides a training's numbers, by their path below `pipeline/trainer/`. The list is
# explicit: a module that is moved or added without an entry in one of the lists fails a test, and a missing one raises.
# The file of another distribution's system is covered by `systems.source_digest`.
DECISIVE = (
    "data/__init__.py",
    "data/aligned.py",
    "data/batches.py",
    "data/cache.py",
    "data/clips.py",
    "data/filed.py",
    "data/gathering.py",
    "data/lengths.py",
    "data/padding.py",
    "data/pooled.py",
    "data/source.py",
    "data/usable.py",
    "data/standardising.py",
    "metrics.py",
    "models/__init__.py",
    "models/early_fusion.py",
    "models/inputs.py",
    "models/late_fusion.py",
    "models/low_rank.py",
    "models/lstm.py",
    "models/memory_fusion.py",
    "models/subnetworks.py",
    "models/system.py",
    "models/tensor_fusion.py",
    "models/transformer.py",
    "models/unimodal.py",
    "runs/jobs.py",
    "settings.py",
    "training.py",
)
# Modules that read, store or report.
NOT_DECISIVE = (
    "__init__.py",
    "data/checks.py",
    "data/shared_memory.py",
    "embedding.py",
    "experiments/__init__.py",
    "experiments/document.py",
    "experiments/figures.py",
    "experiments/labels.py",
    "experiments/published.py",
    "experiments/representations.py",
    "experiments/tables.py",
    "experiments/trainings.py",
    "overrides.py",
    "runs/__init__.py",
    "runs/checkpoint.py",
    "runs/crossval.py",
    "runs/folder.py",
    "runs/identity.py",
    "runs/parallel.py",
    "runs/prediction.py",
    "runs/results_page.py",
    "runs/run.py",
    "runs/sealed.py",
    "runs/svg.py",
    "runs/tensorboard.py",
    "search/__init__.py",
    "search/grid.py",
    "search/tpe.py",
    "systems.py",
)


def identity(data: SentimentData) -> str:
    """SHA-256 of the clips: ids, splits, labels, texts, and each clip's audio and vision.

    The latter enter as means and spreads, so that the digest is the same with and without loaded rows.
    """
    digest = hashlib.sha256(repr((data.ids, data.splits, data.label_range)).encode())
    texts = (np.zeros(0) if text is None else text.numpy() for text in data.text)  # one in memory at a time
    pooled = (
        array
        for one in (data.audio, data.vision)
        for array in (one.count, one.mean, one.sum_of_squares, one.lengths)
    )
    for array in itertools.chain([data.labels], texts, pooled):
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@cache
def code_digest(folder: Path = Path(triptych.pipeline.trainer.__file__).parent) -> str:
    """SHA-256 of the code that computes a training's numbers: decisive modules and the libraries' versions.

    Raises
    ------
    FileNotFoundError
        A module of `DECISIVE` was moved without its entry.
    """
    digest = hashlib.sha256(" ".join(version(name) for name in ("numpy", "scikit-learn", "torch")).encode())
    for name in DECISIVE:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()
