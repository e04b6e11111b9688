"""The training loop of one seed: a system's objective, Adam, early stopping on the validation split."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from triptych.pipeline.errors import InputError
from triptych.pipeline.trainer.data.batches import Batches, ReadByBatch, batches_of
from triptych.pipeline.trainer.data.clips import SentimentData
from triptych.pipeline.trainer.data.padding import normaliser_of
from triptych.pipeline.trainer.data.pooled import Rows
from triptych.pipeline.trainer.data.standardising import Normaliser
from triptych.pipeline.trainer.metrics import TaskScores, score
from triptych.pipeline.trainer.models.inputs import InputWidths
from triptych.pipeline.trainer.models.subnetworks import FusedSubnetworks
from triptych.pipeline.trainer.models.system import System, Targets, weighted_l1
from triptych.pipeline.trainer.settings import TASKS, SystemSettings
from triptych.pipeline.trainer.systems import build

EVALUATION_BATCH = 64
LARGE = 1 << 20  # a parameter with at least this many elements is updated separately
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Epoch:
    """One epoch: the mean objective in training, and the mean absolute error of M in validation.

    Attributes
    ----------
    by_task
        The mean absolute error in validation of each task that has labels there; labels are from -1 to 1.
    """

    train_loss: float
    valid_loss: float
    by_task: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """A trained model, with everything that is needed to use it.

    Attributes
    ----------
    model
        In evaluation mode, at its best epoch; on the device that it computes on.
    normaliser
        Fitted on the training split.
    history
        Every epoch that was run.
    best_epoch
        Counted from 1.
    """

    model: System
    settings: SystemSettings
    widths: InputWidths
    normaliser: Normaliser
    seed: int
    history: tuple[Epoch, ...]
    best_epoch: int

    @property
    def device(self) -> torch.device:
        """The device that the model computes on."""
        return next((parameter.device for parameter in self.model.parameters()), CPU)

    def summary(self) -> dict[str, Any]:
        """Return the number of epochs, the best one, and its validation loss."""
        return {
            "epochs": {"best": self.best_epoch, "run": len(self.history)},
            "valid_loss": self.history[self.best_epoch - 1].valid_loss,
        }

    def predict(self, data: SentimentData, rows: Rows | None = None) -> dict[str, NDArray[np.float32]]:
        """Predict the tasks of some clips, by default of all; by task, shape (len(rows),) each.

        Raises
        ------
        ValueError
            The features have other widths than those the model was trained on.
        """
        if data.widths != self.widths:
            raise ValueError(f"the model was trained on {self.widths}, these features are {data.widths}")
        rows = np.arange(len(data)) if rows is None else rows
        clips = ReadByBatch.of(self.normaliser, data, rows, self.settings.view, self.device)
        with _reproducible(self.seed, self.device):
            outputs = _outputs(self.model, clips)
        return {task: values.cpu().numpy() for task, values in outputs.items()}


def train(
    data: SentimentData,
    settings: SystemSettings,
    seed: int,
    train_rows: Rows,
    valid_rows: Rows,
    device: str = "cpu",
    watch: Callable[[int, Epoch], None] = lambda number, epoch: None,
) -> Trained:
    """Train one model on some clips, with early stopping on others. Equal seeds give equal numbers.

    Parameters
    ----------
    train_rows
        At least two clips; the model and the normaliser are fitted on their labels and features alone.
    valid_rows
        At least one clip with a label M: the epoch with the lowest mean absolute error of M over them is
        the result, and `settings.patience` epochs without a lower one end training.
    device
        Where the model is trained, as torch names it; the clips are copied there once if they are in memory, otherwise
        by batch. Weights and batches are
        drawn on the CPU for every device.
    watch
        Called after each epoch with its number, from 1.

    Raises
    ------
    FloatingPointError
        The validation loss is not finite: the learning rate is too high for these data.
    InputError
        No clip of `valid_rows` has a label M, or the folder for temporary files has no room for the best epoch's model.
    """
    if np.isnan(data.labels[valid_rows, 0]).all():
        raise InputError(
            f"seed {seed}: none of the {len(valid_rows)} clips for early stopping has a label of M"
        )
    target = torch.device(device)
    normaliser = normaliser_of(settings).fit(data, train_rows)
    train_set, valid_set = (
        batches_of(normaliser, data, rows, settings.view, target) for rows in (train_rows, valid_rows)
    )
    history: list[Epoch] = []
    best_epoch, best_loss = 0, float("inf")
    with _reproducible(seed, target), tempfile.TemporaryFile(buffering=0) as best:
        model = build(settings, data.widths, normaliser.text_length).to(target)
        model.start_training(train_set.ids, train_set.labels)
        with adam(model, settings) as optimiser:
            for epoch in range(1, settings.max_epochs + 1):
                train_loss = _train_epoch(model, optimiser, train_set, settings, epoch)
                model.end_epoch(epoch)
                by_task = _errors(_outputs(model, valid_set), valid_set.labels)
                valid_loss = by_task["M"]
                if not np.isfinite(valid_loss):
                    raise FloatingPointError(
                        f"seed {seed}, epoch {epoch}: the validation loss is {valid_loss}"
                    )
                history.append(Epoch(train_loss, valid_loss, by_task))
                watch(epoch, history[-1])
                if valid_loss < best_loss:
                    best_epoch, best_loss = epoch, valid_loss
                    _save_state(model, best)
                elif epoch - best_epoch >= settings.patience:
                    break
        del optimiser  # frees its two moments of every parameter before the best epoch is loaded
        best.seek(0)
        model.load_state_dict(torch.load(best, map_location=target, weights_only=True))
    return Trained(model.eval(), settings, data.widths, normaliser, seed, tuple(history), best_epoch)


def _errors(outputs: dict[str, Tensor], labels: Tensor) -> dict[str, float]:
    """Return the mean absolute error of each task that has a label."""
    labelled = [task for task in TASKS if task in outputs and not labels[:, TASKS.index(task)].isnan().all()]
    return {task: float(weighted_l1(outputs, labels, {task: 1.0})) for task in labelled}


def _save_state(model: nn.Module, file: IO[bytes]) -> None:
    """Overwrite a file with a model's state."""
    file.seek(0)
    try:
        torch.save(model.state_dict(), file)
        file.truncate()
    except (OSError, RuntimeError) as error:  # torch raises either
        tensors = [value for value in model.state_dict().values() if isinstance(value, Tensor)]
        size = sum(value.nbytes for value in tensors) >> 20
        raise InputError(
            f"{tempfile.gettempdir()}: the best epoch's model, {size} MiB, cannot be saved there ({error}); "
            "free some space, or name another folder in TMPDIR"
        ) from error


