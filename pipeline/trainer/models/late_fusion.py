"""LF-DNN and MLF-DNN: three sub-networks, their representations laid side by side, one head a task."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.trainer.models.subnetworks import Head, PooledSubnetwork, TextSubnetwork
from pipeline.trainer.settings import LateFusionSettings, Task


class InputWidths(NamedTuple):
    """Columns of each modality."""

    text: int
    audio: int
    vision: int


class LateFusion(nn.Module):
    """Late fusion of the CH-SIMS paper, single-task (head M alone) or multi-task (M, T, A, V).

    Symbols of the paper's multi-task framework, for a modality u of {t, a, v}: the sub-networks give
    R_u, of which ``text``, ``audio`` and ``vision`` are the S_u; their concatenation [R_t; R_a; R_v] is the
    fused representation F; ``heads.M`` maps F, and ``heads.T``, ``heads.A``, ``heads.V`` map R_t, R_a, R_v
    to y^_i. The sub-networks are what Eq. 4 calls shared: every head that reads them trains them.

    Parameters
    ----------
    settings
        Widths, dropout rates and which heads there are.
    widths
        Columns of the three inputs; 768, 33 and 709 for the paper's features, with which LF-DNN has
        635,821 parameters and MLF-DNN 283,388.
    """

    def __init__(self, settings: LateFusionSettings, widths: InputWidths) -> None:
        super().__init__()
        hidden, dropout = settings.hidden, settings.dropout
        self.text = TextSubnetwork(widths.text, hidden.text, settings.text_out, dropout.text)
        self.audio = PooledSubnetwork(widths.audio, hidden.audio, dropout.audio)
        self.vision = PooledSubnetwork(widths.vision, hidden.vision, dropout.vision)
        sizes: dict[Task, int] = {"T": settings.text_out, "A": hidden.audio, "V": hidden.vision}
        sizes["M"] = sum(sizes.values())
        self.heads = nn.ModuleDict(
            {
                task: Head(sizes[task], settings.head_widths[task], settings.head_dropout)
                for task in settings.tasks
            }
        )

    def represent(self, text: Tensor, lengths: Tensor, audio: Tensor, vision: Tensor) -> dict[str, Tensor]:
        """Give R_t, R_a, R_v and F, under the names of the tasks that read them; inputs as `forward`.

        Returns
        -------
        T shape (B, text_out), A (B, hidden.audio), V (B, hidden.vision), M (B, their sum).
        """
        found = {"T": self.text(text, lengths), "A": self.audio(audio), "V": self.vision(vision)}
        return {"M": torch.cat(list(found.values()), dim=-1), **found}

    def forward(self, text: Tensor, lengths: Tensor, audio: Tensor, vision: Tensor) -> dict[str, Tensor]:
        """Predict the sentiment of every task that has a head.

        Parameters
        ----------
        text
            Token embeddings, shape (B, L, widths.text), padded at the end.
        lengths
            Tokens of each text, int64 on the CPU, shape (B,).
        audio, vision
            Mean of each clip's usable rows, shapes (B, widths.audio) and (B, widths.vision).

        Returns
        -------
        By task, shape (B,) each.
        """
        representations = self.represent(text, lengths, audio, vision)
        return {task: head(representations[task]) for task, head in self.heads.items()}
