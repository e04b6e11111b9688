"""A checkpoint: a trained model as one file of plain tensors and builtin containers; reading it runs no code."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from triptych.pipeline.errors import InputError
from triptych.pipeline.escaped import shown
from triptych.pipeline.storage.streams import Streams
from triptych.pipeline.trainer.data.padding import normaliser_of
from triptych.pipeline.trainer.models.inputs import InputWidths
from triptych.pipeline.trainer.models.system import System
from triptych.pipeline.trainer.runs.sealed import has_seal, seal_problem, sealed
from triptych.pipeline.trainer.settings import SystemSettings
from triptych.pipeline.trainer.systems import build, family_of, settings_from
from triptych.pipeline.trainer.training import Epoch, Trained

SCHEMA, SCHEMAS = "triptych/model/4", "triptych/model/"
LONGEST = 10**6  # rows of a clip


class _Epoch(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    train_loss: float
    valid_loss: float
    by_task: dict[Literal["M", "T", "A", "V"], float] = Field(default_factory=dict)


class _Content(BaseModel):
    """The types of a checkpoint's parts; each number, name and row count within bounds."""

    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True)

    model: str
    fingerprints: dict[str, str]
    streams: dict[Literal["text", "audio", "vision", "align"], str]
    settings: dict[str, Any]
    widths: dict[Literal["text", "audio", "vision"], Annotated[int, Field(ge=1, le=10**6)]]
    normaliser: dict[str, torch.Tensor | Annotated[int, Field(ge=1, le=LONGEST)]]
    seed: int
    history: Annotated[list[_Epoch], Field(min_length=1)]
    best_epoch: Annotated[int, Field(ge=1)]
    state_dict: dict[str, Any]


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
        The stage that each modality was read from, and whether they were pooled to words.
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
            "streams": origin.streams.described,
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
    return sealed(buffer.getvalue())


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
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: not found; `triptych train` writes seed-<n>.pt") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    if has_seal(data) and (problem := seal_problem(data)):
        raise InputError(f"{path}: {problem}; train again")
    content = _loaded(data, path)
    schema = content.get("schema") if isinstance(content, dict) else None
    if not isinstance(schema, str) or not schema.startswith(SCHEMAS):
        raise InputError(f"{path}: not a checkpoint of schema {SCHEMA}; train again")
    if schema != SCHEMA:
        raise InputError(
            f"{path}: a checkpoint of schema {shown(schema)}, which another version of triptych wrote; this version "
            f"reads {SCHEMA}: train again"
        )
    if not has_seal(data):
        raise InputError(f"{path}: damaged: its checksum is missing; train again")
    try:
        parts = _Content.model_validate(content)
        _check_tensors([parts.normaliser, parts.state_dict], len(data))
        origin = Origin(parts.model, parts.fingerprints, Streams(**parts.streams))
        return Checkpoint(_restore(parts, path, device), origin)
    except InputError:
        raise
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = shown(".".join(map(str, first["loc"])))
        raise InputError(
            f"{path}: its parts do not fit together ({where}: {shown(first['msg'])}); train again"
        ) from error
    except Exception as error:  # of torch, or of another distribution's system
        why = shown(" ".join(str(error).split()))
        raise InputError(f"{path}: its parts do not fit together ({why}); train again") from error


def _loaded(data: bytes, path: Path) -> Any:
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own message suggests running the file's code
        raise InputError(
            f"{path}: not a checkpoint, or it contains more than arrays and plain values; train again"
        ) from error
    except Exception as error:  # a damaged file can raise any
        why = shown(" ".join(str(error).split()))
        raise InputError(f"{path}: not a readable checkpoint ({why}); train again") from error


def _check_tensors(parts: list[Any], size: int) -> None:
    """Check that all tensors are finite, and no longer than the file: strides of 0 repeat a number for nothing."""
    seen, total = set[int](), 0
    while parts:
        part = parts.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, torch.Tensor):
            total += part.nbytes
            if total > size:
                raise ValueError("its tensors are longer than the file")
            if part.is_floating_point() and not part.isfinite().all():
                raise ValueError("a weight or a statistic is not finite")
        elif isinstance(part, dict):
            parts += part.values()
        elif isinstance(part, list | tuple):
            parts += part


def _restore(parts: _Content, path: Path, device: str) -> Trained:
    with suppress(KeyError):
        family_of(parts.model)  # imports the system's file, so that its family is known
    settings = settings_from(parts.settings, str(path))
    widths = InputWidths(**parts.widths)
    fitted: dict[str, Any] = {
        key: value.numpy() if isinstance(value, torch.Tensor) else value
        for key, value in parts.normaliser.items()
    }
    for modality in ("audio", "vision"):
        for key in (f"{modality}_mean", f"{modality}_std"):
            if np.shape(fitted[key]) != (getattr(widths, modality),):
                raise ValueError(f"{key} is of shape {np.shape(fitted[key])}")
        if not (fitted[f"{modality}_std"] > 0).all():
            raise ValueError(f"{modality}_std is not above 0")
    normaliser = normaliser_of(settings)(**fitted)
    model = _built(settings, widths, normaliser.text_length, parts.state_dict)
    history = tuple(Epoch(**epoch.model_dump()) for epoch in parts.history)
    if parts.best_epoch > len(history):
        raise ValueError(f"best_epoch is {parts.best_epoch} of {len(history)}")
    return Trained(
        model=model.to(torch.device(device)).eval(),
        settings=settings,
        widths=widths,
        normaliser=normaliser,
        seed=parts.seed,
        history=history,
        best_epoch=parts.best_epoch,
    )


def _built(settings: SystemSettings, widths: InputWidths, text_length: int, state: dict[str, Any]) -> System:
    """Build a model with these weights; without memory first, as settings can describe one of any size."""
    with torch.device("meta"):
        outline = build(settings, widths, text_length).state_dict()
    for name, value in outline.items():
        if isinstance(value, torch.Tensor) and value.shape != getattr(state.get(name), "shape", None):
            raise ValueError(f"{name} is missing or of another shape")
    with torch.random.fork_rng(devices=[]):
        model = build(settings, widths, text_length)
    model.load_state_dict(state)
    return model


def _on_cpu(state: Any) -> Any:
    """Copy tensors, also those within a system's extra state, to the CPU."""
    if isinstance(state, torch.Tensor):
        return state.cpu()
    if isinstance(state, dict):
        return {key: _on_cpu(value) for key, value in state.items()}
    return [_on_cpu(value) for value in state] if isinstance(state, list) else state