@contextmanager
def adam(model: nn.Module, settings: SystemSettings) -> Iterator[torch.optim.Optimizer]:
    """Adam over every parameter of a model; within the context large ones are stepped during the backward pass.

    A large parameter is stepped by itself as soon as its gradient is computed, and the gradient is freed: so
    only a 33rd of MTFN's 537 MiB of gradients exists at a time. This is off if gradients are summed or clipped.
    """
    at_once = settings.accumulate == 1 and settings.gradient_clip is None
    make = partial(torch.optim.Adam, lr=settings.learning_rate, fused=True)
    together, hooks = [], []
    for group in _parameter_groups(model, settings):
        large = [parameter for parameter in group["params"] if at_once and parameter.numel() >= LARGE]
        for parameter in large:
            alone = make([{**group, "params": [parameter]}])
            # Adam's own initial state, but allocated first: allocated later it would fragment the heap.
            moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            alone.state[parameter] = {"step": torch.zeros((), device=parameter.device), **moments}
            step = partial(_step_alone, alone)
            hooks.append(parameter.register_post_accumulate_grad_hook(step))
        stepped_alone = {id(parameter) for parameter in large}
        rest = [parameter for parameter in group["params"] if id(parameter) not in stepped_alone]
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
    model: System,
    optimiser: torch.optim.Optimizer,
    train_set: Batches,
    settings: SystemSettings,
    epoch: int = 1,
) -> float:
    """Train one epoch; return the mean objective.

    A step takes the sum of the gradients of `settings.accumulate` batches, the last step of the remaining ones.
    """
    model.train()
    optimiser.zero_grad()
    total, batches = 0.0, draw_batches(len(train_set), settings.batch_size)
    for number, rows in enumerate(batches, start=1):
        total += _add_gradients(model, train_set, rows, epoch) * len(rows) / len(train_set)
        is_step = number % settings.accumulate == 0 or number == len(batches)
        if settings.gradient_clip is not None and (is_step or settings.clip_batches):
            nn.utils.clip_grad_value_(model.parameters(), settings.gradient_clip)
        if is_step:
            optimiser.step()
            optimiser.zero_grad()
    return total


