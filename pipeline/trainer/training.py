"""The loop: Eq. 4's objective, Adam, early stopping on the validation part, one seed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from triptych.pipeline.errors import InputError
from triptych.pipeline.trainer.data.clips import Rows, SentimentData
from triptych.pipeline.trainer.data.padding import normaliser_of
from triptych.pipeline.trainer.data.standardising import Batch, Normaliser
from triptych.pipeline.trainer.metrics import TaskScores, score
from triptych.pipeline.trainer.models import build
from triptych.pipeline.trainer.models.inputs import InputWidths
from triptych.pipeline.trainer.models.subnetworks import FusedSubnetworks
from triptych.pipeline.trainer.settings import TASKS, SystemSettings, Task

EVALUATION_BATCH = 64
LARGE = 1 << 20  # elements of a parameter that is stepped by itself
AUXILIARY = "auxiliary"  # the output that is a loss itself


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
    settings: SystemSettings
    widths: InputWidths
    normaliser: Normaliser
    seed: int
    history: tuple[Epoch, ...]
    best_epoch: int

    def summary(self) -> dict[str, Any]:
        """Epochs run, the best one, and its validation loss."""
        return {
            "epochs": {"best": self.best_epoch, "run": len(self.history)},
            "valid_loss": self.history[self.best_epoch - 1].valid_loss,
        }

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
            outputs = _outputs(self.model, self.normaliser.apply(data, rows, self.settings.view))
        return {task: values.numpy() for task, values in outputs.items()}


def train(
    data: SentimentData, settings: SystemSettings, seed: int, train_rows: Rows, valid_rows: Rows
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
    InputError
        No clip to stop by has a label M, or the folder for temporary files has no room for the best epoch's model.
    """
    if np.isnan(data.labels[valid_rows, 0]).all():
        raise InputError(
            f"seed {seed}: none of the {len(valid_rows)} clips to stop early by has a label of M"
        )
    normaliser = normaliser_of(settings).fit(data, train_rows)
    train_set, valid_set = (normaliser.apply(data, rows, settings.view) for rows in (train_rows, valid_rows))
    history: list[Epoch] = []
    best_epoch, best_loss = 0, float("inf")
    with _reproducible(seed), tempfile.TemporaryFile(buffering=0) as best:
        model = build(settings, data.widths, normaliser.text_length)
        with adam(model, settings) as optimiser:
            for epoch in range(1, settings.max_epochs + 1):
                train_loss = _train_epoch(model, optimiser, train_set, settings)
                valid_loss = float(objective(_outputs(model, valid_set), valid_set.labels, {"M": 1.0}))
                if not np.isfinite(valid_loss):
                    raise FloatingPointError(
                        f"seed {seed}, epoch {epoch}: the validation loss is {valid_loss}"
                    )
                history.append(Epoch(train_loss, valid_loss))
                if valid_loss < best_loss:
                    best_epoch, best_loss = epoch, valid_loss
                    _keep(model, best)
                elif epoch - best_epoch >= settings.patience:
                    break
        del optimiser  # its two moments of every parameter make room for what is read
        best.seek(0)
        model.load_state_dict(torch.load(best, weights_only=True))
    return Trained(model.eval(), settings, data.widths, normaliser, seed, tuple(history), best_epoch)


def _keep(model: nn.Module, file: IO[bytes]) -> None:
    """Write a model's state over what the file held."""
    file.seek(0)
    try:
        torch.save(model.state_dict(), file)
        file.truncate()
    except (OSError, RuntimeError) as error:  # of which torch makes either
        size = sum(value.nbytes for value in model.state_dict().values()) >> 20
        raise InputError(
            f"{tempfile.gettempdir()}: the best epoch's model, {size} MiB, cannot be kept there ({error}); "
            "make room, or name another folder in TMPDIR"
        ) from error


@contextmanager
def adam(model: nn.Module, settings: SystemSettings) -> Iterator[torch.optim.Optimizer]:
    """Adam over every parameter of a model; until the end of the context large ones need no step.

    A large parameter is stepped by itself as soon as its gradient is there, and the gradient let go: of
    MTFN's, 537 MiB, a 33rd exists at a time. Where gradients are summed or clipped, none is treated so.
    """
    at_once = settings.accumulate == 1 and settings.clip is None
    make = partial(torch.optim.Adam, lr=settings.learning_rate, fused=True)
    together, hooks = [], []
    for group in _parameter_groups(model, settings):
        large = [parameter for parameter in group["params"] if at_once and parameter.numel() >= LARGE]
        for parameter in large:
            alone = make([{**group, "params": [parameter]}])
            # As Adam itself would begin, but before anything else is made: later they tear the heap apart.
            moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            alone.state[parameter] = {"step": torch.zeros(()), **moments}
            step = partial(_step_alone, alone)
            hooks.append(parameter.register_post_accumulate_grad_hook(step))
        apart = {id(parameter) for parameter in large}
        rest = [parameter for parameter in group["params"] if id(parameter) not in apart]
        together.append({**group, "params": rest})
    try:
        yield make(together)
    finally:
        for hook in hooks:
            hook.remove()


