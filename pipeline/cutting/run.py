"""A run of `cut`: analyse recordings, propose cuts or take a table of them, and make the data set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triptych.extractors.cutting.settings import CutSettings
from triptych.pipeline.atomic import write_whole
from triptych.pipeline.cutting.cuts import Cut, numbered, read_cuts, write_cuts
from triptych.pipeline.cutting.dataset import Recording, Written, write_dataset
from triptych.pipeline.cutting.files import Mode
from triptych.pipeline.documents import read_json
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import Clip
from triptych.pipeline.manifest.transcripts import TimedText, clip_stem, find_transcripts, timed_transcript
from triptych.pipeline.run.extraction import Extraction, prepare, run
from triptych.pipeline.storage.index import FeatureIndex
from triptych.pipeline.storage.store import FeatureStore, MissingFeaturesError

if TYPE_CHECKING:
    from triptych.extractors.base import Features
    from triptych.extractors.cutting.analysis import Analysis
    from triptych.pipeline.run.events import Report

TABLE, ANALYSIS, RECIPE = "cuts.csv", "analysis", "recipe.json"
STAGES = ("voice", "scenes")
SAMPLE_RATE = 16000  # [Hz], of the network that finds speech: nothing is resampled twice


@dataclass(frozen=True)
class CutResult:
    """What a run did.

    Attributes
    ----------
    analysis
        The plan of the analysis after the run; recordings that failed are in it.
    cuts
        All spans, by recording and time.
    written
        The data set.
    seconds
        Length of the recordings [s].
    """

    analysis: Extraction
    cuts: Sequence[Cut]
    written: Written
    seconds: float


@dataclass(frozen=True)
class CutOptions:
    """How a data set is cut.

    Attributes
    ----------
    settings
        Lengths, pauses and faces.
    table
        A table of cuts to apply instead of proposing some.
    propose_again
        Replace a table of the data set that was edited.
    mode, quality
        How clips are written, and the quality of those that are encoded.
    assignments
        ``section.name=value`` for the stages of the analysis.
    """

    settings: CutSettings = field(default_factory=CutSettings)
    table: Path | None = None
    propose_again: bool = False
    mode: Mode = "copy"
    quality: int = 14
    assignments: tuple[str, ...] = ()


def cut(
    sources: Sequence[Path],
    dataset: Path,
    options: CutOptions,
    *,
    jobs: int,
    scheduler: str | None = None,
    device: str = "cpu",
    watch: Report = lambda event: None,
    made: Callable[[str], object] = lambda _: None,
) -> CutResult:
    """Cut recordings into the clips of a data set; an interrupted run continues with the same call.

    Parameters
    ----------
    sources
        Recordings: folders, files, patterns or tables. Empty for those that the data set has already.
    dataset
        The data set's folder.
    watch, made
        Called with the events of the analysis, and with the id of every clip whose file was made.

    Raises
    ------
    InputError
        A source, a setting or a row of the table is wrong; or the data set's table was edited.
    """
    before = _table_before(dataset, options)
    todo = analysed(sources, dataset, options)
    todo = run(todo, jobs=jobs, scheduler=scheduler, device=device, watch=watch)
    store = FeatureStore(dataset / ANALYSIS)
    known = dict(_analyses(store, todo))
    recordings = [_recording(id, clip, analysis, digest) for id, clip, analysis, digest in known.values()]
    if options.table is not None:
        cuts = read_cuts(options.table, {one.id: one.seconds for one in recordings})
    else:
        proposed = [
            cut
            for recording, (_, _, analysis, _) in zip(recordings, known.values(), strict=True)
            for cut in _proposed(recording, analysis, options.settings)
        ]
        cuts = numbered(proposed, before)
    write_cuts(cuts, dataset / TABLE)
    _remember(dataset, options)
    written = write_dataset(
        dataset, recordings, cuts, before, mode=options.mode, quality=options.quality, jobs=jobs, watch=made
    )
    return CutResult(todo, cuts, written, sum(one.seconds for one in recordings))


def analysed(sources: Sequence[Path], dataset: Path, options: CutOptions) -> Extraction:
    """Plan the analysis of recordings; it is a feature folder in the data set's folder."""
    folder = dataset / ANALYSIS
    if not sources:
        if not (folder / "manifest.csv").is_file():
            raise InputError(f"{dataset}: no data set made by `triptych cut`; name the recordings too")
        sources = [folder / "manifest.csv"]
    settings = (f"media.sample_rate={SAMPLE_RATE}", *options.assignments)
    return prepare(sources, folder, only=STAGES, assignments=settings, retry_failed=True)


