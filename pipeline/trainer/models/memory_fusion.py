"""MFN: an LSTM for each modality, attention across their memories, a gated memory of the attended values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import ctc_loss, linear, pad, relu
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from triptych.pipeline.trainer.models.inputs import InputWidths, Padded
from triptych.pipeline.trainer.models.subnetworks import Perceptron
from triptych.pipeline.trainer.models.system import System, Targets
from triptych.pipeline.trainer.settings import MODALITIES, Layer, SystemSettings, View, Width, Widths
from triptych.pipeline.trainer.systems import register_model

ALIGNMENT_LOSS = "auxiliary"  # the output that is the aligners' loss


class MemoryFusionSettings(SystemSettings):
    """MFN."""

    family: Literal["memory-fusion"] = "memory-fusion"
    reads: ClassVar[View] = "rows"
    cost: ClassVar[float] = 7

    hidden: Widths
    memory: Width
    window: Annotated[int, Field(ge=2, description="Tokens whose memories are attended together.")] = 2
    attention: Annotated[Layer, Field(description="D_a (NN1).")]
    proposal: Annotated[Layer, Field(description="D_u (NN2).")]
    retain: Annotated[Layer, Field(description="D_gamma1.")]
    update: Annotated[Layer, Field(description="D_gamma2.")]
    output: Layer
    aligner: Annotated[
        Width | None,
        Field(
            description="Hidden units of the CTC modules' LSTM; none: each token gets the mean of its share."
        ),
    ]
    aligner_weight: Annotated[float, Field(ge=0, description="Weight of the CTC loss in the objective.")] = (
        1.0
    )

    repeat_mean: Annotated[
        bool,
        Field(description="Without aligner: each token gets the mean over the whole clip, as in MMSA."),
    ] = False

    @property
    def view(self) -> View:
        if self.aligner:
            return self.reads
        return "repeated" if self.repeat_mean else "tokens"

    def for_aligned(self) -> SystemSettings:
        return self.model_copy(update={"aligner": None, "repeat_mean": False})

    def as_mmsa(self) -> SystemSettings:
        return super().as_mmsa().model_copy(update={"aligner": None, "repeat_mean": True})


# The reference's tuned settings for CH-SIMS.
MFN = MemoryFusionSettings(
    hidden=Widths(text=64, audio=16, vision=64),
    memory=64,
    attention=Layer(width=128, dropout=0.2),
    proposal=Layer(width=128, dropout=0.0),
    retain=Layer(width=64, dropout=0.2),
    update=Layer(width=64, dropout=0.7),
    output=Layer(width=64, dropout=0.7),
    aligner=32,
    task_weights={"M": 1.0},
    weight_decay=0.0,
    learning_rate=1e-3,
    batch_size=32,
)


class Aligner(nn.Module):
    """Align rows to tokens by connectionist temporal classification (Graves et al. 2006; Tsai et al. 2019).

    An LSTM gives every row t a probability p_tj of belonging to token j, or to none (the blank, class 0);
    a token's row is x^_j = sum_t p_tj x_t. The label sequence of the CTC loss is the tokens' order: it is only
    known that the rows are in the order of the text.
    """

    def __init__(self, width: int, hidden: int, tokens: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, batch_first=True)
        self.project = nn.Linear(hidden, 1 + tokens)

    def forward(self, rows: Padded, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Align rows.

        Parameters
        ----------
        rows
            Values of shape (B, T, D).
        tokens
            int64 on the CPU, shape (B,): tokens of each clip.

        Returns
        -------
        Aligned rows, shape (B, tokens.max(), D), zeros after a clip's tokens; and log p, shape
        (B, T, 1 + tokens.max()), where a clip's probabilities are shared among its own tokens.
        """
        values, longest = rows.cleared, int(tokens.max())
        packed = pack_padded_sequence(values, rows.lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=values.shape[1])
        logits = self.project(states)[..., : 1 + longest]
        foreign = torch.arange(1 + longest) > tokens[:, None]
        # Finite, so that no gradient is an infinity times zero.
        logp = logits.masked_fill(foreign[:, None].to(logits.device), -1e9).log_softmax(dim=-1)
        return logp[..., 1:].exp().transpose(1, 2) @ values, logp

    @staticmethod
    def loss(logp: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
        """CTC loss by row, shape (B,): -log p(tokens in order | rows) / rows; 0 with too few rows."""
        labels = torch.arange(1, logp.shape[-1], device=logp.device).expand(len(tokens), -1)
        loss = ctc_loss(
            logp.transpose(0, 1), labels, rows, tokens, blank=0, reduction="none", zero_infinity=True
        )
        return loss / rows.to(loss.device)


class UnrolledLSTM(nn.LSTMCell):
    """An LSTM that returns its memories c too, at every step (which `nn.LSTM` does not)."""

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Map shape (B, L, D) to h and c, shape (B, L, H) each."""
        projected = linear(input, self.weight_ih, self.bias_ih + self.bias_hh)
        hidden = memory = input.new_zeros(len(input), self.hidden_size)
        states = []
        for step in projected.unbind(dim=1):
            entry, forget, proposal, exit_ = (step + hidden @ self.weight_hh.T).chunk(4, dim=-1)
            memory = torch.sigmoid(forget) * memory + torch.sigmoid(entry) * torch.tanh(proposal)
            hidden = torch.sigmoid(exit_) * torch.tanh(memory)
            states.append((hidden, memory))
        hs, cs = zip(*states, strict=True)
        return torch.stack(hs, dim=1), torch.stack(cs, dim=1)


@register_model(MemoryFusionSettings, {"mfn": MFN})
class MemoryFusion(System):
    """Memory fusion network (Zadeh et al. 2018), aligned to the tokens by CTC.

    By step t, with c_t the three LSTMs' memories side by side and c^ those of steps t-1 and t:

        a = softmax(D_a(c^)),  k = a * c^,  u^ = tanh(D_u(k)),
        u_t = sigmoid(D_1([k; u_t-1])) * u_t-1 + sigmoid(D_2([k; u_t-1])) * u^,  y = D_o([h_T; u_T]).

    ``cells`` are the LSTMs, ``attention`` is D_a, ``proposal`` D_u, ``retain`` D_1, ``update`` D_2 (D_gamma1
    and D_gamma2 in the paper), ``output`` D_o. As in its authors' program the gates read the memory u too.
    With 768, 33 and 709 columns there are 601,505 parameters without aligners. The aligners'
    CTC loss is added to the objective.

    Parameters
    ----------
    text_length
        Longest text, in tokens of the aligners.
    """

    def __init__(self, settings: MemoryFusionSettings, widths: InputWidths, text_length: int) -> None:
        super().__init__(settings)
        hidden, memory = settings.hidden, settings.memory
        states = hidden.text + hidden.audio + hidden.vision
        attended = states * settings.window
        self.aligners = nn.ModuleDict()
        if settings.aligner is not None:
            for name in ("audio", "vision"):
                self.aligners[name] = Aligner(getattr(widths, name), settings.aligner, text_length)
        self.cells = nn.ModuleDict(
            {name: UnrolledLSTM(getattr(widths, name), getattr(hidden, name)) for name in MODALITIES}
        )
        self.attention = _perceptron(attended, settings.attention, attended)
        self.proposal = _perceptron(attended, settings.proposal, memory)
        self.retain = _perceptron(attended + memory, settings.retain, memory)
        self.update = _perceptron(attended + memory, settings.update, memory)
        self.output = _perceptron(states + memory, settings.output, 1)
        self.window, self.memory, self.aligner_weight = settings.window, memory, settings.aligner_weight

    def forward(self, text: Padded, audio: Padded, vision: Padded) -> dict[str, Tensor]:
        """Predict M, shape (B,), from rows at three rates, shapes (B, L_u, widths).

        In training there is an ``auxiliary`` loss too, shape (B,): the aligners'. Without aligners, audio and
        vision come token by token.
        """
        tokens = text.lengths
        rows = {
            "text": text.cleared[:, : int(tokens.max())],
            "audio": audio.cleared,
            "vision": vision.cleared,
        }
        loss = text.values.new_zeros(())
        for (name, aligner), unaligned in zip(self.aligners.items(), (audio, vision), strict=False):
            rows[name], logp = aligner(unaligned, tokens)
            if self.training:
                loss = loss + Aligner.loss(logp, unaligned.lengths, tokens)
        states = [cell(rows[name]) for name, cell in self.cells.items()]
        hidden, cells = (torch.cat(parts, dim=-1) for parts in zip(*states, strict=True))
        memories = self.remember(cells)
        last = torch.arange(len(tokens)), tokens - 1  # later steps are padding, and no step reads a later one
        out = {"M": self.output(torch.cat([hidden[last], memories[last]], dim=-1)).squeeze(-1)}
        if self.training and len(self.aligners):
            out[ALIGNMENT_LOSS] = self.aligner_weight * loss
        return out

    def objective(self, outputs: Mapping[str, Tensor], targets: Targets) -> Tensor:
        """Add the aligners' loss, mean over the batch, to Eq. 4."""
        loss = super().objective(outputs, targets)
        return loss + outputs[ALIGNMENT_LOSS].mean() if ALIGNMENT_LOSS in outputs else loss

    def remember(self, cells: Tensor) -> Tensor:
        """Delta-memory attention and the multi-view gated memory: c, shape (B, L, C), to u, (B, L, memory).

        Everything that does not depend on u is computed for the whole sequence at once.
        """
        windows = pad(cells, (0, 0, self.window - 1, 0)).unfold(1, self.window, 1)
        together = windows.transpose(2, 3).flatten(2)
        attended = self.attention(together).softmax(dim=-1) * together
        proposal = torch.tanh(self.proposal(attended))
        gates = [(gate, *_halves(gate, attended)) for gate in (self.retain, self.update)]
        memory, memories = cells.new_zeros(len(cells), self.memory), []
        for step in range(cells.shape[1]):
            retain, update = (
                torch.sigmoid(gate.linear_2(gate.dropout(relu(fixed[:, step] + memory @ weight.T))))
                for gate, fixed, weight in gates
            )
            memory = retain * memory + update * proposal[:, step]
            memories.append(memory)
        return torch.stack(memories, dim=1)


def _perceptron(width: int, layer: Layer, out: int) -> Perceptron:
    return Perceptron(width, layer.width, out, layer.dropout)


def _halves(gate: Perceptron, attended: Tensor) -> tuple[Tensor, Tensor]:
    """Split a gate's first layer, of [k; u]: the part of k at every step, and the weights of u."""
    weight = gate.linear_1.weight
    width = attended.shape[-1]
    return linear(attended, weight[:, :width], gate.linear_1.bias), weight[:, width:]
