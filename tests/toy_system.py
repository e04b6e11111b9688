"""A system as another distribution would write it: one file, with pseudo-labels of its own by clip."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from triptych.pipeline.trainer.models.system import System, weighted_l1
from triptych.pipeline.trainer.settings import SystemSettings, View
from triptych.pipeline.trainer.systems import register_model


class ToySettings(SystemSettings):
    """One linear map of the mean audio row; its pseudo-labels move from label M towards the predictions."""

    family: Literal["toy"] = "toy"
    reads: ClassVar[View] = "mean"
    cost: ClassVar[float] = 1000

    momentum: float = 0.5


TOY = ToySettings(task_weights={"M": 1.0}, weight_decay=0.0, learning_rate=1e-2, batch_size=5, max_epochs=3)


@register_model(ToySettings, {"toy": TOY}, titles={"toy": "Toy"})
class Toy(System):
    """y = w . mean(audio) + b, trained towards label M and a pseudo-label of each clip."""

    def __init__(self, settings: ToySettings, widths, text_length: int) -> None:
        super().__init__(settings)
        self.linear = nn.Linear(widths.audio, 1)
        self.momentum = settings.momentum
        self.pseudo: dict[str, Tensor] = {}
        self.latest: dict[str, Tensor] = {}

    def forward(self, text, audio, vision):
        return {"M": self.linear(audio).squeeze(-1)}

    def start_training(self, ids, labels):
        self.pseudo = dict(zip(ids, labels[:, 0].clone(), strict=True))

    def objective(self, outputs, targets):
        self.latest |= dict(zip(targets.ids, outputs["M"].detach(), strict=True))
        pseudo = torch.stack([self.pseudo[clip] for clip in targets.ids])
        own = (outputs["M"] - pseudo).abs().mean()
        return weighted_l1(outputs, targets.labels, self.task_weights) + 0.5 * own

    def end_epoch(self, epoch):
        for clip, value in self.latest.items():
            self.pseudo[clip] = self.momentum * self.pseudo[clip] + (1 - self.momentum) * value

    def get_extra_state(self):
        return {"pseudo": self.pseudo}

    def set_extra_state(self, state):
        self.pseudo = dict(state["pseudo"])