def _step_alone(optimiser: torch.optim.Optimizer, _: Tensor) -> None:
    optimiser.step()
    optimiser.zero_grad()


def _train_epoch(
    model: nn.Module, optimiser: torch.optim.Optimizer, train_set: Batch, settings: SystemSettings
) -> float:
    """Pass once over the training part; the mean objective.

    A step takes the sum of the gradients of `settings.accumulate` batches, the last step of those that are left.
    """
    model.train()
    optimiser.zero_grad()
    total, batches = 0.0, draw_batches(len(train_set), settings.batch_size)
    for number, rows in enumerate(batches, start=1):
        total += _add_gradients(model, train_set, rows, settings.task_weights) * len(rows) / len(train_set)
        if number % settings.accumulate == 0 or number == len(batches):
            if settings.clip is not None:
                nn.utils.clip_grad_value_(model.parameters(), settings.clip)
            optimiser.step()
            optimiser.zero_grad()
    return total


def _add_gradients(model: nn.Module, clips: Batch, rows: Tensor, weights: Mapping[Task, float]) -> float:
    """Add one batch's gradients to the parameters'; its objective. Nothing of the graph outlives the call."""
    loss = objective(model(*clips.inputs(rows)), clips.labels[rows], weights)
    if loss.requires_grad:  # no clip of the batch may have a label
        loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def evaluate(trained: Trained, data: SentimentData, rows: Rows) -> TaskScores:
    """Score every task of a model on some clips, each on its own labels."""
    predictions = trained.predict(data, rows)
    return {task: score(values, data.labels[rows, TASKS.index(task)]) for task, values in predictions.items()}


def represent(trained: Trained, data: SentimentData, rows: Rows) -> dict[str, list[list[float]]]:
    """What the sub-networks make of some clips: R_t, R_a and R_v, under T, A and V, a list a clip."""
    model = trained.model
    if not isinstance(model, FusedSubnetworks):
        raise TypeError(f"{type(model).__name__} has no sub-networks")
    clips = trained.normaliser.apply(data, rows, trained.settings.view)
    with torch.no_grad():
        found = model.represent(*clips.inputs(torch.arange(len(clips))))  # type: ignore[arg-type]
    return {task: values.tolist() for task, values in found.items()}


def objective(outputs: Mapping[str, Tensor], labels: Tensor, weights: Mapping[Task, float]) -> Tensor:
    """Eq. 4 without its penalty, which is Adam's weight decay: the weighted sum of each task's mean L1 loss.

    A missing label leaves its clip out of that task's mean; a task without any label adds nothing.

    Parameters
    ----------
    outputs
        By task, shape (B,); a model's own loss by clip, under ``auxiliary``, is added as its mean.
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
    if AUXILIARY in outputs:
        total = total + outputs[AUXILIARY].mean()
    return total


def draw_batches(count: int, size: int) -> list[Tensor]:
    """Shuffle clips into batches. A last batch of one joins the batch before it: one clip has no variance."""
    batches = list(torch.split(torch.randperm(count), size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _outputs(model: nn.Module, clips: Batch) -> dict[str, Tensor]:
    """Predict in evaluation mode; by task, shape (len(clips),)."""
    model.eval()
    with torch.no_grad():
        parts = [
            model(*clips.inputs(rows)) for rows in torch.split(torch.arange(len(clips)), EVALUATION_BATCH)
        ]
    return {task: torch.cat([part[task] for part in parts]) for task in parts[0]}


def _parameter_groups(model: nn.Module, settings: SystemSettings) -> list[dict[str, Any]]:
    """Every parameter once: those that the settings name with their own options, the others together."""
    groups: dict[str, dict[str, Any]] = {
        prefix: {"params": [], "weight_decay": settings.weight_decay, **options}
        for prefix, options in {**settings.parameter_groups, "": {}}.items()
    }
    for name, parameter in model.named_parameters():
        prefix = next(prefix for prefix in groups if name.startswith(prefix))
        groups[prefix]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


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
