"""One group of clips through its missing stages, inside a worker process that loads each model once."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from tempfile import gettempdir
from traceback import extract_tb
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from triptych.extractors.base import BackendMissingError, ExtractionError, Features, Reason
from triptych.extractors.settings import AudioSettings, FacesSettings, TextSettings, VisionSettings
from triptych.extractors.vision.openface import scratch
from triptych.pipeline.errors import InputError
from triptych.pipeline.processes.parent import end_with
from triptych.pipeline.run.plan import ClipWork
from triptych.pipeline.stages.fingerprints import STAGES, software
from triptych.pipeline.stages.recipe import Recipe
from triptych.pipeline.storage.ledger import LedgerLine
from triptych.pipeline.storage.schema import ShardError, ShardHeader, ShardItem, check_features
from triptych.pipeline.storage.shard_reader import Shard
from triptych.pipeline.storage.shards import write_shard

if TYPE_CHECKING:
    from triptych.extractors.audio.features import Audio
    from triptych.extractors.faces.tracker import FaceTracker
    from triptych.extractors.media.source import MediaSource
    from triptych.extractors.text.encoder import TextEncoder
    from triptych.extractors.vision.backends import VisionBackend

SHARD_BYTES = 256 * 2**20  # a group of long clips is written in parts, so that memory stays bounded
Made = TypeVar("Made")
Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class GroupTask:
    """What a worker is sent: clips with their missing stages, and how and where to.

    Attributes
    ----------
    buffer_bytes
        Decoded frames of a clip are kept for its later stages up to this size.
    device
        Where torch computes text and faces.
    """

    folder: Path
    recipe: Recipe
    fingerprints: Mapping[str, str]
    clips: tuple[ClipWork, ...]
    buffer_bytes: int
    device: str = "cpu"


@dataclass
class _Shown:
    """A clip whose pictures the vision backend has taken in."""

    work: ClipWork
    frames: int
    seconds: float


@dataclass
class _Group:
    """What has come of a group so far."""

    task: GroupTask
    items: dict[str, list[ShardItem]] = field(default_factory=dict)
    lines: list[LedgerLine] = field(default_factory=list)
    shown: dict[str, _Shown] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)

    def run_stage(
        self, work: ClipWork, stage: str, extract: Callable[[], Features]
    ) -> Features | ExtractionError:
        """Run one stage of one clip; whatever happens becomes a ledger line."""
        began = time.perf_counter()
        result = _attempt(extract)
        self.tell(work, stage, result, time.perf_counter() - began)
        return result

    def give_up_if_changed(self, work: ClipWork) -> None:
        """Drop what was made of a file that is no longer the one that was planned for."""
        try:
            with work.clip.file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError:
            digest = ""
        if digest == work.digests["media"]:
            return
        self.changed.add(work.clip.id)
        for line in [line for line in self.lines if line.clip_id == work.clip.id and line.stage != "text"]:
            self.lines.remove(line)
            kept = [item for item in self.items.get(line.stage, []) if item.clip_id != work.clip.id]
            self.items[line.stage] = kept
            self.tell(work, line.stage, _changed(), line.seconds)

    def tell(self, work: ClipWork, stage: str, result: Features | ExtractionError, seconds: float) -> None:
        if work.clip.id in self.changed and stage != "text":
            result = _changed()
        # A shard would refuse malformed features, and all of their group with them.
        if isinstance(result, Features) and (mistakes := check_features(stage, result)):
            result = ExtractionError(Reason.UNEXPECTED, "; ".join(mistakes))
        done = isinstance(result, Features)
        digest = work.digests[STAGES[stage].source]
        if isinstance(result, Features):
            self.items.setdefault(stage, []).append(ShardItem(work.clip.id, digest, result))
        self.lines.append(
            LedgerLine(
                clip_id=work.clip.id,
                stage=stage,
                outcome="done" if done else "failed",
                reason="" if isinstance(result, Features) else result.reason,
                detail="; ".join(result.notes) if isinstance(result, Features) else result.detail,
                seconds=round(seconds, 4),
                fingerprint=self.task.fingerprints[stage],
                digest=digest,
            )
        )


def run_group(task: GroupTask, report: Report) -> list[LedgerLine]:
    """Extract what a group is missing and write a shard for each stage.

    Parameters
    ----------
    report
        Told what is begun and ended, for progress, and so that a death can be laid to its clip.

    Returns
    -------
    list of LedgerLine
        One a clip and stage, the shards being on disk. No clip's failure raises.
    """
    group = _Group(task)
    _run_text(group, report)
    for work in task.clips:
        frames, enough = 0, False
        if set(work.stages) - {"text"}:
            frames, enough = _run_media(group, work, report)
        if work.clip.id not in group.shown:
            _end(group, work, frames, report)
        if enough:
            _finish_vision(group, report)
        _write(group, report, least=SHARD_BYTES)
    _finish_vision(group, report)
    _write(group, report)
    return group.lines


def _write(group: _Group, report: Report, least: int = 0) -> None:
    """Write each stage that has come to so many bytes as a shard, and let go of it."""
    for stage, items in list(group.items.items()):
        if items and sum(item.features.values.nbytes for item in items) >= least:
            report({"begin": [item.clip_id for item in items], "stage": stage})
            write_shard(group.task.folder / stage, _header(group.task, stage), items)
            group.items[stage] = []
            report({"written": stage})


def _end(group: _Group, work: ClipWork, frames: int, report: Report) -> None:
    failed = sum(line.outcome == "failed" for line in group.lines if line.clip_id == work.clip.id)
    report({"end": work.clip.id, "frames": frames, "failed": failed})


def _changed() -> ExtractionError:
    return ExtractionError(
        Reason.FILE_CHANGED, "the file changed while it was read; run extract again once it stays"
    )


def _attempt(make: Callable[[], Made]) -> Made | ExtractionError:
    """Turn whatever goes wrong with a clip into its reason."""
    try:
        return make()
    except BackendMissingError:
        raise  # no clip's fault: the run cannot go on
    except ExtractionError as error:
        return error.with_traceback(None)  # it would keep the clip's frames in memory
    except MemoryError as error:
        return ExtractionError(Reason.OUT_OF_MEMORY, str(error) or "memory ran out")
    except Exception as error:  # a bug, or an input nobody has met: it must not cost the other clips
        return ExtractionError(Reason.UNEXPECTED, _describe(error))


def _run_text(group: _Group, report: Report) -> None:
    works = [work for work in group.task.clips if "text" in work.stages]
    if not works:
        return
    report({"begin": [work.clip.id for work in works], "stage": "text"})
    encoder = _text_encoder(group.task.recipe.text, group.task.device)
    began = time.perf_counter()
    try:
        embedded = encoder.extract([work.clip.text or "" for work in works])
    except Exception:  # find the sentence that it was
        for work in works:
            group.run_stage(work, "text", partial(_embed, encoder, work))
        return
    seconds = (time.perf_counter() - began) / len(works)
    for work, features in zip(works, embedded, strict=True):
        group.tell(work, "text", features, seconds)


def _embed(encoder: TextEncoder, work: ClipWork) -> Features:
    return encoder.extract([work.clip.text or ""])[0]


def _run_media(group: _Group, work: ClipWork, report: Report) -> tuple[int, bool]:
    """Run the stages that read the media file, vision up to its backend.

    Returns
    -------
    tuple of int and bool
        The number of frames seen, and whether the backend has taken in enough.
    """
    from triptych.extractors.media.source import MediaSource

    task = group.task
    source = MediaSource(work.clip.file, task.recipe.media, buffer_bytes=task.buffer_bytes)
    if "audio" in work.stages:
        report({"begin": [work.clip.id], "stage": "audio"})
        audio = _audio(task.recipe.audio, task.recipe.media.sample_rate)
        group.run_stage(work, "audio", lambda: audio.extract(source.waveform()))
    track: Features | ExtractionError | None = None
    if "faces" in work.stages:
        report({"begin": [work.clip.id], "stage": "faces"})
        tracker = _face_tracker(task.recipe.faces, task.device)
        track = group.run_stage(work, "faces", lambda: tracker.extract(source.frames()))
    enough = False
    if "vision" in work.stages:
        report({"begin": [work.clip.id], "stage": "vision"})
        enough = _show(group, work, source, track)
    group.give_up_if_changed(work)
    return len(track) if isinstance(track, Features) else 0, enough


def _show(
    group: _Group, work: ClipWork, source: MediaSource, track: Features | ExtractionError | None
) -> bool:
    """Give the vision backend a clip's pictures; True when it has enough."""
    from triptych.extractors.faces.crops import aligned

    began = time.perf_counter()
    settings = group.task.recipe.vision
    backend = _vision_backend(settings)

    def take_in() -> tuple[bool, int]:
        held = _held_track(group.task, work, source) if track is None else track
        if isinstance(held, ExtractionError):
            raise held
        return backend.add(work.clip.id, aligned(source.frames(), held, settings)), len(held)

    taken = _attempt(take_in)
    seconds = time.perf_counter() - began
    if isinstance(taken, ExtractionError):
        group.tell(work, "vision", taken, seconds)
        return False
    enough, frames = taken
    group.shown[work.clip.id] = _Shown(work, frames, seconds)
    return enough