def _table_before(dataset: Path, options: CutOptions) -> list[Cut]:
    """Return the cuts that the data set has; refuse to replace what a person has edited."""
    path = dataset / TABLE
    if not path.is_file():
        return []
    content = path.read_bytes()
    edited = hashlib.sha256(content).hexdigest() != _remembered(dataset).get("cuts")
    if edited and options.table is None and not options.propose_again:
        raise InputError(
            f"{path}: edited since `triptych cut` wrote it. Apply it by --from {path}, or replace it by --again"
        )
    with suppress(InputError):
        return read_cuts(path, None)
    return []


def _analyses(store: FeatureStore, todo: Extraction) -> Iterator[tuple[str, tuple[str, Clip, Analysis, str]]]:
    """Yield each recording of this run whose sound, or frames, were analysed."""
    from triptych.extractors.cutting.analysis import Analysis

    with FeatureIndex(store.folder) as index:
        for clip in todo.manifest.clips:
            if any(clip.id in todo.plan.stages[stage].failed for stage in STAGES):
                continue  # it is reported; without its faces, all of it would be left out for a wrong reason
            rows = [_rows(store, stage, clip.id) for stage in STAGES]
            if any(each is not None for each in rows):
                digest = ""
                with suppress(OSError):
                    digest = index.digest_of(clip.file)
                yield clip.id, (clip.id.replace("$_$", "_"), clip, Analysis.of(*rows), digest)


def _rows(store: FeatureStore, stage: str, clip_id: str) -> Features | None:
    try:
        return store.read(stage, clip_id)
    except MissingFeaturesError:
        return None


def _recording(id: str, clip: Clip, analysis: Analysis, digest: str) -> Recording:
    from triptych.extractors.cutting.voice import speech_segments

    segments = speech_segments(analysis.speech)
    ends = [0.0, *(end for _, end in segments)]
    shots = [0.0, *analysis.transitions[:, 1].tolist()]
    quiet = tuple(
        (max(end, *(shot for shot in shots if shot <= start)), start)
        for end, (start, _) in zip(ends, segments, strict=False)
    )
    return Recording(id, clip, digest, analysis.duration, _pieces(clip.file), quiet)


def _pieces(file: Path) -> tuple[TimedText, ...]:
    """Read the transcript with times beside a recording, if there is one."""
    try:
        names = [entry.name for entry in file.parent.iterdir()]
    except OSError:
        return ()
    for name in find_transcripts(names).get(clip_stem(file.stem), ()):
        if not name.lower().endswith(".txt"):
            return tuple(piece for piece in timed_transcript(file.parent / name) if piece.end > piece.start)
    return ()


def _proposed(recording: Recording, analysis: Analysis, settings: CutSettings) -> Iterator[Cut]:
    from triptych.extractors.cutting.proposals import Span, propose

    words = [Span(piece.start, piece.end) for piece in recording.pieces]
    for one in propose(analysis, settings, words):
        yield Cut(
            recording.id,
            "",
            round(one.start, 3),
            round(one.end, 3),
            one.keep,
            str(one.reason or ""),
            one.detail,
            "" if one.face is None else f"{one.face[0]:.3f} {one.face[1]:.3f}",
            one.speech,
            one.score,
        )


def _remember(dataset: Path, options: CutOptions) -> None:
    """Write the settings, and the checksum of the table, by which a later run sees that a person edited it."""
    content = (dataset / TABLE).read_bytes()
    document = {
        "cut": options.settings.model_dump(mode="json"),
        "clips": options.mode,
        "quality": options.quality,
        "cuts": hashlib.sha256(content).hexdigest(),
        "by_hand": options.table is not None,
    }
    write_whole(dataset / RECIPE, (json.dumps(document, indent=2) + "\n").encode())


def _remembered(dataset: Path) -> dict[str, Any]:
    try:
        document = read_json((dataset / RECIPE).read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
