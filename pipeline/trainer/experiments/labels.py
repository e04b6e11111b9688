"""Table 1, Table 3 and Figure 2: statistics of a corpus' labels, transcripts and videos; no features needed."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import SPLITS, Clip, Manifest
from triptych.pipeline.manifest.columns import LABELS
from triptych.pipeline.manifest.disagreement import disagreement, label_array
from triptych.pipeline.manifest.label_range import DEFAULT, LabelRange, format_range
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.manifest.splits import CLASS_NAMES, label_class
from triptych.pipeline.terminal.grid import Cell, Grid
from triptych.pipeline.trainer.experiments import figures, published
from triptych.pipeline.trainer.experiments.document import Document, count
from triptych.pipeline.trainer.metrics import to_unit
from triptych.pipeline.trainer.settings import TASKS

UNLABELLED = "no label"


def load_labels(source: Path, needed: bool = True) -> tuple[Manifest, str]:
    """Read a SOURCE for its labels; videos may be missing.

    Parameters
    ----------
    needed
        Whether a source without any label is an error.

    Returns
    -------
    The clips, their labels scaled to [-1, 1], whose class edges are the paper's; and a sentence that describes them.

    Raises
    ------
    InputError
        The source is invalid, or no clip has a label.
    """
    manifest = load_manifest(source, labels_only=True)
    labelled = sum(not math.isnan(clip.label) for clip in manifest.clips)
    if needed and not labelled:
        raise InputError(f"{source}: no clip has a label; fill in the column label")
    about = f"{source.resolve().name}, {count(len(manifest.clips), 'clip')}, {labelled:,} with a label"
    if manifest.label_range != DEFAULT:
        about += f" from {format_range(manifest.label_range).replace(' ', ' to ')}, scaled to -1 to 1"
    clips = tuple(_scaled(clip, manifest.label_range) for clip in manifest.clips)
    return replace(manifest, clips=clips, label_range=DEFAULT), about


def _scaled(clip: Clip, label_range: LabelRange) -> Clip:
    labels: dict[str, Any] = {name: float(to_unit(getattr(clip, name), label_range)) for name in LABELS}
    return replace(clip, **labels)


def table1(source: Path) -> Document:
    """Compute the statistics of the paper's Table 1 for this corpus."""
    manifest, data = load_labels(source, needed=False)
    clips = manifest.clips
    characters = np.array([_characters(clip.text) for clip in clips if clip.text], dtype=np.float64)
    seconds = np.array([length for clip in clips if (length := _seconds(clip)) is not None])
    rows: list[tuple[str, int | float | str | None]] = [
        ("videos", len({clip.id.partition("$_$")[0] for clip in clips})),
        ("clips", len(clips)),
        *(
            (f"clips labelled {task}", labelled)
            for task, labelled in zip(TASKS, _labelled(clips), strict=True)
        ),
        ("clips with a transcript", len(characters)),
        ("characters of a transcript, mean", _mean(characters)),
        ("characters of a transcript, longest", int(characters.max()) if len(characters) else None),
        ("videos that could be measured", len(seconds)),
        ("seconds of a clip, mean", _mean(seconds)),
        ("seconds of a clip, shortest", float(seconds.min()) if len(seconds) else None),
        ("seconds of a clip, longest", float(seconds.max()) if len(seconds) else None),
        ("hours in all", float(seconds.sum()) / 3600 if len(seconds) else None),
    ]
    grid = Grid(("item", "this corpus"), tuple(rows))
    notes = [
        "The paper counts 2,281 clips of 60 videos in CH-SIMS.",
        "A video is the part of the ids before `$_$`. Spaces and punctuation are not counted as characters.",
        "The labels do not name speakers or their sex, so the paper's rows on them are left out.",
    ]
    if not len(seconds):
        notes.append("The videos are missing, so lengths in seconds are unknown.")
    histograms = {"characters of a transcript": characters, "seconds of a clip": seconds}
    figure = figures.histograms({name: values for name, values in histograms.items() if len(values)}, data)
    return Document("table1", "Table 1: the corpus", data, (("", grid),), grid, tuple(notes), figure)


