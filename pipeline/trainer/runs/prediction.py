"""From raw clips to sentiment: features by a run's own recipe, predictions by the models of its folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import Clip, Manifest, load_manifest, write_manifest
from triptych.pipeline.manifest.csv_text import decode
from triptych.pipeline.manifest.sources import VIDEO_ENDINGS
from triptych.pipeline.manifest.splits import CLASS_NAMES, label_class
from triptych.pipeline.run.extraction import prepare, run
from triptych.pipeline.stages.recipe import build_recipe, to_toml
from triptych.pipeline.storage.ledger import LedgerLine
from triptych.pipeline.storage.store import FeatureStore
from triptych.pipeline.terminal.progress import RunProgress
from triptych.pipeline.trainer.data.clips import load
from triptych.pipeline.trainer.runs.checkpoint import Checkpoint, read_checkpoint
from triptych.pipeline.trainer.runs.run import read_recipe
from triptych.pipeline.trainer.settings import MODALITIES, TASK_OF_MODALITY, Task


@dataclass(frozen=True)
class Sentiment:
    """What a run's models say of one clip.

    Attributes
    ----------
    values
        By task, mean over the run's models, in [-1, 1]; a task whose modality the clip lacks is left out.
    missing
        Modalities without features.
    failures
        Why stages failed, a missing sound track included; a clip without a transcript is no failure.
    """

    clip_id: str
    values: Mapping[Task, float]
    missing: tuple[str, ...]
    failures: tuple[LedgerLine, ...] = ()

    def class_of(self, task: Task) -> str:
        """The paper's class of a task's value, from negative to positive."""
        return CLASS_NAMES[label_class(self.values[task])]


def predict(
    run_folder: Path,
    source: Path,
    features: Path | None = None,
    *,
    text: str | None = None,
    assignments: Sequence[str] = (),
    jobs: int = 1,
) -> list[Sentiment]:
    """Predict the sentiment of raw clips, or of a feature folder's.

    Parameters
    ----------
    run_folder
        What `triptych train` wrote.
    source
        A video (its transcript in a .txt file beside it), whatever `load_manifest` reads, or a feature folder.
    features
        Where features are kept and looked for; a temporary folder without it.
    text
        The transcript, where the source is a single video.
    assignments
        ``section.name=value``, over the run's recipe: where the language model lies on this machine, say.

    Raises
    ------
    InputError
        The run is incomplete, the source has mistakes, or its features are not those that the models learnt from.
    """
    if text is not None and source.suffix.lower() not in VIDEO_ENDINGS:
        raise InputError(f"{source}: no video, so that one transcript says nothing; leave --text out")
    models = load_models(run_folder)
    if (source / "recipe.json").is_file():
        return _predict(models, FeatureStore(source), None)
    with _folder(features) as folder:
        manifest = single(source, text) if source.suffix.lower() in VIDEO_ENDINGS else load_manifest(source)
        kept = read_recipe(run_folder)["features"]
        with tempfile.TemporaryDirectory() as scratch:
            recipe, given = Path(scratch) / "run.toml", Path(scratch) / "clips.csv"
            recipe.write_text(to_toml(build_recipe(kept["recipe"])), encoding="utf-8")
            write_manifest(manifest, given)
            todo = prepare(given, folder, recipe=str(recipe), assignments=assignments)
        check_fingerprints(
            models[0].fingerprints,
            todo.fingerprints,
            f"the run's recipe on this machine{' with --set' * bool(assignments)}",
        )
        with RunProgress(len(todo.plan.work)) as progress:
            done = run(todo, jobs=jobs, watch=progress.update)
        failures = [line for plan in done.plan.stages.values() for line in plan.failed.values()]
        found = _predict(models, FeatureStore(folder), {clip.id for clip in manifest.clips})
        return [
            replace(one, failures=tuple(line for line in failures if line.clip_id == one.clip_id))
            for one in found
        ]


def load_models(run_folder: Path) -> list[Checkpoint]:
    """Every model of a run folder, by name.

    Raises
    ------
    InputError
        There is none, or not all of the run's, or one cannot be read, or they did not learn from the same features.
    """
    paths = sorted(run_folder.glob("seed-*.pt"))
    if not paths:
        raise InputError(
            f"{run_folder}: no seed-<n>.pt in it; name the folder that `triptych train -o` wrote"
        )
    wanted = {f"seed-{seed}.pt" for seed in read_recipe(run_folder).get("seeds", ())}
    if lacking := sorted(wanted - {path.name for path in paths}):
        raise InputError(
            f"{run_folder}: {', '.join(lacking)} not there, so that its training has not ended; "
            "the same `triptych train` goes on with it"
        )
    models = [read_checkpoint(path) for path in paths]
    for path, model in zip(paths, models, strict=True):
        if (model.name, model.fingerprints) != (models[0].name, models[0].fingerprints):
            raise InputError(f"{path}: another system or other features than {paths[0].name}'s; train again")
    return models


def check_fingerprints(learnt: Mapping[str, str], found: Mapping[str, str], where: str) -> None:
    """Refuse features that differ from those that models learnt from; ``where`` they come from.

    Raises
    ------
    InputError
        A modality's fingerprint differs: every such one.
    """
    mistakes = [
        f"{where}: {modality} features of fingerprint {found.get(modality, 'none')[:8]}, but the run learnt from "
        f"{learnt[modality][:8]}: settings, models or this program's version differ; train on features made here"
        for modality in MODALITIES
        if found.get(modality) != learnt[modality]
    ]
    if mistakes:
        raise InputError(mistakes)


def single(video: Path, text: str | None = None) -> Manifest:
    """One video as a manifest, its transcript given or in the .txt file beside it.

    Raises
    ------
    InputError
        There is no such file, or the transcript is in no known encoding.
    """
    if not video.is_file():
        raise InputError(f"{video}: there is no such file; check the path")
    sidecar = video.with_suffix(".txt")
    if text is None and sidecar.is_file():
        text = decode(sidecar.read_bytes(), str(sidecar))
    absolute = video.absolute()
    nan = float("nan")
    clip = Clip(
        id=f"{absolute.parent.name}$_${video.stem}",
        path=video.name,
        text=(text or "").strip() or None,
        split=None,
        label=nan,
        label_T=nan,
        label_A=nan,
        label_V=nan,
        root=str(absolute.parent),
    )
    return Manifest((clip,))


def _predict(models: Sequence[Checkpoint], store: FeatureStore, wanted: set[str] | None) -> list[Sentiment]:
    """Predict the wanted clips of a feature folder, or all; those without any features say nothing."""
    check_fingerprints(models[0].fingerprints, store.recipe["fingerprints"], str(store.folder))
    trained = [model.trained for model in models]
    data = load(store, sequences=trained[0].settings.needs_rows, widths=trained[0].widths, only=wanted)
    predictions = [model.predict(data) for model in trained] if len(data) else []
    found = [Sentiment(clip_id, {}, MODALITIES) for clip_id in data.left_out]
    for place, clip_id in enumerate(data.ids):
        lacking = {
            "text": data.text[place] is None,
            "audio": not data.audio.lengths[place],
            "vision": not data.vision.lengths[place],
        }
        missing = tuple(modality for modality in MODALITIES if lacking[modality])
        blind = {TASK_OF_MODALITY[modality] for modality in missing}
        values = {
            task: float(np.clip(np.mean([one[task][place] for one in predictions]), -1, 1))
            for task in trained[0].settings.tasks
            if task not in blind
        }
        found.append(Sentiment(clip_id, values, missing))
    return sorted(found, key=lambda one: one.clip_id)


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="triptych-") as name:
        yield Path(name)