def _add_gradients(model: System, clips: Batches, rows: Tensor, epoch: int) -> float:
    """Add one batch's gradients to the parameters'; return its objective. The graph is freed on return."""
    ids = tuple(clips.ids[row] for row in rows.tolist())
    targets = Targets(ids, clips.labels[rows.to(clips.labels.device)], epoch)
    loss = model.objective(model(*clips.inputs(rows)), targets)
    if loss.requires_grad:  # a batch may have no label at all
        loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def evaluate(trained: Trained, data: SentimentData, rows: Rows) -> TaskScores:
    """Evaluate every task of a model on some clips, each on its own labels."""
    return scores_of(trained.predict(data, rows), data, rows)


def scores_of(predictions: dict[str, NDArray[np.float32]], data: SentimentData, rows: Rows) -> TaskScores:
    """Evaluate predictions of some clips, each task on its own labels."""
    return {
        task: score(values, data.labels[rows, TASKS.index(task)], data.label_range)
        for task, values in predictions.items()
    }


def represent(trained: Trained, data: SentimentData, rows: Rows) -> dict[str, list[list[float]]]:
    """Return R_t, R_a and R_v of some clips, under T, A and V: one list for each clip."""
    model = trained.model
    if not isinstance(model, FusedSubnetworks):
        raise TypeError(f"{type(model).__name__} has no sub-networks")
    clips = trained.normaliser.apply(data, rows, trained.settings.view).to(trained.device)
    with torch.no_grad():
        states = model.represent(*clips.inputs(torch.arange(len(clips))))  # type: ignore[arg-type]
    return {task: values.tolist() for task, values in states.items()}


def draw_batches(count: int, size: int) -> list[Tensor]:
    """Shuffle clips into batches. A last batch of one clip joins the previous batch: one clip has no variance."""
    batches = list(torch.split(torch.randperm(count), size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _outputs(model: System, clips: Batches) -> dict[str, Tensor]:
    """Predict in evaluation mode; by task, shape (len(clips),)."""
    model.eval()
    with torch.no_grad():
        parts = [
            model(*clips.inputs(rows)) for rows in torch.split(torch.arange(len(clips)), EVALUATION_BATCH)
        ]
    return {task: torch.cat([part[task] for part in parts]) for task in parts[0]}


def _parameter_groups(model: nn.Module, settings: SystemSettings) -> list[dict[str, Any]]:
    """Group the parameters: those that the settings name with their own options, all others together."""
    groups: dict[str, dict[str, Any]] = {
        prefix: {"params": [], "weight_decay": settings.weight_decay, **options}
        for prefix, options in {**settings.parameter_groups, "": {}}.items()
    }
    for name, parameter in model.named_parameters():
        prefix = next(prefix for prefix in groups if name.startswith(prefix))
        groups[prefix]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


@contextmanager
def _reproducible(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Draw from generators of this seed on one thread; restore the process's own state at the end.

    One thread is used, since sums over several threads differ in their last digits (and small models gain nothing).
    """
    threads = torch.get_num_threads()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.set_num_threads(1)
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
