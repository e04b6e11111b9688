"""Arguments and options that several commands take."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click

from triptych.extractors.registry import stages
from triptych.pipeline.assignments import did_you_mean
from triptych.pipeline.cli.completion import complete_recipe, complete_setting, complete_stage
from triptych.pipeline.cli.help import Choice
from triptych.pipeline.manifest.label_range import is_range
from triptych.pipeline.run.partition import Partition
from triptych.pipeline.storage.streams import MODALITIES, Streams
from triptych.pipeline.trainer.settings import SEEDS

LARGEST_SEED = 2**32 - 1  # that numpy and scikit-learn take

FAILED, USAGE, SOME_FAILED, DAMAGED = 1, 2, 3, 4  # exit codes; README has the table


def words(value: str) -> tuple[str, ...]:
    """Split ``a,b,c``."""
    return tuple(word.strip() for word in value.split(",") if word.strip())


def unknown_names(kind: str, unknown: Sequence[str], valid: Iterable[str]) -> str:
    """Return the message for unknown names: all valid ones, and the one that the first unknown one probably means."""
    valid = list(valid)
    hint = f".{did_you_mean(unknown[0], valid)}".rstrip(".") if unknown else ""
    return f"unknown {kind} {', '.join(unknown)!r}; choose from {', '.join(valid)}{hint}"


def read_stages(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    """Read ``text,audio`` as a command's option."""
    if value is None:
        return None
    named = words(value)
    unknown = [name for name in named if name not in stages()]
    if unknown or not named:
        raise click.BadParameter(unknown_names("stage", unknown, stages()))
    return named


def read_partition(context: click.Context, parameter: click.Parameter, value: str | None) -> Partition | None:
    """Read ``2/8`` as a command's option."""
    return None if value is None else Partition.parse(value)


def read_seeds(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """Read ``1,12,123`` as a command's option."""
    try:
        seeds = tuple(int(word) for word in words(value))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or max(seeds) > LARGEST_SEED or len(set(seeds)) < len(seeds):
        raise click.BadParameter(
            f"{value!r}: expected different whole numbers from 0 to 2^32 - 1, such as 1,12,123"
        )
    return seeds


def read_range(
    context: click.Context, parameter: click.Parameter, value: tuple[float, float] | None
) -> tuple[float, float] | None:
    """Check ``LOW HIGH``, the range of labels."""
    if value is not None and not is_range(*value):
        raise click.BadParameter("expected a lower and a higher number, such as -3 3")
    return value


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


SOURCE = click.argument("source", type=click.Path(path_type=Path))
SOURCES = click.argument(
    "sources", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="SOURCE..."
)
LABEL_RANGE = click.option(
    "--label-range",
    type=(float, float),
    metavar="LOW HIGH",
    callback=read_range,
    help="Lowest and highest possible label, such as -3 3. [default: the source's own, else -1 1 or -3 3]",
)
FEATURES = click.argument("features", type=click.Path(path_type=Path))
JOBS = click.option(
    "-j",
    "--jobs",
    type=click.IntRange(min=1),
    default=_cores,
    show_default="all cores",
    metavar="N",
    help="Worker processes.",
)
AS_JSON = click.option("--json", is_flag=True, help="Print JSON instead of tables.")
EACH_SEED = click.option(
    "--seeds",
    default=",".join(map(str, SEEDS)),
    callback=read_seeds,
    metavar="N,N,...",
    help="Seeds to train with, one training each.",
)
DEVICE = click.option(
    "--device",
    type=Choice(["cpu", "cuda"]),
    default="cpu",
    help="Device for training and evaluation.",
)
COMPAT = click.option(
    "--compat",
    type=Choice(["mmsa"]),
    help="Compute as MMSA does: zeros after a clip's end count as rows; MFN repeats the mean of audio and vision at "
    "every token; MulT has no positions, attends causally and clips gradients after every batch.",
)
RECIPE_SETTINGS: dict[str, Any] = {
    "multiple": True,
    "metavar": "SECTION.NAME=VALUE",
    "shell_complete": complete_setting,
}
RECIPE_CHECKED: dict[str, Any] = {
    "default": "paper",
    "metavar": "NAME|FILE.toml",
    "shell_complete": complete_recipe,
}
RESULTS = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for the results.",
)


def STREAM_OPTIONS(command: Callable[..., Any]) -> Callable[..., Any]:  # noqa: N802 - used like the others
    """Add ``--text``, ``--audio`` and ``--vision``; the command gets them as one argument, ``streams``."""

    @wraps(command)
    def with_streams(*arguments: Any, text: str, audio: str, vision: str, **options: Any) -> Any:
        return command(*arguments, streams=Streams(text, audio, vision), **options)

    decorated: Callable[..., Any] = with_streams
    for modality in reversed(MODALITIES):
        decorated = click.option(
            f"--{modality}",
            metavar="STAGE",
            default=modality,
            shell_complete=complete_stage,
            help=f"The stage to read as the {modality} stream.",
        )(decorated)
    return decorated
