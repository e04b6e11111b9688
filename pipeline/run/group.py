"""Run the missing stages of one group of clips. Stages are known only by their declarations."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

from triptych.extractors.base import BackendMissingError, ExtractionError, Features, Frame, Reason
from triptych.extractors.inputs import ClipInputs, with_media_notes
from triptych.extractors.media.length import about_seconds
from triptych.extractors.registry import stages
from triptych.extractors.settings import MediaSettings, Settings
from triptych.extractors.stage import Stage
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.spans import face_centre
from triptych.pipeline.run.events import ClipFinished, Report, ShardWritten, StageStarted
from triptych.pipeline.run.plan import ClipWork
from triptych.pipeline.run.reasons import as_result, attempt, describe
from triptych.pipeline.run.task import GroupTask
from triptych.pipeline.stages.fingerprints import software
from triptych.pipeline.stages.graph import source_digest, sources
from triptych.pipeline.storage.checked import check_once
from triptych.pipeline.storage.index import content_digest, part_digest, stamped_digest
from triptych.pipeline.storage.ledger import LedgerLine, Outcome
from triptych.pipeline.storage.schema import ShardError, ShardHeader, ShardItem, check_features
from triptych.pipeline.storage.shard_reader import Shard
from triptych.pipeline.storage.shards import write_shard

if TYPE_CHECKING:
    from triptych.extractors.media.source import MediaNotes, MediaSource

SHARD_BYTES = 256 * 2**20  # a group of long clips is written in parts, so that memory stays bounded


def run_group(task: GroupTask, report: Report) -> list[LedgerLine]:
    """Extract the missing features of a group and write a shard for each stage.

    Parameters
    ----------
    report
        Called with every event: for progress, and to attribute a crash to its clip.

    Returns
    -------
    list of LedgerLine
        One for each clip and stage, after the shards were written. A clip's failure raises no error.
    """
    return _Group(task, report).run()


@cache
def load_stage(name: str, settings: Settings, media: MediaSettings, device: str) -> Any:
    """Load a stage once in this process: a `ClipExtractor` or a `BatchExtractor`.

    Raises
    ------
    InputError
        The settings cannot be computed, or the stage's own code fails.
    """
    try:
        return stages()[name].load(settings, media, device)
    except (BackendMissingError, MemoryError):
        raise
    except ValueError as error:
        raise InputError(f"{name} settings: {error}") from error
    except Exception as error:  # whatever the code of another package raises
        raise InputError(f"stage {name} cannot be loaded: {describe(error)}") from error


@dataclass
class _Clip:
    """A clip of the group that is being worked on.

    Attributes
    ----------
    source, notes
        Its media file, while stages read it; what was noted about it.
    seconds
        About how long it is; of a transcript alone, what a stage may need for it.
    frames
        How many of its frames a stage has read.
    rows
        Rows, or the error, of its other stages, while stages may read them.
    waiting
        Batched stages that have added it but not returned its rows yet, with the seconds spent.
    opened_again
        Whether a batched stage has read its file again, after the other stages.
    changed
        Whether its file was replaced while it was read.
    media_done
        Whether every stage has read it.
    """

    work: ClipWork
    source: MediaSource | None = None
    notes: MediaNotes | None = None
    seconds: float = 1.0
    frames: int = 0
    rows: dict[str, Features | ExtractionError] = field(default_factory=dict)
    waiting: dict[str, float] = field(default_factory=dict)
    opened_again: bool = False
    changed: bool = False
    media_done: bool = False


class _Group:
    """The state of a group while it runs."""

    def __init__(self, task: GroupTask, report: Report) -> None:
        self._task = task
        self._report = report
        self._items: dict[str, list[ShardItem]] = {}
        self._lines: list[LedgerLine] = []
        self._clips = {work.clip.id: _Clip(work) for work in task.clips}

    def run(self) -> list[LedgerLine]:
        missing = {stage for work in self._task.clips for stage in work.stages}
        wanted = [stage for name, stage in stages().items() if name in missing]
        groups = [list(clips) for _, clips in groupby(self._clips.values(), key=lambda clip: clip.work.group)]
        # Stages that read only transcripts come first, a group in one batch, while no media file is open.
        for stage in wanted:
            if sources(stage.name) == {"text"}:
                for clips in groups:
                    for clip in clips:
                        self._run_stage(clip, stage)
                    self._finish_batch(stage)
        media = [stage for stage in wanted if sources(stage.name) != {"text"}]
        for clips in groups:
            for clip in clips:
                self._run_media(clip, media)
                self._write(least=SHARD_BYTES)
            for stage in media:
                if not stage.shares_start(self._task.recipe.section(stage.name)):
                    self._finish_batch(stage)
        for stage in media:
            self._finish_batch(stage)
        self._write()
        return self._lines

    def _run_media(self, clip: _Clip, media: list[Stage]) -> None:
        """Run the stages of one clip that read its media file; batched stages may return its rows later."""
        full = []
        if first := [stage.name for stage in media if stage.name in clip.work.stages][:1]:
            self._started([clip], first[0])  # opening a file can end or block the process too
            clip.seconds = about_seconds(
                clip.work.clip.file, self._task.recipe.media.max_seconds, clip.work.clip.span
            )
            clip.source = self._opened(clip.work)
            clip.notes = clip.source.notes
            full = [stage for stage in media if self._run_stage(clip, stage)]
            self._give_up_if_changed(clip)
        # Buffered frames and rows of this clip are released before the next one is read.
        clip.source, clip.media_done = None, True
        clip.rows.clear()
        self._end_if_done(clip)
        for stage in full:
            self._finish_batch(stage)

    def _started(self, clips: Collection[_Clip], name: str) -> None:
        ids = tuple(clip.work.clip.id for clip in clips)
        self._report(StageStarted(ids, name, sum(clip.seconds for clip in clips)))

    def _opened(self, work: ClipWork) -> MediaSource:
        from triptych.extractors.media.source import MediaSource  # PyAV: a run of text alone needs none

        return MediaSource(
            work.clip.file,
            self._task.recipe.media,
            buffer_bytes=self._task.buffer_bytes,
            span=work.clip.span,
        )

    def _run_stage(self, clip: _Clip, stage: Stage) -> bool:
        """Run one stage of one clip; return True if the batch of a batched stage is full."""
        name = stage.name
        if name not in clip.work.stages:
            return False
        if not (stage.batched and sources(name) == {"text"}):  # those are reported when the batch is computed
            self._started([clip], name)
        extractor = self._loaded(name)
        started = time.perf_counter()
        inputs = self._inputs(clip, stage)
        if not stage.batched:
            result = attempt(lambda: extractor.extract(inputs))
            self._log(clip, name, result, time.perf_counter() - started)
            return False
        enough = attempt(lambda: bool(extractor.add(clip.work.clip.id, inputs)))
        if isinstance(enough, ExtractionError):
            self._log(clip, name, enough, time.perf_counter() - started)
            return False
        clip.waiting[name] = time.perf_counter() - started
        return enough

    def _finish_batch(self, stage: Stage) -> None:
        """Compute the rows of every clip that a batched stage has collected."""
        name = stage.name
        waiting = {key: clip for key, clip in self._clips.items() if name in clip.waiting}
        if not waiting:
            return
        if len(waiting) > 1 or sources(name) == {"text"}:
            self._started(waiting.values(), name)
        started = time.perf_counter()
        results = attempt(self._loaded(name).finish)
        share = (time.perf_counter() - started) / len(waiting)
        for key, clip in waiting.items():
            if clip.opened_again:
                self._give_up_if_changed(clip)
            result = results if isinstance(results, ExtractionError) else as_result(results.get(key))
            self._log(clip, name, result, clip.waiting.pop(name) + share)
            self._end_if_done(clip)

    def _inputs(self, clip: _Clip, stage: Stage) -> ClipInputs:
        def source() -> MediaSource:
            if clip.source is None:
                clip.opened_again = True
            return clip.source or self._opened(clip.work)

        def frames() -> Iterator[Frame]:
            for count, frame in enumerate(source().frames(), start=1):
                clip.frames = max(clip.frames, count)
                yield frame

        return ClipInputs(
            stage,
            transcript=clip.work.clip.text or "",
            read_waveform=lambda: source().waveform(),
            read_frames=frames,
            read_rows=lambda name: self._rows(clip, name),
            open_media=source,
            face=None if clip.work.clip.face is None else face_centre(clip.work.clip.face),
        )

    def _rows(self, clip: _Clip, name: str) -> Features:
        """Return another stage's rows of the clip: from this group or from disk, computed again if damaged."""
        if name in clip.waiting:
            self._finish_batch(stages()[name])
        if name not in clip.rows:
            clip.rows[name] = self._saved_rows(clip, name)
        found = clip.rows[name]
        if isinstance(found, ExtractionError):
            raise found
        return found

    def _saved_rows(self, clip: _Clip, name: str) -> Features | ExtractionError:
        key = clip.work.clip.id
        try:
            check_once(clip.work.saved[name])
            with Shard(clip.work.saved[name]) as shard:
                return shard.read(key)
        except (ShardError, OSError, KeyError):
            extractor, inputs = self._loaded(name), self._inputs(clip, stages()[name])
            if not stages()[name].batched:
                return attempt(lambda: extractor.extract(inputs))
            added = attempt(lambda: extractor.add(key, inputs))
            return added if isinstance(added, ExtractionError) else as_result(extractor.finish().get(key))

    def _loaded(self, name: str) -> Any:
        recipe = self._task.recipe
        return load_stage(name, recipe.section(name), recipe.media, self._task.device)

    def _log(self, clip: _Clip, name: str, result: Features | ExtractionError, seconds: float) -> None:
        """Add the ledger line of one stage of one clip and, for rows, the item of a shard."""
        if clip.changed and "media" in sources(name):
            result = _changed()
        # A shard refuses malformed features, and would refuse those of the whole group with them.
        made = result
        if isinstance(result, Features):
            made = with_media_notes(result, stages()[name], clip.notes)
        result = attempt(lambda: _checked(name, made))
        if not clip.media_done:
            clip.rows[name] = result
        digest = source_digest(name, clip.work.digests)
        outcome = _outcome(result)
        if isinstance(result, Features):
            self._items.setdefault(name, []).append(ShardItem(clip.work.clip.id, digest, result))
        self._lines.append(
            LedgerLine(
                clip_id=clip.work.clip.id,
                stage=name,
                outcome=outcome,
                reason="" if isinstance(result, Features) else result.reason,
                detail="; ".join(result.notes) if isinstance(result, Features) else result.detail,
                seconds=round(seconds, 4),
                fingerprint=self._task.fingerprints[name],
                digest=digest,
            )
        )

    def _give_up_if_changed(self, clip: _Clip) -> None:
        """Drop the features of a clip whose file has changed since the plan was made."""
        work = clip.work
        try:
            # A recording of many spans is not read again for each, while its stamp is the same.
            read = stamped_digest if work.clip.span else content_digest
            digest = part_digest(read(work.clip.file), work.clip.part)
        except OSError:
            digest = ""
        if digest == work.digests["media"]:
            return
        clip.changed = True
        for line in [line for line in self._lines if line.clip_id == work.clip.id]:
            if "media" in sources(line.stage):
                self._lines.remove(line)
                self._items[line.stage] = [
                    item for item in self._items.get(line.stage, []) if item.clip_id != work.clip.id
                ]
                self._log(clip, line.stage, _changed(), line.seconds)

    def _end_if_done(self, clip: _Clip) -> None:
        if clip.media_done and not clip.waiting:
            key = clip.work.clip.id
            lines = [line for line in self._lines if line.clip_id == key]
            failures = tuple((one.stage, one.reason, one.detail) for one in lines if one.outcome == "failed")
            notes = tuple((one.stage, one.detail) for one in lines if one.outcome == "done" and one.detail)
            self._report(ClipFinished(key, clip.frames, len(failures), failures, notes))

    def _write(self, least: int = 0) -> None:
        """Write a shard for each stage whose items have at least this many bytes, and release the items."""
        for name, items in list(self._items.items()):
            if items and sum(item.features.values.nbytes for item in items) >= least:
                self._started([self._clips[item.clip_id] for item in items], name)
                write_shard(self._task.folder / name, self._header(name), items)
                self._items[name] = []
                self._report(ShardWritten(name))

    def _header(self, name: str) -> ShardHeader:
        stage, recipe = stages()[name], self._task.recipe
        settings, loaded = recipe.section(name), self._loaded(name)
        declared = math.nan if stage.row_rate is None else stage.row_rate(settings, recipe.media)
        return ShardHeader(
            stage=name,
            fingerprint=self._task.fingerprints[name],
            recipe=recipe.model_dump_json(),
            software=software(stage) | dict(getattr(loaded, "software", {})),
            frame_rate=getattr(loaded, "row_rate", declared),
            attributes=stage.attributes(settings),
        )


def _checked(name: str, result: Any) -> Features | ExtractionError:
    """Return a stage's result, or what is wrong with it as a typed reason."""
    if isinstance(result, ExtractionError):
        return result
    if not isinstance(result, Features):
        return ExtractionError(Reason.UNEXPECTED, f"the stage returned {type(result).__name__}, not Features")
    problems = check_features(name, result)
    return ExtractionError(Reason.UNEXPECTED, "; ".join(problems)) if problems else result


def _outcome(result: Features | ExtractionError) -> Outcome:
    if isinstance(result, Features):
        return "done"
    # A file of sound alone has nothing to make such rows from.
    return "absent" if result.reason in (Reason.NO_VIDEO_STREAM, Reason.NO_SPEECH) else "failed"


def _changed() -> ExtractionError:
    return ExtractionError(
        Reason.FILE_CHANGED, "the file changed while it was read; run extract again when it no longer changes"
    )