def _finish_vision(group: _Group, report: Report) -> None:
    """Have the vision backend give what it makes of the clips that it was shown."""
    if not group.shown:
        return
    from triptych.extractors.vision.backends import condense

    settings = group.task.recipe.vision
    shown, group.shown = group.shown, {}
    if len(shown) > 1:
        report({"begin": list(shown), "stage": "vision"})
    began = time.perf_counter()
    results = _attempt(_vision_backend(settings).finish)
    each = (time.perf_counter() - began) / len(shown)
    for clip, of in shown.items():
        result = results if isinstance(results, ExtractionError) else results[clip]
        if isinstance(result, Features):
            result = _attempt(partial(condense, result, settings))
        group.tell(of.work, "vision", result, of.seconds + each)
        _end(group, of.work, of.frames, report)


def _held_track(task: GroupTask, work: ClipWork, source: MediaSource) -> Features:
    """Read the track that faces left, or follow the face again where its shard turns out to be damaged."""
    try:
        with Shard(work.held["faces"]) as shard:
            return shard.read(work.clip.id)
    except (ShardError, OSError):
        return _face_tracker(task.recipe.faces, task.device).extract(source.frames())


def _header(task: GroupTask, stage: str) -> ShardHeader:
    media, audio = task.recipe.media, task.recipe.audio
    rates = {
        "text": math.nan,
        "audio": media.sample_rate / audio.hop_length,
        "faces": media.frame_rate,
        "vision": media.frame_rate / task.recipe.vision.average,
    }
    attributes, made_by = {}, {}
    if stage == "vision":
        made_by = dict(_vision_backend(task.recipe.vision).software)
        attributes = {"backend": task.recipe.vision.backend, "input": task.recipe.vision.input}
    return ShardHeader(
        stage=stage,
        fingerprint=task.fingerprints[stage],
        recipe=task.recipe.model_dump_json(),
        software=software(STAGES[stage]) | made_by,
        frame_rate=rates[stage],
        attributes=attributes,
    )


