"""The public API: one function each for what the command line does. Imports nothing heavy until a function runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from triptych.extractors.base import Features
    from triptych.pipeline.run.extraction import Extraction
    from triptych.pipeline.storage.store import FeatureStore
    from triptych.pipeline.trainer.runs.prediction import Sentiment

StrPath = str | os.PathLike[str]


def extract(
    source: StrPath | Sequence[StrPath],
    folder: StrPath,
    *,
    only: str | Iterable[str] | None = None,
    recipe: str | None = None,
    settings: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    limit: int | None = None,
    partition: tuple[int, int] | None = None,
    retry_failed: bool = False,
    device: str = "cpu",
    progress: bool = False,
) -> Extraction:
    """Make the features of a source that are missing in a feature folder, and nothing else.

    Parameters
    ----------
    source
        A folder of clips, a media file, a table, or a list of these.
    folder
        The feature folder; made where it is missing.
    only
        Stages to extract, by default the recipe's; upstream stages are added.
    recipe
        A named recipe or a TOML file; by default the folder's own, or ``paper`` in a new one.
    settings
        Single settings, as ``{"vision.input": "frame"}``.
    jobs
        Worker processes, by default one for each core; 0 computes in this process.
    limit
        Only the first clips.
    partition
        Only one part of several disjoint ones, as ``(2, 8)``; parts may be extracted at the same time, on several
        machines.
    retry_failed
        Try clips again that failed before.
    device
        Where torch computes, ``cpu`` or ``cuda``.
    progress
        Show a progress bar on stderr.

    Returns
    -------
    Extraction
        ``plan.stages`` says for each stage which clips are done, absent and failed, with the reasons.

    Raises
    ------
    InputError
        The source or a setting is wrong; every error found.
    BackendMissingError
        A model or library is missing; the text says how to get it.

    Examples
    --------
    >>> import triptych
    >>> run = triptych.extract("clips", "features", only=["audio", "faces"], jobs=0)
    >>> run
    Extraction('features', 2 clips: audio 2 done, 0 absent, 0 failed, 0 to do; faces 2 done, 0 absent, ...)
    >>> run.plan.stages["audio"].failed
    {}
    """
    from triptych.pipeline.run.extraction import prepare, run
    from triptych.pipeline.run.partition import Partition

    extraction = prepare(
        Path(source) if isinstance(source, str | os.PathLike) else [Path(one) for one in source],
        Path(folder),
        only=[only] if isinstance(only, str) else only,
        recipe=recipe,
        assignments=_assignments(settings),
        limit=limit,
        partition=None if partition is None else Partition.parse("/".join(map(str, partition))),
        retry_failed=retry_failed,
    )
    if jobs is None:
        jobs = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not progress:
        return run(extraction, jobs=jobs, device=device)
    from triptych.pipeline.terminal.progress import RunProgress

    with RunProgress(len(extraction.plan.work)) as bar:
        return run(extraction, jobs=jobs, device=device, watch=bar.update)


def open(folder: StrPath, *, check: bool = True) -> FeatureStore:
    """Open a feature folder for reading.

    Parameters
    ----------
    folder
        The feature folder.
    check
        Compare each shard with its SHA-256 before its first read in a process.

    Raises
    ------
    InputError
        It is no feature folder, or is damaged.

    Examples
    --------
    >>> import triptych
    >>> store = triptych.open("features")
    >>> store
    FeatureStore('features': clips with audio 2, faces 2)
    >>> clip = store.ids("audio")[0]
    >>> store.read("audio", clip).values.shape[1]
    33
    """
    from triptych.pipeline.storage.store import FeatureStore

    return FeatureStore(Path(folder), check=check)


def compute(
    stage: str,
    *,
    path: StrPath | None = None,
    text: str | None = None,
    waveform: ArrayLike | None = None,
    sample_rate: float | None = None,
    frames: Iterable[NDArray[np.uint8]] | None = None,
    frame_rate: float | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> Features:
    """Run one stage on a media file or on plain arrays, in this process and without a feature folder.

    Stages that it reads from are run too. The models are loaded once in a process.

    Parameters
    ----------
    stage
        ``text``, ``audio``, ``faces``, ``vision`` or any further stage.
    path
        A media file, for sound and frames.
    text
        A transcript.
    waveform, sample_rate
        One channel of floating-point samples, shape (n,), full scale 1, and their rate [Hz].
    frames, frame_rate
        RGB images, uint8, shape (H, W, 3) each, and their rate [Hz].
    settings
        Single settings, as ``{"audio.first": "zcr"}``.
    device
        Where torch computes, ``cpu`` or ``cuda``.

    Returns
    -------
    Features
        ``values`` float32, shape (T, D), with ``times`` [s], ``valid``, ``columns``, ``units`` and ``extras``.

    Raises
    ------
    ExtractionError
        The clip gives no features, for a typed reason.
    InputError
        The stage or a setting is wrong.
    BackendMissingError
        A model or library is missing; the text says how to get it.

    Examples
    --------
    >>> import numpy as np
    >>> import triptych
    >>> tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(22050) / 22050)
    >>> rows = triptych.compute("audio", waveform=tone, sample_rate=22050)
    >>> rows
    Features(44 rows x 33 columns, 44 valid)
    >>> f"{np.exp(rows.values[20, rows.columns.index('log_f0')]):.0f} Hz"
    '220 Hz'
    """
    from triptych.pipeline.run.single import compute
    from triptych.pipeline.stages.recipe import build_recipe, parse_assignments

    return compute(
        stage,
        build_recipe(parse_assignments(_assignments(settings)), where="settings"),
        path=None if path is None else Path(path),
        text=text,
        waveform=waveform,
        sample_rate=sample_rate,
        frames=frames,
        frame_rate=frame_rate,
        device=device,
    )


@dataclass(frozen=True, repr=False)
class TrainedRun:
    """A finished training.

    Attributes
    ----------
    folder
        The run's folder: a checkpoint for each seed, ``run.json``, ``results.json`` and ``results.csv``.
    results
        The content of ``results.json``; ``results["metrics"][task][metric]`` has each seed's value, mean and std.
    """

    folder: Path
    results: Mapping[str, Any]

    def __repr__(self) -> str:
        scores = self.results["metrics"]["M"]["MAE"]
        seeds = ", ".join(map(str, scores["seeds"]))
        return (
            f"TrainedRun({str(self.folder)!r}: {self.results['model']}, seeds {seeds}, "
            f"MAE of M {scores['mean']:.3f})"
        )


def train(
    features: StrPath | FeatureStore,
    system: str,
    folder: StrPath,
    *,
    seeds: Sequence[int] | None = None,
    settings: Mapping[str, Any] | None = None,
    streams: Mapping[str, str] | None = None,
    jobs: int = 1,
    device: str = "cpu",
    replace: bool = False,
) -> TrainedRun:
    """Train a system on a feature folder, once for each seed, and evaluate it on the test split.

    Parameters
    ----------
    features
        The feature folder, or its opened store.
    system
        A name that ``triptych train --help`` lists, such as ``mlf-dnn``.
    folder
        The run's folder; the same training again reuses the checkpoints in it.
    seeds
        By default the paper's five.
    settings
        Settings that differ from the system's defaults, as ``{"batch_size": 16}``.
    streams
        Stages that are read for ``text``, ``audio`` and ``vision`` instead of those of the same name, as
        ``{"audio": "speech"}``. With ``"align": "words"``, all three have one row for each word.
    jobs
        How many seeds are trained at a time, one process each.
    device
        Where models are trained, ``cpu`` or ``cuda``.
    replace
        Remove the checkpoints of another run from the folder.

    Returns
    -------
    TrainedRun
        The run's folder and results.

    Raises
    ------
    InputError
        The system is unknown, features, labels or splits are missing, or the folder has another run.

    Examples
    --------
    >>> import triptych
    >>> run = triptych.train("dataset", "lf-dnn", "run", seeds=[1], settings={"max_epochs": 2})
    >>> run
    TrainedRun('run': lf-dnn, seeds 1, MAE of M 0...)
    >>> sorted(run.results["metrics"]["M"])
    ['Acc-2', 'Acc-3', 'Acc-5', 'Corr', 'F1', 'F1 (paper)', 'MAE']
    """
    from triptych.pipeline.storage.store import FeatureStore
    from triptych.pipeline.storage.streams import Streams

    store = features if isinstance(features, FeatureStore) else FeatureStore(Path(features))
    from triptych.pipeline.environment.device import check_device
    from triptych.pipeline.errors import InputError
    from triptych.pipeline.trainer.runs.run import run_training
    from triptych.pipeline.trainer.settings import SEEDS
    from triptych.pipeline.trainer.systems import SYSTEMS, settings_from

    check_device(device)
    if system not in SYSTEMS:
        raise InputError(f"system {system!r} is unknown; systems are {', '.join(SYSTEMS)}")
    chosen = SYSTEMS[system]
    if settings:
        chosen = settings_from({**chosen.model_dump(mode="json"), **settings}, "settings")
    results = run_training(
        store,
        system,
        SEEDS if seeds is None else seeds,
        Path(folder),
        chosen,
        replace,
        jobs,
        streams=Streams(**(streams or {})),
        device=device,
    )
    return TrainedRun(Path(folder), results)


def predict(
    run: StrPath | TrainedRun,
    source: StrPath,
    *,
    features: StrPath | None = None,
    text: str | None = None,
    settings: Mapping[str, Any] | None = None,
    jobs: int = 1,
    device: str = "cpu",
) -> list[Sentiment]:
    """Predict the sentiment of clips with the models of a run, as the mean over its seeds.

    Parameters
    ----------
    run
        A run's folder, or what `train` returned.
    source
        A video, a folder of clips, a manifest, or a feature folder.
    features
        Where features are stored; a temporary folder by default.
    text
        The transcript, where the source is one video.
    settings
        Single settings that differ from the run's recipe, such as where the language model is on this machine.
    jobs
        Worker processes.
    device
        Where the models compute, ``cpu`` or ``cuda``.

    Returns
    -------
    list of Sentiment
        One a clip: ``values`` by task in [-1, 1], ``missing`` modalities, and ``failures`` with their reasons.

    Raises
    ------
    InputError
        The run is not finished, the source has errors, or its features differ from those of the training.

    Examples
    --------
    >>> import triptych
    >>> found = triptych.predict("run", "dataset")
    >>> len(found), sorted(found[0].values)
    (24, ['M'])
    """
    from triptych.pipeline.trainer.runs.prediction import predict

    return predict(
        run.folder if isinstance(run, TrainedRun) else Path(run),
        Path(source),
        None if features is None else Path(features),
        text=text,
        assignments=_assignments(settings),
        jobs=jobs,
        device=device,
    )


def _assignments(settings: Mapping[str, Any] | None) -> list[str]:
    """Settings as the command line gives them; JSON's strings, numbers, booleans and lists are TOML's too."""
    return [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in (settings or {}).items()]