def table3(source: Path) -> Document:
    """Count clips by split and class of the multimodal label, beside the paper's counts."""
    manifest, data = load_labels(source)
    counted = Counter((clip.split or "no split", _class(clip.label)) for clip in manifest.clips)
    splits = [*SPLITS, *(["no split"] if any(clip.split is None for clip in manifest.clips) else [])]
    names = [*CLASS_NAMES, *([UNLABELLED] if any(name == UNLABELLED for _, name in counted) else [])]
    table = {split: [counted[split, name] for name in names] for split in splits}
    header = ("split", "clips", *names)
    ours: list[tuple[Cell, ...]] = [(split, sum(numbers), *numbers) for split, numbers in table.items()]
    by_class = [sum(numbers) for numbers in zip(*table.values(), strict=True)]
    total: tuple[Cell, ...] = ("all", sum(by_class), *by_class)
    blank = (None,) * (len(names) - len(CLASS_NAMES))
    paper: list[tuple[Cell, ...]] = [
        (f"{split}, paper", sum(numbers), *numbers, *blank) for split, numbers in published.TABLE_3.items()
    ]
    equal = {split: tuple(table[split]) == published.TABLE_3[split] for split in SPLITS}
    verdict = (
        "Every count equals the paper's."
        if all(equal.values())
        else "The paper's counts are those of CH-SIMS; another corpus has other counts."
    )
    return Document(
        "table3",
        "Table 3: clips by split and class",
        data,
        (("", Grid(header, (*ours, total, *paper))),),
        Grid(header, (*ours, total, *paper)),
        (
            verdict,
            "Classes of the multimodal label, by bins closed on the right, with edges -0.7, -0.1, 0.1, 0.7.",
        ),
        figures.bars(table, names, "clips", data),
    )


def figure2(source: Path) -> Document:
    """Count the classes of each annotation, and measure how two annotations differ: D_ij = mean (A_i - A_j)^2."""
    manifest, data = load_labels(source)
    labels = label_array(manifest.clips)
    histogram = {task: _histogram(column).tolist() for task, column in zip(TASKS, labels.T, strict=True)}
    differences = disagreement(labels)
    pairs = [(a, b) for a in range(len(TASKS)) for b in range(a)]
    known = sorted(
        (float(differences[a, b]), f"{TASKS[b]}-{TASKS[a]}") for a, b in pairs if differences[a, b] >= 0
    )
    records = [
        *(
            ("clips", task, name, number)
            for task, numbers in histogram.items()
            for name, number in zip(CLASS_NAMES, numbers, strict=True)
        ),
        *(("D", TASKS[a], TASKS[b], float(differences[a, b])) for a in range(4) for b in range(4)),
    ]
    matrix = Grid(
        ("D", *TASKS), tuple((task, *map(float, row)) for task, row in zip(TASKS, differences, strict=True))
    )
    notes = ["M is the multimodal annotation; T, A and V are those of text, audio and vision alone."]
    if known:
        notes.append(
            f"Smallest: {known[0][1]}, {known[0][0]:.4f}. Largest: {known[-1][1]}, {known[-1][0]:.4f}."
        )
    notes.append("In the paper A-M differ least and T-V most on CH-SIMS.")
    return Document(
        "figure2",
        "Figure 2: annotations by class, and how they differ",
        data,
        (
            (
                "Clips by class:",
                Grid(("annotation", *CLASS_NAMES), tuple((task, *row) for task, row in histogram.items())),
            ),
            ("D_ij, the mean of (A_i - A_j)²:", matrix),
        ),
        Grid(("quantity", "annotation", "class or annotation", "value"), tuple(records)),
        tuple(notes),
        figures.heat_map(histogram, CLASS_NAMES, differences, data),
    )


def _class(label: float) -> str:
    return UNLABELLED if math.isnan(label) else CLASS_NAMES[label_class(label)]


def _histogram(labels: NDArray[np.float64]) -> NDArray[np.intp]:
    classes = [label_class(float(label)) for label in labels if not np.isnan(label)]
    counts: NDArray[np.intp] = np.bincount(np.array(classes, dtype=np.intp), minlength=len(CLASS_NAMES))
    return counts


def _labelled(clips: tuple[Clip, ...]) -> list[int]:
    return [int(number) for number in (~np.isnan(label_array(clips))).sum(axis=0)]


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None


def _characters(text: str) -> int:
    return sum(unicodedata.category(character)[0] not in "PZC" for character in text)


def _seconds(clip: Clip) -> float | None:
    """Read the length from the video's header; None without a readable video."""
    import av

    if not clip.path or not clip.file.is_file():
        return None
    try:
        with av.open(str(clip.file)) as container:
            seconds = container.duration / av.time_base if container.duration else None
    except (av.FFmpegError, OSError):
        return None
    start, end = clip.span or (0.0, None)
    return seconds if end is None else min(end, seconds or end) - start
