"""The loop: Eq. 4's objective, Adam, early stopping on the validation part, one seed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.trainer.data import Batch, Normaliser, Rows, SentimentData
from pipeline.trainer.metrics import TaskScores, score
from pipeline.trainer.models.late_fusion import InputWidths, LateFusion
from pipeline.trainer.settings import MODALITIES, TASKS, LateFusionSettings, Task

EVALUATION_BATCH = 512


@dataclass(frozen=True)
class Epoch:
    """One pass: the mean objective in training, and the mean absolute error of M in validation."""

    train_loss: float
    valid_loss: float


@dataclass(frozen=True)
class Trained:
    """A model that has been trained, with all that is needed to use it.

    Attributes
    ----------
    model
        In evaluation mode, at its best epoch.
    normaliser
        Fitted on the training part.
    history
        Every epoch that was run.
    best_epoch
        Counted from 1.
    """

    model: nn.Module
    settings: LateFusionSettings
    widths: InputWidths
    normaliser: Normaliser
    seed: int
    history: tuple[Epoch, ...]
    best_epoch: int

    def predict(self, data: SentimentData, rows: Rows | None = None) -> dict[str, NDArray[np.float32]]:
        """Predict the tasks of some clips, or of all; by task, shape (len(rows),) each.

        Raises
        ------
        ValueError
            The features have other widths than those the model was trained on.
        """
        if data.widths != self.widths:
            raise ValueError(f"the model was trained on {self.widths}, these features are {data.widths}")
        rows = np.arange(len(data)) if rows is None else rows
        with _reproducible(self.seed):
            outputs = _outputs(self.model, self.normaliser.apply(data, rows))
        return {task: values.numpy() for task, values in outputs.items()}


def train(
    data: SentimentData, settings: LateFusionSettings, seed: int, train_rows: Rows, valid_rows: Rows
) -> Trained:
    """Train one model on some clips, stopping by others. Same seed, same numbers, whatever ran before.

    Parameters
    ----------
    train_rows
        At least two clips; their labels and features are all that is learnt from.
    valid_rows
        At least one clip with a label M: the epoch with the lowest mean absolute error of M over them is
        kept, and `settings.patience` epochs without a lower one end the run.

    Raises
    ------
    FloatingPointError
        The validation loss is not finite: the learning rate is too high for these data.
    """
    normaliser = Normaliser.fit(data, train_rows)
    train_set, valid_set = normaliser.apply(data, train_rows), normaliser.apply(data, valid_rows)
    history: list[Epoch] = []
    best_epoch, best_loss, best_state = 0, float("inf"), {}
    with _reproducible(seed):
        model = LateFusion(settings, data.widths)
        optimiser = torch.optim.Adam(
            _parameter_groups(model, settings), lr=settings.learning_rate, fused=True
        )
        for epoch in range(1, settings.max_epochs + 1):
            train_loss = 0.0
            model.train()
            for rows in draw_batches(len(train_set), settings.batch_size):
                batch = train_set.take(rows)
                optimiser.zero_grad()
                loss = objective(model(*batch.inputs), batch.labels, settings.task_weights)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                train_loss += loss.item() * len(batch) / len(train_set)
            valid_loss = float(objective(_outputs(model, valid_set), valid_set.labels, {"M": 1.0}))
            if not np.isfinite(valid_loss):
                raise FloatingPointError(f"seed {seed}, epoch {epoch}: the validation loss is {valid_loss}")
            history.append(Epoch(train_loss, valid_loss))
            if valid_loss < best_loss:
                best_epoch, best_loss, best_state = epoch, valid_loss, copy.deepcopy(model.state_dict())
            elif epoch - best_epoch >= settings.patience:
                break
    model.load_state_dict(best_state)
    return Trained(model.eval(), settings, data.widths, normaliser, seed, tuple(history), best_epoch)


def evaluate(trained: Trained, data: SentimentData, rows: Rows) -> TaskScores:
    """Score every task of a model on some clips, each on its own labels."""
    predictions = trained.predict(data, rows)
    return {task: score(values, data.labels[rows, TASKS.index(task)]) for task, values in predictions.items()}


def objective(outputs: Mapping[str, Tensor], labels: Tensor, weights: Mapping[Task, float]) -> Tensor:
    """Eq. 4 without its penalty, which is Adam's weight decay: the weighted sum of each task's mean L1 loss.

    A missing label leaves its clip out of that task's mean; a task without any label adds nothing.

    Parameters
    ----------
    outputs
        By task, shape (B,).
    labels
        shape (B, 4), columns M, T, A, V, NaN where missing.
    weights
        alpha_i, by task.
    """
    total = labels.new_zeros(())
    for task, weight in weights.items():
        true = labels[:, TASKS.index(task)]
        known = ~true.isnan()
        if known.any():
            total = total + weight * (outputs[task][known] - true[known]).abs().mean()
    return total


def draw_batches(count: int, size: int) -> Iterator[Tensor]:
    """Shuffle clips into batches. A last batch of one joins the batch before it: one clip has no variance."""
    batches = list(torch.split(torch.randperm(count), size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return iter(batches)


def _outputs(model: nn.Module, clips: Batch) -> dict[str, Tensor]:
    """Predict in evaluation mode; by task, shape (len(clips),)."""
    model.eval()
    with torch.no_grad():
        parts = [
            model(*clips.take(rows).inputs)
            for rows in torch.split(torch.arange(len(clips)), EVALUATION_BATCH)
        ]
    return {task: torch.cat([part[task] for part in parts]) for task in parts[0]}


def _parameter_groups(model: LateFusion, settings: LateFusionSettings) -> list[dict[str, object]]:
    """Every parameter once: each sub-network with its own decay, the heads with theirs."""
    groups: list[dict[str, object]] = [
        {
            "params": list(model.get_submodule(name).parameters()),
            "weight_decay": getattr(settings.subnetwork_decay, name),
        }
        for name in MODALITIES
    ]
    return [*groups, {"params": list(model.heads.parameters()), "weight_decay": settings.weight_decay}]


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Draw from a generator of this seed on one thread, and leave the process's own as they were.

    One thread, since sums split over several differ in their last digits (and small models gain nothing).
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.set_num_threads(1)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
