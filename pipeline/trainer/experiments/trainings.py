"""The feature folder that an experiment trains on, and what it makes of its jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from triptych.pipeline.manifest.clips import SPLITS
from triptych.pipeline.storage.store import FeatureStore
from triptych.pipeline.trainer.data.checks import check_data
from triptych.pipeline.trainer.data.clips import SentimentData, load
from triptych.pipeline.trainer.experiments.document import count
from triptych.pipeline.trainer.metrics import METRICS, mean_and_deviation
from triptych.pipeline.trainer.runs.jobs import Job, Result, Tell, check_converged, run_jobs
from triptych.pipeline.trainer.settings import SystemSettings

Spread = dict[str, tuple[float, float]]  # by measure: mean and deviation over seeds


@dataclass(frozen=True)
class Trainings:
    """Clips to train on, and where and how.

    Attributes
    ----------
    about
        What the clips are, for readers.
    folder
        Where results are kept.
    processes
        How many train at a time.
    """

    data: SentimentData
    about: str
    folder: Path
    processes: int
    tell: Tell = lambda *_: None

    @classmethod
    def on(
        cls, features: Path, systems: Iterable[SystemSettings], folder: Path, processes: int, tell: Tell
    ) -> Trainings:
        """Open a feature folder for some systems.

        Raises
        ------
        InputError
            Features are missing, or splits or labels do not suffice for one of the systems.
        """
        store, systems = FeatureStore(features), tuple(systems)
        data = load(store, sequences=any(settings.needs_rows for settings in systems))
        for settings in systems:
            check_data(data, settings)
        sizes = ", ".join(f"{len(data.split(name)):,} {name}" for name in SPLITS)
        prints = ", ".join(f"{name} {value[:8]}" for name, value in store.recipe["fingerprints"].items())
        about = (
            f"{features.resolve().name}, {count(len(data), 'clip')} with features ({sizes}); "
            f"vision by {store.recipe['recipe']['vision']['backend']}; fingerprints: {prints}"
        )
        return cls(data, about, folder, processes, tell)

    def run(self, jobs: Sequence[Job]) -> list[Result]:
        """Run jobs, or find what they gave before; in their order.

        Raises
        ------
        InputError
            A training diverged, or labels do not suffice for a job's target.
        """
        for target, settings in {job.target: job.settings for job in jobs}.items():
            check_data(self.data, settings, target)
        results = run_jobs(jobs, self.data, self.folder, self.processes, self.tell)
        check_converged(results)
        return results


def spread_of(results: Sequence[Result], task: str = "M") -> Spread:
    """Mean and sample deviation of each measure on the test split, over results of one system."""
    return {
        metric: mean_and_deviation([result["test"][task][metric] for result in results]) for metric in METRICS
    }
