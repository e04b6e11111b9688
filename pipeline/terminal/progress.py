"""A run on the terminal: a live display, or plain lines where stderr is no terminal; and its events as JSON lines."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from triptych.pipeline.escaped import escaped, shown
from triptych.pipeline.run.events import ClipFinished, ClusterJoined, Event, StageFailed, StageStarted
from triptych.pipeline.terminal.lines import print_json
from triptych.pipeline.terminal.state import LOADING, RunState

FIRST_SECONDS, LONGEST_SECONDS = 10.0, 60.0  # between two lines, at the beginning and of a long run
REFRESHES_PER_SECOND = 4


class RunProgress:
    """Show the events of a run; a context manager that leaves the terminal as it was.

    Parameters
    ----------
    clips
        Number of clips to extract.
    console
        Where to write; by default stderr.
    quiet
        Write nothing.
    verbose
        Write a line at the end of every clip.
    as_json
        Write events to stdout, one JSON object on each line. On stderr there is only the live display of a terminal.
    stages
        What is to be extracted, for the first JSON line.
    """

    def __init__(
        self,
        clips: int,
        console: Console | None = None,
        *,
        quiet: bool = False,
        verbose: bool = False,
        as_json: bool = False,
        stages: Sequence[str] = (),
    ) -> None:
        self.state = RunState(clips, time.monotonic)
        self._console = console or Console(stderr=True)
        self._as_json = as_json and not quiet
        self._verbose = verbose and not quiet
        self._live: Live | None = None
        # A shared terminal would mix the two; then the events are what was asked for.
        live = self._console.is_terminal and not self._console.is_dumb_terminal
        if live and not quiet and not (as_json and Console().is_terminal):
            self._live = Live(
                console=self._console,
                get_renderable=self._display,
                refresh_per_second=REFRESHES_PER_SECOND,
                redirect_stdout=False,
            )
        self._lines = not quiet and not as_json and self._live is None
        self._started = self._printed = time.monotonic()
        self._stages = tuple(stages)

    def __enter__(self) -> Self:
        total = self.state.total
        if self._as_json:
            print_json({"event": "started", "clips": total, "stages": list(self._stages)})
        if total and self._lines:
            self._line(f"clips to extract: {total}; {LOADING}")
        if total and self._live:
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def update(self, event: Event) -> None:
        """Show one event of a run; what was reported before is left out."""
        if isinstance(event, ClusterJoined) and self._lines:
            self._line(_cluster(event))
        if not self.state.update(event):
            return
        if self._as_json:
            for document in as_documents(event, self.state):
                print_json(document)
        if self._verbose and isinstance(event, ClipFinished | StageFailed):
            self._line(_end_of(event))
        if self._lines and isinstance(event, ClipFinished | StageFailed):
            self._print_when_due()

    def _print_when_due(self) -> None:
        now = time.monotonic()
        interval = min(max(FIRST_SECONDS, (now - self._started) / 10), LONGEST_SECONDS)
        if now - self._printed <= interval and self.state.done < self.state.total:
            return
        self._printed = now
        state = self.state
        parts = [f"{state.done}/{state.total} clips", state.pace(), state.problems(), state.activity()]
        self._line(", ".join(part for part in parts if part))

    def _line(self, text: str) -> None:
        self._console.print(escaped(text), highlight=False, soft_wrap=True, markup=False, emoji=False)

    def _display(self) -> Group:
        state = self.state
        first = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=max(state.total, 1), completed=state.done, width=24)
        first.add_row(bar, Text(f"{state.done}/{state.total} clips"), Text(state.pace()))
        lines = [
            Text(line, no_wrap=True, overflow="ellipsis") for line in (state.activity(), state.problems())
        ]
        return Group(first, *(line for line in lines if line.plain))


def as_documents(event: Event, state: RunState) -> list[dict[str, Any]]:
    """Return the JSON lines of an event: ``event`` names it, ``clip`` and ``stage`` what it is about.

    The end of a clip is several lines: one for each failure and each note, and ``clip_finished``.
    """
    if isinstance(event, StageStarted):
        return [{"event": "stage_started", "clip": clip, "stage": event.stage} for clip in state.moved]
    if not isinstance(event, ClipFinished):
        return [{"event": _snake(type(event).__name__), **asdict(event)}]
    clip = event.clip
    failures = [
        {"event": "stage_failed", "clip": clip, "stage": stage, "reason": reason, "detail": detail}
        for stage, reason, detail in event.failures
    ]
    notes = [{"event": "note", "clip": clip, "stage": stage, "note": note} for stage, note in event.notes]
    end = {
        "event": "clip_finished",
        "clip": clip,
        "failed": event.failed,
        "frames": event.frames,
        "done": state.done,
        "clips": state.total,
    }
    return [*failures, *notes, end]


def _cluster(event: ClusterJoined) -> str:
    workers = "1 worker" if event.workers == 1 else f"{event.workers} workers"
    dashboard = f", dashboard {event.dashboard}" if event.dashboard else ""
    return f"{workers} at {event.scheduler}{dashboard}"


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _end_of(event: ClipFinished | StageFailed) -> str:
    if isinstance(event, StageFailed):
        return f"{shown(event.clip)}: {event.stage} failed: {event.reason}: {shown(event.detail)}"
    parts = [f"{stage} failed: {reason}: {shown(detail)}" for stage, reason, detail in event.failures]
    parts += [f"{stage} has a note: {shown(note)}" for stage, note in event.notes]
    return f"{shown(event.clip)}: {'; '.join(parts) or 'done'}"
