"""What a run has done so far, from its events: clips, failures by reason, notes, speed, time left. No terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from triptych.pipeline.run.events import ClipFinished, Event, StageFailed, StagePreparing, StageStarted

LOADING = "loading models"


@dataclass
class RunState:
    """The counts of a run; a clip that finishes twice, because its worker exited, counts once.

    Attributes
    ----------
    total
        Clips to extract.
    done
        Clips that have ended.
    failures
        Reason of each stage of a clip that failed, by clip and stage.
    notes
        Clips with a note.
    preparing
        The stage whose model is loaded before workers start.
    running
        The stage that each started clip is in.
    moved
        The clips that the latest start of a stage was news of.
    """

    total: int
    clock: Callable[[], float] = time.monotonic
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    notes: set[str] = field(default_factory=set)
    preparing: str = ""
    running: dict[str, str] = field(default_factory=dict)
    moved: tuple[str, ...] = ()
    _finished: set[str] = field(default_factory=set)
    _reported: set[str] = field(default_factory=set)  # by their worker
    _first: float | None = None  # end of the first clip; before it, workers load their models

    @property
    def done(self) -> int:
        """Number of clips that have ended."""
        return len(self._finished)

    @property
    def failed(self) -> int:
        """Number of clips of which a stage failed."""
        return len({clip for clip, _ in list(self.failures)})

    @property
    def reasons(self) -> Counter[str]:
        """How many clips failed for each reason."""
        # Each clip once for each reason, in the order in which they failed.
        once = dict.fromkeys((clip, reason) for (clip, _), reason in list(self.failures.items()))
        return Counter(reason for _, reason in once)

    @property
    def stages(self) -> Counter[str]:
        """How many clips are in each stage now."""
        return Counter(list(self.running.values()))  # copied at once, as the display reads it in a thread

    @property
    def speed(self) -> float | None:
        """Clips per second since the end of the first clip; None before the second."""
        if self._first is None or self.done < 2:
            return None
        return (self.done - 1) / max(self.clock() - self._first, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last clip, at the speed so far; None where that is not known."""
        speed = self.speed
        return None if speed is None else (self.total - self.done) / speed

    def update(self, event: Event) -> bool:
        """Count one event.

        Returns
        -------
        bool
            Whether it is new: False for what was counted before.
        """
        if isinstance(event, StagePreparing):
            self.preparing = event.stage
        elif isinstance(event, StageStarted):
            going = (clip for clip in event.clips if clip not in self._finished)
            self.moved = tuple(clip for clip in going if self.running.get(clip) != event.stage)
            self.running |= dict.fromkeys(self.moved, event.stage)
            return bool(self.moved)
        elif isinstance(event, StageFailed):
            return self._fail(event.clip, event.stage, event.reason)
        elif isinstance(event, ClipFinished):
            if event.clip in self._reported:
                return False
            self._reported.add(event.clip)
            self._end(event.clip)
            for stage, reason, _ in event.failures:
                self.failures[event.clip, stage] = reason
            if event.notes:
                self.notes.add(event.clip)
        return True

    def _fail(self, clip: str, stage: str, reason: str) -> bool:
        """Count a failure that its worker may not have reported, as it has exited; nothing else may end the clip."""
        if (clip, stage) in self.failures:
            return False
        self.failures[clip, stage] = reason
        self._end(clip)
        return True

    def _end(self, clip: str) -> None:
        self.running.pop(clip, None)
        self._finished.add(clip)
        if self._first is None:
            self._first = self.clock()

    def activity(self) -> str:
        """Describe what the workers do now, such as ``audio 2, vision 1``."""
        if now := self.stages:
            return ", ".join(f"{stage} {count}" for stage, count in sorted(now.items()))
        if self.done or not self.total:
            return ""
        return f"{LOADING} ({self.preparing})" if self.preparing else LOADING

    def problems(self) -> str:
        """Describe failures and notes, such as ``2 failed (no_face 1, undecodable 1), 3 with notes``."""
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common())
        parts = [f"{self.failed} failed" + (f" ({reasons})" if reasons else "")]
        return ", ".join([*parts, *([f"{len(self.notes)} with notes"] if self.notes else [])])

    def pace(self) -> str:
        """Describe speed and time left, such as ``1.25 clips/s, 0:03:10 left``."""
        speed, left = self.speed, self.seconds_left
        if speed is None or left is None:
            return ""
        return f"{speed:.3g} clips/s" + (f", {_duration(left)} left" if self.done < self.total else "")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
