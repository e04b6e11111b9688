"""A checkpoint: a trained model as one file of plain tensors and builtin containers; reading it runs no code."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from triptych.pipeline.errors import InputError
from triptych.pipeline.storage.streams import Streams
from triptych.pipeline.trainer.data.padding import normaliser_of
from triptych.pipeline.trainer.models.inputs import InputWidths
from triptych.pipeline.trainer.systems import build, family_of, settings_from
from triptych.pipeline.trainer.training import Epoch, Trained

SCHEMA = "triptych/model/3"


@dataclass(frozen=True)
class Origin:
    """What a model was trained on.

    Attributes
    ----------
    name
        The system's name.
    fingerprints
        Those of the features, by stage.
    streams
        The stage that each modality was read from.
    """

    name: str
    fingerprints: Mapping[str, str]
    streams: Streams = field(default_factory=Streams)


@dataclass(frozen=True)
class Checkpoint:
    """A model that was read from a checkpoint.

    Attributes
    ----------
    trained
        Its predictions are those of the model that was saved.
    origin
        What it was trained on.
    """

    trained: Trained
    origin: Origin


def checkpoint_bytes(trained: Trained, origin: Origin) -> bytes:
    """Serialise a model; tensors are saved on the CPU.

    Parameters
    ----------
    trained
        The model, its settings, normaliser and history; all of them are saved.
    origin
        What it was trained on.
    """
    normaliser = {
        key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for key, value in asdict(trained.normaliser).items()
    }
    buffer = io.BytesIO()
    torch.save(
        {
            "schema": SCHEMA,
            "model": origin.name,
            "fingerprints": dict(origin.fingerprints),
            "streams": origin.streams._asdict(),
            "settings": trained.settings.model_dump(mode="json"),
            "widths": trained.widths._asdict(),
            "normaliser": normaliser,
            "seed": trained.seed,
            "history": [asdict(epoch) for epoch in trained.history],
            "best_epoch": trained.best_epoch,
            "state_dict": _on_cpu(dict(trained.model.state_dict())),
        },
        buffer,
    )
    return buffer.getvalue()


def load_checkpoint(path: Path, device: str = "cpu") -> Trained:
    """Read a model, as `read_checkpoint`, without its origin."""
    return read_checkpoint(path, device).trained


def read_checkpoint(path: Path, device: str = "cpu") -> Checkpoint:
    """Read a model and what it was trained on.

    Parameters
    ----------
    device
        Where the model is to compute.

    Raises
    ------
    InputError
        The file is missing, damaged, or no checkpoint of this schema.
    """
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: not found; `triptych train` writes seed-<n>.pt") from error
    except pickle.UnpicklingError as error:  # torch's own message suggests running the file's code
        raise InputError(
            f"{path}: not a checkpoint, or it contains more than arrays and plain values; train again"
        ) from error
    except (OSError, RuntimeError, EOFError) as error:
        raise InputError(f"{path}: not a readable checkpoint ({error}); train again") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise InputError(f"{path}: not a checkpoint of schema {SCHEMA}; train again")
    try:
        origin = Origin(str(content["model"]), dict(content["fingerprints"]), Streams(**content["streams"]))
        return Checkpoint(_restore(content, origin.name, path, device), origin)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"{path}: its parts do not fit together ({error}); train again") from error


def _restore(content: dict[str, Any], name: str, path: Path, device: str) -> Trained:
    with suppress(KeyError):
        family_of(name)  # imports the system's file, so that its family is known
    settings = settings_from(content["settings"], str(path))
    widths = InputWidths(**content["widths"])
    fitted: dict[str, Any] = {
        key: value.numpy() if isinstance(value, torch.Tensor) else value
        for key, value in content["normaliser"].items()
    }
    for modality in ("audio", "vision"):
        for key in (f"{modality}_mean", f"{modality}_std"):
            if np.shape(fitted[key]) != (getattr(widths, modality),):
                raise ValueError(f"{key} is of shape {np.shape(fitted[key])}")
    normaliser = normaliser_of(settings)(**fitted)
    with torch.random.fork_rng(devices=[]):
        model = build(settings, widths, normaliser.text_length)
    model.load_state_dict(content["state_dict"])
    return Trained(
        model=model.to(torch.device(device)).eval(),
        settings=settings,
        widths=widths,
        normaliser=normaliser,
        seed=content["seed"],
        history=tuple(Epoch(**epoch) for epoch in content["history"]),
        best_epoch=content["best_epoch"],
    )


def _on_cpu(state: Any) -> Any:
    """Copy tensors, also those within a system's extra state, to the CPU."""
    if isinstance(state, torch.Tensor):
        return state.cpu()
    if isinstance(state, dict):
        return {key: _on_cpu(value) for key, value in state.items()}
    return [_on_cpu(value) for value in state] if isinstance(state, list) else state
