"""The clips' files of a data set: which are there already, and the making of the others on worker processes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from triptych.extractors.base import ExtractionError
from triptych.pipeline.atomic import replacing, write_whole
from triptych.pipeline.processes.parent import end_with
from triptych.pipeline.processes.pool import worker_pool
from triptych.pipeline.processes.signals import terminal_signals_blocked

Mode = Literal["copy", "encode", "none"]
FOLDER = "clips"
MADE = "made.jsonl"


@dataclass(frozen=True)
class ClipFile:
    """A clip's file that is to be made.

    Attributes
    ----------
    clip_id
        The clip.
    recording
        The recording's file.
    digest
        SHA-256 of its content.
    start, end
        The span [s].
    earliest
        A copy may begin this early [s].
    target
        The file to write, relative to the data set's folder and without an ending.
    mode, quality
        How it is written; the quality of encoding.
    """

    clip_id: str
    recording: str
    digest: str
    start: float
    end: float
    earliest: float
    target: str
    mode: Mode
    quality: int

    def is_like(self, other: ClipFile) -> bool:
        """Return whether another one's file would be the same; the recording may have moved."""
        return asdict(self) | {"recording": ""} == asdict(other) | {"recording": ""}


@dataclass(frozen=True)
class MadeFile:
    """A clip's file that was made.

    Attributes
    ----------
    wanted
        What was asked for.
    path
        The file, relative to the data set's folder.
    size
        Its bytes.
    start
        Where it begins on the recording's clock [s].
    copied
        Whether its packets are the recording's own.
    """

    wanted: ClipFile
    path: str
    size: int
    start: float
    copied: bool


def made_files(dataset: Path) -> dict[str, MadeFile]:
    """Return the files that were made and are still there, by clip id."""
    found: dict[str, MadeFile] = {}
    try:
        lines = (dataset / FOLDER / MADE).read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    for line in lines:
        try:
            values = json.loads(line)
            made = MadeFile(**{**values, "wanted": ClipFile(**values["wanted"])})
            if (dataset / made.path).stat().st_size == made.size:
                found[made.wanted.clip_id] = made
        except (ValueError, TypeError, KeyError, OSError):  # a torn line, or a file that is gone
            continue
    return found


def make_files(
    dataset: Path, wanted: Sequence[ClipFile], jobs: int, watch: Callable[[str], object]
) -> tuple[dict[str, MadeFile], dict[str, ExtractionError]]:
    """Make the files that are missing; return all, and the errors of those that could not be made, by clip id.

    Parameters
    ----------
    watch
        Called with the id of every clip whose file was made.
    """
    there = made_files(dataset)
    files = {one.clip_id: there[one.clip_id] for one in wanted if _is_made(one, there)}
    todo = [one for one in wanted if one.clip_id not in files]
    errors: dict[str, ExtractionError] = {}
    if todo:
        (dataset / FOLDER).mkdir(parents=True, exist_ok=True)
        record = (dataset / FOLDER / MADE).open("ab", buffering=0)
        with record:
            for one, result in _made(dataset, todo, jobs):
                if isinstance(result, ExtractionError):
                    errors[one.clip_id] = result
                    continue
                files[one.clip_id] = result
                record.write((json.dumps(asdict(result)) + "\n").encode())
                watch(one.clip_id)
    _forget(dataset, there, files)
    return files, errors


def _is_made(one: ClipFile, there: dict[str, MadeFile]) -> bool:
    return one.clip_id in there and there[one.clip_id].wanted.is_like(one)


def _forget(dataset: Path, there: dict[str, MadeFile], files: dict[str, MadeFile]) -> None:
    """Remove files that earlier runs made and that are no clip's any more: their recordings still have them."""
    current = {made.path for made in files.values()}
    for made in there.values():
        if made.path not in current:
            (dataset / made.path).unlink(missing_ok=True)
    if files or there:
        lines = (json.dumps(asdict(made)) + "\n" for made in files.values())
        write_whole(dataset / FOLDER / MADE, "".join(lines).encode())


def _made(
    dataset: Path, todo: Sequence[ClipFile], jobs: int
) -> Iterator[tuple[ClipFile, MadeFile | ExtractionError]]:
    if jobs == 0:
        yield from ((one, make_file(dataset, one)) for one in todo)
        return
    with worker_pool(min(jobs, len(todo)), end_with, os.getpid()) as pool:
        with terminal_signals_blocked():
            running = {pool.submit(make_file, dataset, one): one for one in todo}
        for future in as_completed(running):
            yield running[future], future.result()


def make_file(dataset: Path, one: ClipFile) -> MadeFile | ExtractionError:
    """Make one clip's file; return the reason if its recording cannot be read there."""
    from triptych.pipeline.cutting.copying import copy_span
    from triptych.pipeline.cutting.encoding import encode_span

    recording = Path(one.recording)
    target = dataset / one.target
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if one.mode == "copy":
            path = target.with_name(target.name + recording.suffix.lower())
            with replacing(path) as temporary:
                start = copy_span(recording, one.start, one.end, one.earliest, temporary)
                if start is None:
                    raise _NotCopiedError
            return MadeFile(one, str(path.relative_to(dataset)), path.stat().st_size, start, True)
    except _NotCopiedError:
        pass
    except ExtractionError as error:
        return error
    path = target.with_name(f"{target.name}.mp4")
    try:
        with replacing(path) as temporary:
            encode_span(recording, one.start, one.end, one.quality, temporary)
    except ExtractionError as error:
        return error
    return MadeFile(one, str(path.relative_to(dataset)), path.stat().st_size, one.start, False)


class _NotCopiedError(Exception):
    """No key frame allows a copy: what was written of it is removed."""
