"""The public API: one function each for what the command line does. Imports nothing heavy until a function runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from triptych.extractors.base import Features
    from triptych.pipeline.run.extraction import Extraction
    from triptych.pipeline.storage.store import FeatureStore

StrPath = str | os.PathLike[str]


def extract(
    source: StrPath,
    folder: StrPath,
    *,
    only: Iterable[str] | None = None,
    recipe: str | None = None,
    settings: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    limit: int | None = None,
    retry_failed: bool = False,
    device: str = "cpu",
    progress: bool = False,
) -> Extraction:
    """Make the features of a source that are missing in a feature folder, and nothing else.

    Parameters
    ----------
    source
        A folder of clips, or a CSV or JSONL manifest.
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

    extraction = prepare(
        Path(source),
        Path(folder),
        only=only,
        recipe=recipe,
        assignments=_assignments(settings),
        limit=limit,
        retry_failed=retry_failed,
    )
    if jobs is None:
        jobs = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not progress:
        return run(extraction, jobs=jobs, device=device)
    from triptych.pipeline.terminal.progress import RunProgress

    with RunProgress(len(extraction.plan.work)) as bar:
        return run(extraction, jobs=jobs, device=device, watch=bar.update)


def open(folder: StrPath) -> FeatureStore:
    """Open a feature folder for reading.

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

    return FeatureStore(Path(folder))


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


def _assignments(settings: Mapping[str, Any] | None) -> list[str]:
    """Settings as the command line gives them; JSON's strings, numbers, booleans and lists are TOML's too."""
    return [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in (settings or {}).items()]