@cache
def _text_encoder(settings: TextSettings, device: str) -> TextEncoder:
    from triptych.extractors.text.encoder import TextEncoder

    return TextEncoder(settings, device)


@cache
def _audio(settings: AudioSettings, sample_rate: int) -> Audio:
    from triptych.extractors.audio.features import Audio

    try:
        audio = Audio(settings, sample_rate)
    except ValueError as error:  # settings with which no sound could be read
        raise InputError(f"audio settings: {error}") from error
    # numba's cache on disk breaks when two processes fill it at once, so they compile one after the other.
    with (Path(gettempdir()) / f"triptych-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        audio.extract(np.random.default_rng(0).standard_normal(sample_rate // 2).astype(np.float32))
    return audio


@cache
def _face_tracker(settings: FacesSettings, device: str) -> FaceTracker:
    from triptych.extractors.faces.tracker import FaceTracker

    return FaceTracker(settings, device)


@cache
def _vision_backend(settings: VisionSettings) -> VisionBackend:
    from triptych.extractors.vision.backends import load_backend

    return load_backend(settings)


def _describe(error: Exception) -> str:
    frames = extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


# --- the process side: what a worker process does beside its groups ---


def start(parent: int, progress: Path) -> None:
    """Prepare a worker process: it ends with the process that started it."""

    def clear_up() -> None:
        scratch.remove_own()
        shutil.rmtree(progress.parent, ignore_errors=True)

    end_with(parent, clear_up)


def run_reported(task: GroupTask, progress: Path) -> list[LedgerLine]:
    """Run a group, its progress going line by line into a file that the parent reads."""
    with _reporting(progress) as report:
        return run_group(task, report)


@contextmanager
def _reporting(progress: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    # One O_APPEND write a line: lines of several processes never mix.
    with progress.open("ab", buffering=0) as stream:

        def report(event: dict[str, Any]) -> None:
            stream.write(json.dumps({"pid": os.getpid(), **event}).encode() + b"\n")

        yield report
