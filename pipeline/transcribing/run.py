"""A run of `transcribe`: the stage asr for the clips without a person's transcript, and the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from triptych.extractors.base import Features
from triptych.extractors.pretrained import remembered_identity
from triptych.pipeline.atomic import locked
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import Manifest
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.manifest.writing import write_manifest
from triptych.pipeline.run.extraction import Extraction, prepare, run
from triptych.pipeline.storage.index import FeatureIndex, Holding
from triptych.pipeline.storage.shard_reader import Shard
from triptych.pipeline.storage.store import FeatureStore, MissingFeaturesError
from triptych.pipeline.transcribing.texts import (
    Transcribed,
    transcribed,
    with_corrections,
    with_texts,
    without_text,
)

if TYPE_CHECKING:
    from triptych.pipeline.run.events import Report

FOLDER = "transcripts"
STAGE = "asr"
HASH = len("sha256:") + 12  # characters of a model's identity that are enough to distinguish it from others


@dataclass(frozen=True)
class Place:
    """Where clips come from, and where their transcripts go.

    Attributes
    ----------
    manifest
        The file that is written.
    folder
        The feature folder of the stage asr.
    clips
        The clips, with the transcripts that the manifest had when it was read.
    sources
        The clips as other sources than the manifest give them; None for a data set.
    """

    manifest: Path
    folder: Path
    clips: Manifest
    sources: Manifest | None = None

    def now(self) -> Manifest:
        """Read the manifest again: a person may have edited it during a long run."""
        if not self.manifest.is_file():
            return self.clips
        written = load_manifest(self.manifest, check_files=False)
        found = written if self.sources is None else with_texts(self.sources, written)
        return with_corrections(found, self.folder)


def place_of(sources: Sequence[Path], output: Path | None) -> Place:
    """Find the manifest of a data set, or read any sources.

    Raises
    ------
    InputError
        Sources that are no data set need an output; or a source is invalid.
    """
    dataset = sources[0] / "manifest.csv"
    if output is None and len(sources) == 1 and dataset.is_file():
        place = Place(dataset, sources[0] / FOLDER, Manifest(()))
        return replace(place, clips=place.now())
    if output is None:
        raise InputError(
            f"{sources[0]}: no data set made by `triptych cut`; name the manifest to write: -o clips.csv"
        )
    if output.suffix.lower() != ".csv":
        raise InputError(f"{output}: a manifest is written as CSV; choose a name that ends in .csv")
    found = load_manifest(list(sources), check_files=False)
    place = Place(output, output.with_name(f"{output.stem}-{FOLDER}"), found, found)
    return replace(place, clips=place.now())


def plan(
    place: Place,
    assignments: Sequence[str] = (),
    *,
    again: bool = False,
    limit: int | None = None,
    dry_run: bool = False,
) -> Extraction | None:
    """Plan the recognition of the clips that have no transcript; None where all have one.

    Parameters
    ----------
    assignments
        ``section.name=value``, laid over the settings of the folder.
    again
        Also of those whose transcript a recogniser has made, for example another one.
    limit
        Only of the first clips.
    """
    without = [clip for clip in place.clips.clips if without_text(clip, again)][:limit]
    if not without:
        return None
    place.folder.mkdir(parents=True, exist_ok=True)
    listed = place.folder / "clips.csv"
    # The recogniser reads no transcript: none is passed on, so that a correction redoes nothing.
    write_manifest(
        replace(place.clips, clips=tuple(replace(clip, text=None, text_source=None) for clip in without)),
        listed,
    )
    return prepare(
        listed,
        place.folder,
        only=[STAGE],
        assignments=assignments,
        limit=len(without),  # of the folder's clips, those alone
        retry_failed=True,
        dry_run=dry_run,
    )


def transcribe(
    place: Place,
    todo: Extraction | None,
    *,
    jobs: int,
    scheduler: str | None = None,
    device: str = "cpu",
    watch: Report = lambda event: None,
) -> tuple[Transcribed, Extraction | None]:
    """Run the plan, and write the manifest."""
    recogniser, words, silent = "", dict[str, Features](), list[str]()
    if todo is not None:
        todo = run(todo, jobs=jobs, scheduler=scheduler, device=device, watch=watch)
        recogniser, words, silent = recogniser_name(todo), _recognised(todo), todo.plan.stages[STAGE].absent
    place.manifest.parent.mkdir(parents=True, exist_ok=True)
    with locked(place.manifest.parent):
        done = transcribed(place.now(), words, recogniser, place.folder, silent)
        write_manifest(done.manifest, place.manifest)
    return done, todo


def _recognised(todo: Extraction) -> dict[str, Features]:
    """Return the rows that this recogniser has made.

    A `FeatureStore` would give those of the recogniser before it where some clips have failed.
    """
    done = set(todo.plan.stages[STAGE].done)
    newest: dict[str, Holding] = {}
    with FeatureIndex(todo.folder) as index:
        for one in index.holdings(STAGE):
            if one.fingerprint == todo.fingerprints[STAGE] and one.clip_id in done:
                newest[one.clip_id] = max(one, newest.get(one.clip_id, one), key=lambda each: each.created)
    found = {}
    for id, one in newest.items():
        with Shard(one.shard) as shard:
            found[id] = shard.read(id)
    return found


def recogniser_name(todo: Extraction) -> str:
    """Name a recogniser with its revision, as `Clip.text_source` does; a folder's revision is a hash of its content."""
    settings = todo.recipe.section(STAGE)
    if settings.backend == "pocketsphinx":  # type: ignore[attr-defined]
        from triptych.extractors.base import package_version

        return f"pocketsphinx@{package_version('pocketsphinx')}"
    model, revision = settings.model, settings.revision  # type: ignore[attr-defined]
    if not Path(model).expanduser().is_dir():
        return f"{model}@{revision or 'main'}"
    return f"{Path(model).name}@{(remembered_identity(settings) or '')[:HASH]}"  # type: ignore[arg-type]


def heard(place: Place) -> dict[str, Features]:
    """Return the rows of the stage asr of all clips that have some."""
    if not (place.folder / "recipe.json").is_file():
        return {}
    store = FeatureStore(place.folder)
    found = {}
    for clip in place.clips.clips:
        try:
            found[clip.id] = store.read(STAGE, clip.id)
        except MissingFeaturesError:
            continue
    return found
