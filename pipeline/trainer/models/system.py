"""The base of every system's torch module: what the training loop calls, with the default objective (Eq. 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from triptych.pipeline.trainer.settings import TASKS, SystemSettings, Task


@dataclass(frozen=True)
class Targets:
    """What a system is trained towards in one batch.

    Attributes
    ----------
    ids
        The batch's clips, B of them.
    labels
        float32, shape (B, 4), columns M, T, A, V, NaN where missing; on the model's device.
    epoch
        Counted from 1.
    """

    ids: tuple[str, ...]
    labels: Tensor
    epoch: int


class System(nn.Module):
    """A system's torch module. A derived class defines ``forward``; the other methods may be overridden.

    A system's own state, such as pseudo-labels by clip id, must be in the ``state_dict``: as buffers, or through
    `torch.nn.Module.get_extra_state` and ``set_extra_state`` (tensors, numbers, text, lists and dicts). Then
    early stopping restores it, and the checkpoint includes it.

    Parameters
    ----------
    settings
        The system's settings.
    """

    def __init__(self, settings: SystemSettings) -> None:
        super().__init__()
        self.task_weights = settings.task_weights

    def start_training(self, ids: Sequence[str], labels: Tensor) -> None:
        """Prepare for training on some clips; called once, before the first epoch.

        Parameters
        ----------
        ids
            The training clips, N of them.
        labels
            float32, shape (N, 4), columns M, T, A, V, NaN where missing; on the model's device.
        """

    def objective(self, outputs: Mapping[str, Tensor], targets: Targets) -> Tensor:
        """Return the loss of a batch, shape (): by default Eq. 4 without its penalty.

        Parameters
        ----------
        outputs
            What ``forward`` returned for the batch.
        targets
            The batch's clip ids, labels and epoch.
        """
        return weighted_l1(outputs, targets.labels, self.task_weights)

    def end_epoch(self, epoch: int) -> None:
        """Called after every training epoch, counted from 1, and before its validation."""


def weighted_l1(outputs: Mapping[str, Tensor], labels: Tensor, weights: Mapping[Task, float]) -> Tensor:
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
        target = labels[:, TASKS.index(task)]
        known = ~target.isnan()
        if known.any():
            total = total + weight * (outputs[task][known] - target[known]).abs().mean()
    return total
