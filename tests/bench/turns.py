"""What the benches share: finding clips, running two implementations in turn, comparing their costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import NamedTuple

import numpy as np


class Cost(NamedTuple):
    """Seconds of CPU, of this process and of the programs that it ran to their end, and of the clock."""

    cpu: float
    wall: float


def _now() -> Cost:
    programs = getrusage(RUSAGE_CHILDREN)
    return Cost(time.process_time() + programs.ru_utime + programs.ru_stime, time.perf_counter())


def cost(work: Callable[[], object]) -> Cost:
    started = _now()
    work()
    ended = _now()
    return Cost(ended.cpu - started.cpu, ended.wall - started.wall)


@dataclass
class Turns:
    """Costs of our implementation and of the plain one, run in turn."""

    ours: list[Cost] = field(default_factory=list)
    plain: list[Cost] = field(default_factory=list)

    def take(self, ours: Callable[[], object], plain: Callable[[], object], ours_a_round: int = 1) -> None:
        self.ours += [cost(ours) for _ in range(ours_a_round)]
        self.plain.append(cost(plain))

    def medians(self) -> tuple[Cost, Cost]:
        return Cost(*np.median(self.ours, axis=0)), Cost(*np.median(self.plain, axis=0))


def files(clips: Path) -> dict[str, Path]:
    """The file, or the files of a folder and its folders, by their paths in it."""
    found = sorted(clips.rglob("*")) if clips.is_dir() else [clips]
    return {str(path.relative_to(clips.parent)): path for path in found if path.is_file()}


def line(ours: Cost, plain: Cost) -> str:
    return f"plain {plain.cpu * 1e3:8.1f} ms  ours {ours.cpu * 1e3:7.1f} ms  {plain.cpu / ours.cpu:6.1f} x"


def summary(pairs: Iterable[tuple[Cost, Cost]]) -> str:
    """One sentence on (ours, plain) of all clips."""
    ours, plain = np.array(list(pairs)).transpose(1, 2, 0)  # each (CPU and wall, clips)
    ratios, walls = plain / ours
    return (
        f"{np.median(ratios):.1f} x less CPU (median of {len(ratios)} clips, {ratios.min():.1f} to "
        f"{ratios.max():.1f}; in sum {plain[0].sum() / ours[0].sum():.1f} x); by the clock "
        f"{np.median(walls):.1f} x (in sum {plain[1].sum() / ours[1].sum():.1f} x)"
    )
