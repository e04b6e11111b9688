"""From raw clips to sentiment: features by a run's own recipe, predictions by the checkpoints of its folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import Manifest
from triptych.pipeline.manifest.files import is_media
from triptych.pipeline.manifest.label_range import DEFAULT, LabelRange
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.manifest.splits import CLASS_NAMES, label_class
from triptych.pipeline.manifest.writing import write_manifest
from triptych.pipeline.run.extraction import prepare, run
from triptych.pipeline.stages.recipe import build_recipe, to_toml
from triptych.pipeline.stages.stored import STORED
from triptych.pipeline.storage.ledger import LedgerLine
from triptych.pipeline.storage.store import FeatureStore
from triptych.pipeline.terminal.progress import RunProgress
from triptych.pipeline.trainer.data.clips import load
from triptych.pipeline.trainer.metrics import from_unit
from triptych.pipeline.trainer.runs.checkpoint import Checkpoint, Origin, read_checkpoint
from triptych.pipeline.trainer.runs.folder import find_checkpoints, read_run
from triptych.pipeline.trainer.settings import MODALITIES, TASK_OF_MODALITY, Task


@dataclass(frozen=True)
class Sentiment:
    """The predictions of a run's models for one clip.

    Attributes
    ----------
    values
        By task, mean over the run's models, in `label_range`; a task whose modality is missing is left out.
    missing
        Modalities without features.
    failures
        Why stages failed, a missing sound track included; a missing transcript is not a failure.
    split
        The clip's split in its manifest.
    label_range
        The range of the labels that the models were trained on.
    """

    clip_id: str
    values: Mapping[Task, float]
    missing: tuple[str, ...]
    failures: tuple[LedgerLine, ...] = ()
    split: str | None = None
    label_range: LabelRange = DEFAULT

    def class_of(self, task: Task) -> str:
        """Return the paper's class of a task's value, from negative to positive."""
        return CLASS_NAMES[label_class(self.values[task], self.label_range)]


def predict(
    run_folder: Path,
    source: Path,
    features: Path | None = None,
    *,
    text: str | None = None,
    assignments: Sequence[str] = (),
    jobs: int = 1,
    device: str = "cpu",
) -> list[Sentiment]:
    """Predict the sentiment of raw clips, or of the clips of a feature folder.

    Parameters
    ----------
    run_folder
        The folder that `triptych train` wrote.
    source
        A video (its transcript in a .txt file beside it), any source of `load_manifest`, or a feature folder.
    features
        The folder to save features in and to reuse them from; by default a temporary folder.
    text
        The transcript, where the source is a single video.
    assignments
        ``section.name=value``, changes of the run's recipe: for example the language model's folder on this machine.
    device
        Where models compute.

    Raises
    ------
    InputError
        The run is incomplete, the source is invalid, or its features are not those that the models were trained on.
    """
    if text is not None and not is_media(source.name):
        raise InputError(f"{source}: not a media file; --transcript is that of a single file, leave it out")
    models = load_checkpoints(run_folder, device)
    low, high = read_run(run_folder).get("label_range", DEFAULT)
    label_range = (float(low), float(high))
    if (source / STORED).is_file():
        return _predict(models, FeatureStore(source), None, label_range)
    with _folder(features) as folder:
        manifest = single(source, text) if is_media(source.name) else load_manifest(source)
        settings = read_run(run_folder)["features"]["recipe"]
        with tempfile.TemporaryDirectory() as scratch:
            recipe, given = Path(scratch) / "run.toml", Path(scratch) / "clips.csv"
            recipe.write_text(to_toml(build_recipe(settings)), encoding="utf-8")
            write_manifest(manifest, given)
            todo = prepare(
                given,
                folder,
                recipe=str(recipe),
                assignments=assignments,
                only=models[0].origin.streams.reads,
            )
        check_fingerprints(
            models[0].origin,
            todo.fingerprints,
            f"the run's recipe on this machine{' with --set' * bool(assignments)}",
        )
        with RunProgress(len(todo.plan.work)) as progress:
            done = run(todo, jobs=jobs, watch=progress.update)
        failures = [line for plan in done.plan.stages.values() for line in plan.failed.values()]
        sentiments = _predict(models, FeatureStore(folder), {clip.id for clip in manifest.clips}, label_range)
        return [
            replace(one, failures=tuple(line for line in failures if line.clip_id == one.clip_id))
            for one in sentiments
        ]


def load_checkpoints(run_folder: Path, device: str = "cpu") -> list[Checkpoint]:
    """Read every checkpoint of a run folder, sorted by name.

    Raises
    ------
    InputError
        There is none, or not all of the run's, or one cannot be read, or they were trained on different features.
    """
    paths = find_checkpoints(run_folder)
    models = [read_checkpoint(path, device) for path in paths]
    for path, model in zip(paths, models, strict=True):
        if model.origin != models[0].origin:
            raise InputError(f"{path}: another system or other features than {paths[0].name}'s; train again")
    return models


def check_fingerprints(origin: Origin, fingerprints: Mapping[str, str], where: str) -> None:
    """Refuse features that differ from those that models were trained on.

    Parameters
    ----------
    fingerprints
        Those of the features at hand, by stage.
    where
        Where they come from; begins each error message.

    Raises
    ------
    InputError
        A stream's fingerprint differs: every such one.
    """
    problems = [
        f"{where}: {stage} features have fingerprint {fingerprints.get(stage, 'none')[:8]}, but the run was trained on "
        f"{origin.fingerprints[stage][:8]}: settings, models or program version differ; train on features made here"
        for stage in origin.streams.reads
        if fingerprints.get(stage) != origin.fingerprints[stage]
    ]
    if problems:
        raise InputError(problems)


def single(video: Path, text: str | None = None) -> Manifest:
    """Make a manifest of one media file, its transcript given or in a file beside it.

    Raises
    ------
    InputError
        The file does not exist, or the transcript's encoding is unknown.
    """
    manifest = load_manifest(video)
    if text is None:
        return manifest
    return replace(manifest, clips=tuple(replace(clip, text=text.strip() or None) for clip in manifest.clips))


def _predict(
    models: Sequence[Checkpoint],
    store: FeatureStore,
    wanted: set[str] | None,
    label_range: LabelRange = DEFAULT,
) -> list[Sentiment]:
    """Predict the wanted clips of a feature folder, or all; a clip without any features gets no values."""
    origin = models[0].origin
    check_fingerprints(origin, store.recipe["fingerprints"], str(store.folder))
    trained = [model.trained for model in models]
    data = load(
        store,
        sequences=trained[0].settings.needs_rows,
        widths=trained[0].widths,
        only=wanted,
        streams=origin.streams,
    )
    predictions = [model.predict(data) for model in trained] if len(data) else []
    splits = {clip.id: clip.split for clip in store.manifest.clips}
    sentiments = [
        Sentiment(clip_id, {}, MODALITIES, split=splits[clip_id], label_range=label_range)
        for clip_id in data.left_out
    ]
    for row, clip_id in enumerate(data.ids):
        is_missing = {
            "text": not data.text_lengths[row],
            "audio": not data.audio.lengths[row],
            "vision": not data.vision.lengths[row],
        }
        missing = tuple(modality for modality in MODALITIES if is_missing[modality])
        unpredictable = {TASK_OF_MODALITY[modality] for modality in missing}
        values = {
            task: float(
                from_unit(np.clip(np.mean([one[task][row] for one in predictions]), -1, 1), label_range)
            )
            for task in trained[0].settings.tasks
            if task not in unpredictable
        }
        sentiments.append(Sentiment(clip_id, values, missing, split=splits[clip_id], label_range=label_range))
    return sorted(sentiments, key=lambda one: one.clip_id)


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="triptych-") as name:
        yield Path(name)
