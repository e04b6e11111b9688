"""Progress of trainings: a line on stderr for each one that ends."""

from __future__ import annotations

import time
from typing import Any, Protocol

import click


class Training(Protocol):
    """What is trained."""

    @property
    def name(self) -> str:
        """The system's name."""

    @property
    def seed(self) -> int:
        """The seed."""


class TrainingProgress:
    """Prints a line for each training when it ends, on stderr."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.reused = total, 0, 0

    def __call__(self, job: Training, result: dict[str, Any], saved_before: bool) -> None:
        self.done += 1
        self.reused += saved_before
        if saved_before:
            if self.done == self.total:
                click.echo(f"{self.reused}/{self.total} trainings were done before", err=True)
            return
        outcome = (
            result.get("diverged")
            or f"{result['epochs']['run']} epochs, valid MAE {result['valid_loss']:.4f}"
        )
        count = f"{self.done}/{self.total}" + (f" ({self.reused} done before)" if self.reused else "")
        click.echo(f"{count}: {job.name}, seed {job.seed}: {outcome}, {result['seconds']:.0f} s", err=True)


class SeedProgress:
    """Prints a line for each seed of a cross-validation when it ends, on stderr, with the time that is left.

    Parameters
    ----------
    total
        Number of seeds.
    """

    def __init__(self, total: int) -> None:
        self.total, self.done, self._started = total, 0, time.monotonic()

    def __call__(self, seed: int) -> None:
        """Count a seed that has ended."""
        self.done += 1
        taken = time.monotonic() - self._started
        left = taken / self.done * (self.total - self.done)
        more = f", about {left:.0f} s left" if self.done < self.total else ""
        click.echo(
            f"{self.done}/{self.total} cross-validated: seed {seed}, after {taken:.0f} s{more}", err=True
        )
