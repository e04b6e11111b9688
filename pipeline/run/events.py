"""The events of a run: those of its preparation, and those that workers report, in every engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class StagePreparing:
    """The run prepares a stage before workers start; a model that is used for the first time is converted."""

    stage: str


@dataclass(frozen=True)
class ClusterJoined:
    """The run is connected to a cluster, whose workers can do the work.

    Attributes
    ----------
    scheduler
        Its address.
    workers
        How many workers there are now.
    dashboard
        The address of the scheduler's dashboard; empty where it has none.
    """

    scheduler: str
    workers: int
    dashboard: str


@dataclass(frozen=True)
class StageStarted:
    """A worker has started a stage: of one clip, or of several that it runs as a batch.

    Attributes
    ----------
    seconds
        About how long the clips are together.
    """

    clips: tuple[str, ...]
    stage: str
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class ClipFinished:
    """A worker has finished every missing stage of a clip.

    Attributes
    ----------
    frames
        Frames that its stages read.
    failed
        Stages that failed.
    """

    clip: str
    frames: int
    failed: int


@dataclass(frozen=True)
class ShardWritten:
    """A worker has written a shard."""

    stage: str


Event = StagePreparing | ClusterJoined | StageStarted | ClipFinished | ShardWritten
Report = Callable[[Event], None]
_KINDS: tuple[type[Event], ...] = (StagePreparing, ClusterJoined, StageStarted, ClipFinished, ShardWritten)
_TYPES = {kind.__name__: kind for kind in _KINDS}


def to_json(event: Event) -> dict[str, Any]:
    """Convert an event to a JSON object."""
    return {"event": type(event).__name__, **asdict(event)}


def from_json(document: dict[str, Any]) -> Event:
    """Read an event that `to_json` converted; unknown keys are ignored."""
    kind = _TYPES[document["event"]]
    content = {name: document[name] for name in kind.__dataclass_fields__}
    if "clips" in content:
        content["clips"] = tuple(content["clips"])
    return kind(**content)


def to_line(event: Event, process: int) -> bytes:
    """Format one line of a progress file, to which several processes append."""
    return json.dumps({"pid": process, **to_json(event)}).encode() + b"\n"


def from_line(line: bytes) -> tuple[Event, int]:
    """Read one line of a progress file: the event, and the process that reported it."""
    document = json.loads(line)
    return from_json(document), document["pid"]
