"""Progress of a run on stderr: a live bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from triptych.pipeline.run.events import ClipFinished, ClusterJoined, Event, StagePreparing

SECONDS_BETWEEN_LINES = 10.0
LOADING = "loading models"


class RunProgress:
    """Count clips, frames and failures as the workers report them, and show them.

    Parameters
    ----------
    clips
        Number of clips to extract.
    console
        Where to write; by default stderr.
    """

    def __init__(self, clips: int, console: Console | None = None) -> None:
        self.clips = clips
        self.done = self.frames = self.failed = 0
        self._console = console or Console(stderr=True)
        self._warm: float | None = None  # end of the first clip; before it, workers load their models
        self._warm_frames = 0
        self._printed = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("clips · {task.fields[speed]:.0f} frames/s · {task.fields[failed]} failed"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(LOADING, total=clips, speed=0.0, failed=0)
        self._seen: set[str] = set()

    def __enter__(self) -> Self:
        if self.clips and not self._console.is_terminal:
            self._line(f"clips to extract: {self.clips}; {LOADING}")
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    @property
    def speed(self) -> float:
        """Frames per second since the end of the first clip."""
        return (self.frames - self._warm_frames) / max(self._warm_seconds(), 1e-9)

    def _warm_seconds(self) -> float:
        return 0.0 if self._warm is None else time.monotonic() - self._warm

    def update(self, event: Event) -> None:
        """Count one event of a run; a clip that finishes twice, because its worker exited, counts once."""
        if isinstance(event, StagePreparing):
            self._bar.update(self._task, description=f"{LOADING} ({event.stage})")
        if isinstance(event, ClusterJoined):
            workers = "1 worker" if event.workers == 1 else f"{event.workers} workers"
            dashboard = f", dashboard {event.dashboard}" if event.dashboard else ""
            self._line(f"{workers} at {event.scheduler}{dashboard}")
        if not isinstance(event, ClipFinished) or event.clip in self._seen:
            return
        self._seen.add(event.clip)
        self.done += 1
        self.frames += event.frames
        self.failed += event.failed > 0
        if self._warm is None:
            self._warm, self._warm_frames = time.monotonic(), self.frames
        self._bar.update(
            self._task, description="", completed=self.done, speed=self.speed, failed=self.failed
        )
        now = time.monotonic()
        if not self._console.is_terminal and (
            now - self._printed > SECONDS_BETWEEN_LINES or self.done == self.clips
        ):
            self._printed = now
            per_clip = self._warm_seconds() / (self.done - 1) if self.done > 1 else 0.0
            left = f", {per_clip * (self.clips - self.done):.0f} s left" if per_clip else ""
            self._line(
                f"{self.done}/{self.clips} clips, {self.speed:.0f} frames/s, {self.failed} failed{left}"
            )

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)
