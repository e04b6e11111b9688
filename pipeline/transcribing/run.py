"""A run of `transcribe`: the stage asr for the clips without a person's transcript, and the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import Manifest
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.manifest.writing import write_manifest
from triptych.pipeline.run.extraction import Extraction, prepare, run
from triptych.pipeline.storage.store import FeatureStore, MissingFeaturesError
from triptych.pipeline.transcribing.texts import Transcribed, is_by_person, transcribed, with_corrections

if TYPE_CHECKING:
    from triptych.extractors.base import Features
    from triptych.pipeline.run.events import Report

FOLDER = "transcripts"
STAGE = "asr"


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
        The clips.
    """

    manifest: Path
    folder: Path
    clips: Manifest


def place_of(sources: Sequence[Path], output: Path | None) -> Place:
    """Find the manifest of a data set, or read any sources.

    Raises
    ------
    InputError
        Sources that are no data set need an output; or a source is invalid.
    """
    dataset = sources[0] / "manifest.csv"
    if output is None and len(sources) == 1 and dataset.is_file():
        return Place(dataset, sources[0] / FOLDER, load_manifest(dataset, check_files=False))
    if output is None:
        raise InputError(
            f"{sources[0]}: no data set made by `triptych cut`; name the manifest to write: -o clips.csv"
        )
    if output.suffix.lower() != ".csv":
        raise InputError(f"{output}: a manifest is written as CSV; choose a name that ends in .csv")
    found = load_manifest(output if output.is_file() else list(sources), check_files=False)
    return Place(output, output.with_name(f"{output.stem}-{FOLDER}"), found)


def plan(place: Place, assignments: Sequence[str], recipe: str | None = None) -> Extraction | None:
    """Plan the recognition of the clips that have no transcript by a person; None where all have one."""
    manifest = with_corrections(place.clips, place.folder)
    without = [clip for clip in manifest.clips if not is_by_person(clip) and clip.text_source != "corrected"]
    if not without:
        return None
    place.folder.mkdir(parents=True, exist_ok=True)
    listed = place.folder / "clips.csv"
    # The recogniser reads no transcript: none is passed on, so that a correction redoes nothing.
    write_manifest(
        replace(manifest, clips=tuple(replace(clip, text=None, text_source=None) for clip in without)), listed
    )
    return prepare(listed, place.folder, only=[STAGE], assignments=assignments, recipe=recipe)


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
    recogniser = ""
    if todo is not None:
        todo = run(todo, jobs=jobs, scheduler=scheduler, device=device, watch=watch)
        recogniser = recogniser_name(todo)
    manifest = with_corrections(place.clips, place.folder)
    done = transcribed(manifest, heard(place), recogniser, place.folder)
    write_manifest(done.manifest, place.manifest)
    return done, todo


def recogniser_name(todo: Extraction) -> str:
    """Name a recogniser with its revision, as `Clip.text_source` does."""
    settings = todo.recipe.section(STAGE)
    if settings.backend == "pocketsphinx":  # type: ignore[attr-defined]
        from triptych.extractors.base import package_version

        return f"pocketsphinx@{package_version('pocketsphinx')}"
    model, revision = settings.model, settings.revision  # type: ignore[attr-defined]
    return f"{Path(model).name if Path(model).expanduser().is_dir() else model}@{revision or 'folder'}"


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
