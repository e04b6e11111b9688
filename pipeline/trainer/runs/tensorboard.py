"""TensorBoard's event files of a training: a folder for each seed, scalars by task, one step for each epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triptych.pipeline.errors import InputError

if TYPE_CHECKING:
    from triptych.pipeline.trainer.training import Epoch

MISSING = "--tensorboard needs the package tensorboard: pip install 'triptych[tensorboard]'"


def check_tensorboard() -> None:
    """Refuse to log before anything is trained, if the package is missing.

    Raises
    ------
    InputError
        TensorBoard is not installed.
    """
    if find_spec("tensorboard") is None:
        raise InputError(MISSING)


class EpochLog:
    """Writes the scalars of one training; one without a writer writes nothing."""

    def __init__(self, writer: Any = None) -> None:
        self._writer = writer

    def epoch(self, number: int, epoch: Epoch) -> None:
        """Write ``train/objective``, and ``valid_MAE/M`` and those of the other tasks."""
        if self._writer is None:
            return
        self._writer.add_scalar("train/objective", epoch.train_loss, number)
        for task, error in (epoch.by_task or {"M": epoch.valid_loss}).items():
            self._writer.add_scalar(f"valid_MAE/{task}", error, number)
        self._writer.flush()

    def scores(self, best_epoch: int, scores: Mapping[str, Mapping[str, float]]) -> None:
        """Write the metrics on the test split at the best epoch, such as ``test_Acc-2/M``."""
        if self._writer is None:
            return
        for task, metrics in scores.items():
            for metric, value in metrics.items():
                self._writer.add_scalar(f"test_{metric}/{task}".replace(" ", "_"), value, best_epoch)

    def training(
        self, history: Sequence[Epoch], best_epoch: int, scores: Mapping[str, Mapping[str, float]]
    ) -> None:
        """Write all epochs of a training, and its scores."""
        for number, epoch in enumerate(history, start=1):
            self.epoch(number, epoch)
        self.scores(best_epoch, scores)


@contextmanager
def epoch_log(folder: Path | None, system: str, seed: int) -> Iterator[EpochLog]:
    """Open the log of one training.

    A training that is run again writes another file; readers then leave out the epochs of earlier ones.

    Parameters
    ----------
    folder
        What ``tensorboard --logdir`` is given; None to write nothing.
    """
    if folder is None:
        yield EpochLog()
        return
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / f"{system}-seed-{seed}"), purge_step=1)  # type: ignore[no-untyped-call]
    try:
        yield EpochLog(writer)
    finally:
        writer.close()  # type: ignore[no-untyped-call]
