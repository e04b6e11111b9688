"""The feature folder that an experiment trains on, and the results of its jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from triptych.pipeline.manifest.clips import SPLITS
from triptych.pipeline.storage.store import FeatureStore
from triptych.pipeline.storage.streams import Streams
from triptych.pipeline.trainer.data.checks import check_data
from triptych.pipeline.trainer.data.clips import SentimentData, load
from triptych.pipeline.trainer.experiments.document import count
from triptych.pipeline.trainer.metrics import mean_and_std
from triptych.pipeline.trainer.runs.jobs import Job, Report, Result, check_converged, run_jobs
from triptych.pipeline.trainer.runs.run import vision_backend
from triptych.pipeline.trainer.settings import SystemSettings

Spread = dict[str, tuple[float, float]]  # by metric: mean and standard deviation over seeds


@dataclass(frozen=True)
class Trainings:
    """Clips to train on, and where and how.

    Attributes
    ----------
    about
        A description of the clips, for readers.
    folder
        Results are saved in it.
    processes
        Number of models that are trained at a time.
    device
        Where models are trained.
    """

    data: SentimentData
    about: str
    folder: Path
    processes: int
    report: Report = lambda *_: None
    device: str = "cpu"

    @classmethod
    def on(
        cls,
        store: FeatureStore,
        systems: Iterable[SystemSettings],
        folder: Path,
        processes: int,
        report: Report,
        streams: Streams = Streams(),  # noqa: B008 - immutable
        device: str = "cpu",
    ) -> Trainings:
        """Read a feature folder for some systems.

        Raises
        ------
        InputError
            Features are missing, or splits or labels do not suffice for one of the systems.
        """
        systems = tuple(systems)
        data = load(store, sequences=any(settings.needs_rows for settings in systems), streams=streams)
        for settings in systems:
            check_data(data, settings)
        sizes = ", ".join(f"{len(data.split(name)):,} {name}" for name in SPLITS)
        fingerprints = ", ".join(
            f"{stage} {store.recipe['fingerprints'][stage][:8]}" for stage in streams.reads
        )
        backend = vision_backend(store, streams)
        about = (
            f"{store.folder.resolve().name}, {count(len(data), 'clip')} with features ({sizes}); "
            f"{f'vision by {backend}; ' if backend else ''}fingerprints: {fingerprints}"
        )
        return cls(data, about, folder, processes, report, device)

    def results(self, jobs: Sequence[Job]) -> list[Result]:
        """Run jobs, or find their saved results; in the jobs' order. A training may have diverged."""
        return run_jobs(jobs, self.data, self.folder, self.processes, self.report, self.device)

    def run(self, jobs: Sequence[Job]) -> list[Result]:
        """Run jobs, or find their saved results; in the jobs' order.

        Raises
        ------
        InputError
            A training diverged, or labels do not suffice for a job's target.
        """
        for target, settings in {job.target: job.settings for job in jobs}.items():
            check_data(self.data, settings, target)
        results = self.results(jobs)
        check_converged(results)
        return results


def spread_of(results: Sequence[Result], task: str = "M") -> Spread:
    """Return mean and sample standard deviation of each metric on the test split, over results of one system."""
    metrics = results[0]["test"][task]
    return {metric: mean_and_std([result["test"][task][metric] for result in results]) for metric in metrics}
