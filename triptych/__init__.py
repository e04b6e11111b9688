"""Raw video clips in; text, audio and vision features out; sentiment models trained on them.

`extract` makes features, `open` reads them, `compute` runs one stage on arrays, `FeatureDataset` gives them to
PyTorch, `train` and `predict` train sentiment models and use them. Names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_checkout = Path(__file__).parent.parent
if not (Path(__file__).parent / "pipeline").exists() and (_checkout / "pipeline" / "__init__.py").exists():
    # Python finds this folder before an installed triptych when it runs in a checkout; the rooms are beside it then.
    __path__.append(str(_checkout))

if TYPE_CHECKING:
    from triptych.api import TrainedRun, compute, extract, open, predict, train
    from triptych.extractors.base import ExtractionError, Features, Reason
    from triptych.extractors.stage import Stage
    from triptych.pipeline.errors import InputError
    from triptych.pipeline.storage.dataset import FeatureDataset, pad_batch
    from triptych.pipeline.storage.store import FeatureStore

_HOMES = {
    "compute": "triptych.api",
    "extract": "triptych.api",
    "open": "triptych.api",
    "predict": "triptych.api",
    "train": "triptych.api",
    "TrainedRun": "triptych.api",
    "ExtractionError": "triptych.extractors.base",
    "Features": "triptych.extractors.base",
    "Reason": "triptych.extractors.base",
    "Stage": "triptych.extractors.stage",
    "InputError": "triptych.pipeline.errors",
    "FeatureDataset": "triptych.pipeline.storage.dataset",
    "pad_batch": "triptych.pipeline.storage.dataset",
    "FeatureStore": "triptych.pipeline.storage.store",
}
__all__ = [
    "ExtractionError",
    "FeatureDataset",
    "FeatureStore",
    "Features",
    "InputError",
    "Reason",
    "Stage",
    "TrainedRun",
    "compute",
    "extract",
    "open",
    "pad_batch",
    "predict",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "plot":
        return import_module("triptych.plot")
    if name not in _HOMES:
        raise AttributeError(f"module 'triptych' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
