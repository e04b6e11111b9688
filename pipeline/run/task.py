"""The unit of work that an engine sends to a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from triptych.pipeline.run.plan import ClipWork
from triptych.pipeline.stages.recipe import Recipe


@dataclass(frozen=True)
class GroupTask:
    """A group of clips with their missing stages, and everything that a worker needs to extract them.

    Attributes
    ----------
    buffer_bytes
        Decoded frames of a clip are buffered for its later stages up to this size.
    device
        The device that torch computes on: ``cpu`` or ``cuda``.
    """

    folder: Path
    recipe: Recipe
    fingerprints: Mapping[str, str]
    clips: tuple[ClipWork, ...]
    buffer_bytes: int
    device: str = "cpu"
