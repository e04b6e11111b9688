"""The events of a run: those of its preparation, and those that workers report, in every engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from triptych.pipeline.storage.ledger import LedgerLine


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
    failures
        Stage, reason and detail of each of them.
    notes
        Stage and note of each result with a note.
    """

    clip: str
    frames: int
    failed: int
    failures: tuple[tuple[str, str, str], ...] = ()
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class StageFailed:
    """A stage of a clip has failed: also where its worker has exited, and so reported nothing."""

    clip: str
    stage: str
    reason: str
    detail: str


@dataclass(frozen=True)
class ShardWritten:
    """A worker has written a shard."""

    stage: str


Event = StagePreparing | ClusterJoined | StageStarted | ClipFinished | StageFailed | ShardWritten
Report = Callable[[Event], None]
_KINDS: tuple[type[Event], ...] = (
    *(StagePreparing, ClusterJoined, StageStarted),
    *(ClipFinished, StageFailed, ShardWritten),
)
_TYPES = {kind.__name__: kind for kind in _KINDS}


def to_json(event: Event) -> dict[str, Any]:
    """Convert an event to a JSON object."""
    return {"event": type(event).__name__, **asdict(event)}


def from_json(document: dict[str, Any]) -> Event:
    """Read an event that `to_json` converted; unknown keys are ignored."""
    kind = _TYPES[document["event"]]
    return kind(**{name: _frozen(document[name]) for name in kind.__dataclass_fields__})


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def reported(results: Iterable[list[LedgerLine]], watch: Report) -> Iterator[list[LedgerLine]]:
    """Report the failures among ledger lines as they come: those of exited workers were not reported by them."""
    for lines in results:
        for line in lines:
            if line.outcome == "failed":
                watch(StageFailed(line.clip_id, line.stage, line.reason, line.detail))
        yield lines


def to_line(event: Event, process: int) -> bytes:
    """Format one line of a progress file, to which several processes append."""
    return json.dumps({"pid": process, **to_json(event)}).encode() + b"\n"


def from_line(line: bytes) -> tuple[Event, int]:
    """Read one line of a progress file: the event, and the process that reported it."""
    document = json.loads(line)
    return from_json(document), document["pid"]
