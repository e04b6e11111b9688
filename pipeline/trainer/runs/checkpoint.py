"""A trained model as one file: plain tensors and builtin containers, read without running what is in it."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from triptych.pipeline.errors import InputError
from triptych.pipeline.trainer.data.padding import normaliser_of
from triptych.pipeline.trainer.models import build
from triptych.pipeline.trainer.models.inputs import InputWidths
from triptych.pipeline.trainer.settings import ModelSettings, SystemSettings
from triptych.pipeline.trainer.training import Epoch, Trained

SCHEMA = "triptych/model/2"


def checkpoint_bytes(trained: Trained, name: str, fingerprints: Mapping[str, str]) -> bytes:
    """Serialise a model.

    Parameters
    ----------
    trained
        The model, its settings, normaliser and history; all of them are kept.
    name
        What the system is called.
    fingerprints
        Those of the features that it was trained on, by stage.
    """
    normaliser = {
        key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for key, value in asdict(trained.normaliser).items()
    }
    buffer = io.BytesIO()
    torch.save(
        {
            "schema": SCHEMA,
            "model": name,
            "fingerprints": dict(fingerprints),
            "settings": trained.settings.model_dump(mode="json"),
            "widths": trained.widths._asdict(),
            "normaliser": normaliser,
            "seed": trained.seed,
            "history": [asdict(epoch) for epoch in trained.history],
            "best_epoch": trained.best_epoch,
            "state_dict": dict(trained.model.state_dict()),
        },
        buffer,
    )
    return buffer.getvalue()


@dataclass(frozen=True)
class Checkpoint:
    """A model that was read back.

    Attributes
    ----------
    trained
        Its predictions are those of the model that was saved.
    name
        What the system is called.
    fingerprints
        Those of the features that it was trained on, by stage.
    """

    trained: Trained
    name: str
    fingerprints: Mapping[str, str]


def load_checkpoint(path: Path) -> Trained:
    """Read a model back, as `read_checkpoint`, without what else is in its file."""
    return read_checkpoint(path).trained


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a model and what it was trained on.

    Raises
    ------
    InputError
        The file is missing, damaged, or no checkpoint of this schema.
    """
    try:
        kept: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; `triptych train` writes seed-<n>.pt") from error
    except pickle.UnpicklingError as error:  # whose text advises to run what is in the file
        raise InputError(
            f"{path}: no checkpoint, or one that asks for more than arrays; train again"
        ) from error
    except (OSError, RuntimeError, EOFError) as error:
        raise InputError(f"{path}: not a readable checkpoint ({error}); train again") from error
    if not isinstance(kept, dict) or kept.get("schema") != SCHEMA:
        raise InputError(f"{path}: not a checkpoint of schema {SCHEMA}; train again")
    try:
        return Checkpoint(_restore(kept), str(kept["model"]), dict(kept["fingerprints"]))
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"{path}: its parts do not fit together ({error}); train again") from error


def _restore(kept: dict[str, Any]) -> Trained:
    settings: SystemSettings = TypeAdapter[SystemSettings](ModelSettings).validate_python(kept["settings"])
    widths = InputWidths(**kept["widths"])
    learnt: dict[str, Any] = {
        key: value.numpy() if isinstance(value, torch.Tensor) else value
        for key, value in kept["normaliser"].items()
    }
    for modality in ("audio", "vision"):
        for name in (f"{modality}_mean", f"{modality}_deviation"):
            if np.shape(learnt[name]) != (getattr(widths, modality),):
                raise ValueError(f"{name} is of shape {np.shape(learnt[name])}")
    normaliser = normaliser_of(settings)(**learnt)
    with torch.random.fork_rng(devices=[]):
        model = build(settings, widths, normaliser.text_length)
    model.load_state_dict(kept["state_dict"])
    return Trained(
        model=model.eval(),
        settings=settings,
        widths=widths,
        normaliser=normaliser,
        seed=kept["seed"],
        history=tuple(Epoch(**epoch) for epoch in kept["history"]),
        best_epoch=kept["best_epoch"],
    )
