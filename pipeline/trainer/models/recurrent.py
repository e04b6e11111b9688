"""EF-LSTM and MFN: one LSTM over all modalities at once, and one a modality with a memory between them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import ctc_loss, linear, pad, relu
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from triptych.pipeline.trainer.models.inputs import InputWidths, Padded
from triptych.pipeline.trainer.models.lstm import PackedLSTM, Packing
from triptych.pipeline.trainer.models.subnetworks import Perceptron
from triptych.pipeline.trainer.settings import MODALITIES, EarlyFusionSettings, Layer, MemoryFusionSettings

MOMENTUM = 0.1  # of running statistics, as in nn.BatchNorm1d


class StepNorm(nn.BatchNorm1d):
    """Batch normalisation by time step: over the clips that reach it, and over all columns.

    A step that no clip of the batch reaches keeps its running statistics.
    """

    running_mean: Tensor
    running_var: Tensor

    def forward(self, rows: Tensor, packing: Packing) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Give what packed rows, shape (N, D), are multiplied by and then shifted by, shape (N, 1) each."""
        reached = len(packing.sizes)
        mean, variance = self.running_mean[:reached], self.running_var[:reached]
        if self.training:
            clips = torch.tensor(packing.sizes, dtype=rows.dtype, device=rows.device)

            def by_step(values: Tensor) -> Tensor:
                return torch.zeros_like(clips).index_add(0, packing.steps, values) / clips

            row_variance, row_mean = torch.var_mean(rows, dim=1, correction=0)
            mean = by_step(row_mean)
            variance = by_step(row_variance + (row_mean - mean[packing.steps]).square())
            values = clips * rows.shape[1]
            self._follow(mean.detach(), (variance * values / (values - 1).clamp(min=1)).detach())
        scale = self.weight[:reached] * (variance + self.eps).rsqrt()
        shift = self.bias[:reached] - mean * scale
        return scale[packing.steps, None], shift[packing.steps, None]

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics of the steps that were reached, the variance being the sample's."""
        for running, found in ((self.running_mean, mean), (self.running_var, variance)):
            running[: len(found)].lerp_(found, MOMENTUM)


class EarlyFusion(nn.Module):
    """EF-LSTM (Williams et al. 2018): h = LSTM(N([x_t; x_a; x_v])), y = W_2 ReLU(W_1 h_T), word by word.

    Audio and vision come as means over each word's share of the clip. ``norm`` is N, ``lstm`` has three
    layers, read at the text's last token; ``head`` holds W_1 and W_2. With 768, 33 and 709 columns and texts
    of up to 39 tokens there are 215,695 parameters.

    Parameters
    ----------
    length
        Longest text.
    """

    def __init__(self, settings: EarlyFusionSettings, widths: InputWidths, length: int) -> None:
        super().__init__()
        between = settings.dropout if settings.layers > 1 else 0.0
        self.norm = StepNorm(length)
        self.lstm = PackedLSTM(sum(widths), settings.hidden, num_layers=settings.layers, dropout=between)
        self.dropout = nn.Dropout(settings.dropout)
        self.head = Perceptron(settings.hidden, settings.hidden, 1, settings.dropout)

    def forward(self, text: Padded, audio: Padded, vision: Padded) -> dict[str, Tensor]:
        """Predict M, shape (B,), from three inputs of the text's lengths, shapes (B, L, widths)."""
        packing = Packing.of(text.lengths)
        rows = torch.cat([packing.pack(part.values) for part in (text, audio, vision)], dim=1)
        # Normalised rows are never made: N(x) is x times a number a step, plus a number a step.
        states = self.lstm(rows, packing, *self.norm(rows, packing))
        return {"M": self.head(self.dropout(states[packing.last])).squeeze(-1)}


class Aligner(nn.Module):
    """Align rows to words by connectionist temporal classification (Graves et al. 2006; Tsai et al. 2019).

    An LSTM gives every row t a probability p_tj of belonging to word j, or to none (the blank, class 0);
    a word's row is x^_j = sum_t p_tj x_t. The words' order is the label sequence of the CTC loss: that rows
    follow the text is all that is known of them.
    """

    def __init__(self, width: int, hidden: int, words: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, batch_first=True)
        self.project = nn.Linear(hidden, 1 + words)

    def forward(self, rows: Padded, words: Tensor) -> tuple[Tensor, Tensor]:
        """Align rows.

        Parameters
        ----------
        rows
            Values of shape (B, T, D).
        words
            int64 on the CPU, shape (B,): words of each clip.

        Returns
        -------
        Aligned rows, shape (B, words.max(), D), zeros behind a clip's words; and log p, shape
        (B, T, 1 + words.max()), where a clip's probabilities are shared among its own words.
        """
        values, longest = rows.cleared, int(words.max())
        packed = pack_padded_sequence(values, rows.lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=values.shape[1])
        logits = self.project(states)[..., : 1 + longest]
        foreign = torch.arange(1 + longest) > words[:, None]
        # Finite, so that no gradient is an infinity times zero.
        logp = logits.masked_fill(foreign[:, None].to(logits.device), -1e9).log_softmax(dim=-1)
        return logp[..., 1:].exp().transpose(1, 2) @ values, logp

    @staticmethod
    def loss(logp: Tensor, rows: Tensor, words: Tensor) -> Tensor:
        """CTC loss a row, shape (B,): -log p(words in order | rows) / rows; 0 where rows do not suffice."""
        labels = torch.arange(1, logp.shape[-1]).expand(len(words), -1)
        loss = ctc_loss(
            logp.transpose(0, 1), labels, rows, words, blank=0, reduction="none", zero_infinity=True
        )
        return loss / rows.to(loss.device)


class UnrolledLSTM(nn.LSTMCell):
    """An LSTM that tells its memories c too, at every step (which `nn.LSTM` keeps to itself)."""

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Map shape (B, L, D) to h and c, shape (B, L, H) each."""
        seen = linear(input, self.weight_ih, self.bias_ih + self.bias_hh)
        hidden = memory = input.new_zeros(len(input), self.hidden_size)
        states = []
        for step in seen.unbind(dim=1):
            entered, kept, proposed, shown = (step + hidden @ self.weight_hh.T).chunk(4, dim=-1)
            memory = torch.sigmoid(kept) * memory + torch.sigmoid(entered) * torch.tanh(proposed)
            hidden = torch.sigmoid(shown) * torch.tanh(memory)
            states.append((hidden, memory))
        hs, cs = zip(*states, strict=True)
        return torch.stack(hs, dim=1), torch.stack(cs, dim=1)


class MemoryFusion(nn.Module):
    """Memory fusion network (Zadeh et al. 2018), aligned to the words by CTC.

    By step t, with c_t the three LSTMs' memories side by side and c^ those of steps t-1 and t:

        a = softmax(D_a(c^)),  k = a * c^,  u^ = tanh(D_u(k)),
        u_t = sigmoid(D_1([k; u_t-1])) * u_t-1 + sigmoid(D_2([k; u_t-1])) * u^,  y = D_o([h_T; u_T]).

    ``cells`` are the LSTMs, ``attention`` is D_a, ``proposal`` D_u, ``retain`` D_1, ``update`` D_2 (D_gamma1
    and D_gamma2 in the paper), ``output`` D_o. As in its authors' program the gates see the memory u too.
    With 768, 33 and 709 columns there are 601,505 parameters, and the aligners', where there are any.

    Parameters
    ----------
    length
        Longest text, in words of the aligners.
    """

    def __init__(self, settings: MemoryFusionSettings, widths: InputWidths, length: int) -> None:
        super().__init__()
        hidden, memory = settings.hidden, settings.memory
        states = hidden.text + hidden.audio + hidden.vision
        attended = states * settings.window
        self.aligners = nn.ModuleDict()
        if settings.aligner is not None:
            for name in ("audio", "vision"):
                self.aligners[name] = Aligner(getattr(widths, name), settings.aligner, length)
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
        """Predict M, shape (B,), from rows of three clocks, shapes (B, L_u, widths).

        In training there is an ``auxiliary`` loss too, shape (B,): the aligners'. Without aligners, audio and
        vision come word by word.
        """
        words = text.lengths
        of = {"text": text.cleared[:, : int(words.max())], "audio": audio.cleared, "vision": vision.cleared}
        loss = torch.zeros(())
        for (name, aligner), rows in zip(self.aligners.items(), (audio, vision), strict=False):
            of[name], logp = aligner(rows, words)
            if self.training:
                loss = loss + Aligner.loss(logp, rows.lengths, words)
        runs = [cell(of[name]) for name, cell in self.cells.items()]
        hidden, cells = (torch.cat(parts, dim=-1) for parts in zip(*runs, strict=True))
        memories = self.remember(cells)
        last = torch.arange(len(words)), words - 1  # later steps are padding, and nothing looks ahead
        out = {"M": self.output(torch.cat([hidden[last], memories[last]], dim=-1)).squeeze(-1)}
        if self.training and len(self.aligners):
            out["auxiliary"] = self.aligner_weight * loss
        return out

    def remember(self, cells: Tensor) -> Tensor:
        """Delta-memory attention and the multi-view gated memory: c, shape (B, L, C), to u, (B, L, memory).

        All that does not depend on u is computed for the whole sequence at once.
        """
        windows = pad(cells, (0, 0, self.window - 1, 0)).unfold(1, self.window, 1)
        together = windows.transpose(2, 3).flatten(2)
        attended = self.attention(together).softmax(dim=-1) * together
        proposal = torch.tanh(self.proposal(attended))
        gates = [(gate, *_halves(gate, attended)) for gate in (self.retain, self.update)]
        memory, memories = cells.new_zeros(len(cells), self.memory), []
        for step in range(cells.shape[1]):
            retain, update = (
                torch.sigmoid(gate.linear_2(gate.dropout(relu(seen[:, step] + memory @ weight.T))))
                for gate, seen, weight in gates
            )
            memory = retain * memory + update * proposal[:, step]
            memories.append(memory)
        return torch.stack(memories, dim=1)


def _perceptron(width: int, layer: Layer, out: int) -> Perceptron:
    return Perceptron(width, layer.width, out, layer.dropout)


def _halves(gate: Perceptron, attended: Tensor) -> tuple[Tensor, Tensor]:
    """A gate's first layer, of [k; u]: what k gives at every step, and the weights that are left for u."""
    weight = gate.linear_1.weight
    width = attended.shape[-1]
    return linear(attended, weight[:, :width], gate.linear_1.bias), weight[:, width:]
