"""The nine systems written plainly, as their papers' public programs compute them: the baseline of `trainer.py`.

Dense padded batches, stock LSTMs over the padding, the full fusion tensor, attention by torch's own
`MultiheadAttention`. Widths and rates are those of our settings, so that both have the same layers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from triptych.pipeline.trainer.models.early_fusion import EarlyFusionSettings
from triptych.pipeline.trainer.models.late_fusion import LateFusionSettings
from triptych.pipeline.trainer.models.low_rank import LowRankSettings
from triptych.pipeline.trainer.models.memory_fusion import MemoryFusionSettings
from triptych.pipeline.trainer.models.subnetworks import SubnetworkSettings
from triptych.pipeline.trainer.models.tensor_fusion import TensorFusionSettings
from triptych.pipeline.trainer.models.transformer import TransformerSettings
from triptych.pipeline.trainer.settings import MODALITIES, SystemSettings

WIDTHS = {"text": 768, "audio": 33, "vision": 709}
LENGTHS = {"text": 39, "audio": 400, "vision": 55}


def build_plain(settings: SystemSettings) -> nn.Module:
    match settings:
        case SubnetworkSettings():
            return Fused(settings)
        case EarlyFusionSettings():
            return EarlyFusion(settings)
        case MemoryFusionSettings():
            return MemoryFusion(settings)
        case TransformerSettings():
            return CrossmodalTransformer(settings)
    raise TypeError(type(settings).__name__)


class Text(nn.Module):
    def __init__(self, hidden: int, out: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(WIDTHS["text"], hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden, out)

    def forward(self, text: Tensor) -> Tensor:
        _, (state, _) = self.lstm(text)
        return self.linear(self.dropout(state.squeeze(0)))


def pooled(width: int, hidden: int, dropout: float) -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm1d(width),
        nn.Dropout(dropout),
        *(nn.Linear(width, hidden), nn.ReLU()),
        *(nn.Linear(hidden, hidden), nn.ReLU()),
        *(nn.Linear(hidden, hidden), nn.ReLU()),
    )


def head(width: int, hidden: int, dropout: float) -> nn.Module:
    return nn.Sequential(
        nn.Dropout(dropout),
        *(nn.Linear(width, hidden), nn.ReLU()),
        *(nn.Linear(hidden, hidden), nn.ReLU()),
        nn.Linear(hidden, 1),
    )


def with_one(x: Tensor) -> Tensor:
    return torch.cat([torch.ones(len(x), 1), x], dim=1)


class Fused(nn.Module):
    """LF-DNN, TFN, LMF and their multi-task twins."""

    def __init__(self, settings: SubnetworkSettings) -> None:
        super().__init__()
        hidden, dropout = settings.hidden, settings.dropout
        self.text = Text(hidden.text, settings.text_out, dropout.text)
        self.audio = pooled(WIDTHS["audio"], hidden.audio, dropout.audio)
        self.vision = pooled(WIDTHS["vision"], hidden.vision, dropout.vision)
        sizes = {"T": settings.text_out, "A": hidden.audio, "V": hidden.vision}
        self.settings = settings
        self.heads = nn.ModuleDict(
            {
                t: head(sizes[t], settings.head_widths[t], settings.head_dropout)
                for t in settings.tasks
                if t != "M"
            }
        )
        if isinstance(settings, LateFusionSettings):
            self.fused = head(sum(sizes.values()), settings.head_widths["M"], settings.head_dropout)
        elif isinstance(settings, TensorFusionSettings):
            elements = math.prod(1 + size for size in sizes.values())
            self.fused = head(elements, settings.head_widths["M"], settings.head_dropout)
        elif isinstance(settings, LowRankSettings):
            self.factors = nn.ParameterDict(
                {
                    t: nn.init.xavier_normal_(torch.empty(settings.rank, 1 + size, 1))
                    for t, size in sizes.items()
                }
            )
            self.weights = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, settings.rank)))
            self.bias = nn.Parameter(torch.zeros(1, 1))

    def forward(self, text: Tensor, audio: Tensor, vision: Tensor) -> dict[str, Tensor]:
        found = {
            "T": self.text(text),
            "A": self.audio(audio.squeeze(1)),
            "V": self.vision(vision.squeeze(1)),
        }
        outputs = {task: part(found[task]) for task, part in self.heads.items()}
        if isinstance(self.settings, LateFusionSettings):
            return {"M": self.fused(torch.cat(list(found.values()), dim=1)), **outputs}
        ones = {task: with_one(x) for task, x in found.items()}
        if isinstance(self.settings, LowRankSettings):
            ranks = math.prod(ones[task] @ self.factors[task] for task in ones)
            return {"M": (self.weights @ ranks.permute(1, 0, 2)).squeeze(-1) + self.bias, **outputs}
        pair = torch.bmm(ones["A"].unsqueeze(2), ones["V"].unsqueeze(1)).view(len(text), -1, 1)
        tensor = torch.bmm(pair, ones["T"].unsqueeze(1)).view(len(text), -1)
        limit = self.settings.output_range
        return {"M": torch.sigmoid(self.fused(tensor)) * 2 * limit - limit, **outputs}


def to_tokens(x: Tensor) -> Tensor:
    """Average rows to the text's length, the last row repeated as far as needed."""
    tokens = LENGTHS["text"]
    share = -(-x.shape[1] // tokens)
    more = x[:, -1:].expand(-1, share * tokens - x.shape[1], -1)
    return torch.cat([x, more], dim=1).view(len(x), tokens, share, -1).mean(dim=2)


class EarlyFusion(nn.Module):
    def __init__(self, settings: EarlyFusionSettings) -> None:
        super().__init__()
        width = settings.hidden
        self.norm = nn.BatchNorm1d(LENGTHS["text"])
        self.lstm = nn.LSTM(
            sum(WIDTHS.values()), width, settings.layers, dropout=settings.dropout, batch_first=True
        )
        self.dropout = nn.Dropout(settings.dropout)
        self.linear, self.out = nn.Linear(width, width), nn.Linear(width, 1)

    def forward(self, text: Tensor, audio: Tensor, vision: Tensor) -> dict[str, Tensor]:
        x = self.norm(torch.cat([text, to_tokens(audio), to_tokens(vision)], dim=-1))
        _, (state, _) = self.lstm(x)
        return {"M": self.out(self.dropout(torch.relu(self.linear(self.dropout(state[-1])))))}


class MemoryFusion(nn.Module):
    def __init__(self, settings: MemoryFusionSettings) -> None:
        super().__init__()
        hidden, memory = settings.hidden, settings.memory
        self.sizes = {name: getattr(hidden, name) for name in MODALITIES}
        states = sum(self.sizes.values())
        seen = states * settings.window
        self.cells = nn.ModuleDict({n: nn.LSTMCell(WIDTHS[n], size) for n, size in self.sizes.items()})

        def two(width: int, layer: object, out: int) -> nn.Module:
            return nn.Sequential(
                nn.Linear(width, layer.width),
                nn.ReLU(),
                nn.Dropout(layer.dropout),
                nn.Linear(layer.width, out),
            )

        self.attention = two(seen, settings.attention, seen)
        self.proposal = two(seen, settings.proposal, memory)
        self.retain = two(seen + memory, settings.retain, memory)
        self.update = two(seen + memory, settings.update, memory)
        self.out = two(states + memory, settings.output, 1)
        self.memory = memory

    def forward(self, text: Tensor, audio: Tensor, vision: Tensor) -> dict[str, Tensor]:
        rows = {"text": text, "audio": to_tokens(audio), "vision": to_tokens(vision)}
        states = {n: (torch.zeros(len(text), s), torch.zeros(len(text), s)) for n, s in self.sizes.items()}
        memory = torch.zeros(len(text), self.memory)
        for step in range(text.shape[1]):
            before = torch.cat([c for _, c in states.values()], dim=1)
            states = {name: cell(rows[name][:, step], states[name]) for name, cell in self.cells.items()}
            both = torch.cat([before, *(c for _, c in states.values())], dim=1)
            attended = torch.softmax(self.attention(both), dim=1) * both
            proposal = torch.tanh(self.proposal(attended))
            gate_input = torch.cat([attended, memory], dim=1)
            retain = torch.sigmoid(self.retain(gate_input))
            memory = retain * memory + torch.sigmoid(self.update(gate_input)) * proposal
        return {"M": self.out(torch.cat([*(h for h, _ in states.values()), memory], dim=1))}


class Block(nn.Module):
    def __init__(self, width: int, settings: TransformerSettings, rate: float) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, settings.heads, dropout=rate, batch_first=True)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.ReLU(),
            nn.Dropout(settings.relu_dropout),
            nn.Linear(4 * width, width),
        )
        self.dropout = nn.Dropout(settings.residual_dropout)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        keys = self.norm_1(y)
        found, _ = self.attention(self.norm_1(x), keys, keys)  # and the attention itself, averaged over heads
        x = x + self.dropout(found)
        return x + self.dropout(self.feed(self.norm_2(x)))


class Transformer(nn.Module):
    def __init__(self, width: int, layers: int, settings: TransformerSettings, rate: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, settings, rate) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(settings.embedding_dropout)

    def embed(self, x: Tensor) -> Tensor:
        length, width = x.shape[1:]
        rates = torch.exp(torch.arange(width // 2) * (-math.log(10000) / (width // 2 - 1)))
        angles = torch.arange(1, length + 1)[:, None] * rates
        return self.dropout(math.sqrt(width) * x + torch.cat([angles.sin(), angles.cos()], dim=1))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.embed(x)
        y = None if y is None else self.embed(y)
        for block in self.blocks:
            x = block(x, x if y is None else y)
        return self.norm(x)


class CrossmodalTransformer(nn.Module):
    def __init__(self, settings: TransformerSettings) -> None:
        super().__init__()
        width, kernels, rates = settings.width, settings.kernels, settings.attention_dropout
        self.convolutions = nn.ModuleDict(
            {n: nn.Conv1d(WIDTHS[n], width, getattr(kernels, n), bias=False) for n in MODALITIES}
        )
        self.crossmodal = nn.ModuleDict(
            {
                f"{a}_{b}": Transformer(width, settings.layers, settings, getattr(rates, b))
                for a in MODALITIES
                for b in MODALITIES
                if a != b
            }
        )
        self.memory = nn.ModuleDict(
            {
                n: Transformer(2 * width, settings.memory_layers, settings, settings.memory_dropout)
                for n in MODALITIES
            }
        )
        self.linear_1, self.linear_2 = (nn.Linear(6 * width, 6 * width) for _ in range(2))
        self.out = nn.Linear(6 * width, 1)
        self.text_dropout, self.dropout = (
            nn.Dropout(settings.text_dropout),
            nn.Dropout(settings.output_dropout),
        )

    def forward(self, text: Tensor, audio: Tensor, vision: Tensor) -> dict[str, Tensor]:
        given = {"text": self.text_dropout(text), "audio": audio, "vision": vision}
        rows = {n: self.convolutions[n](x.transpose(1, 2)).transpose(1, 2) for n, x in given.items()}
        states = []
        for a in MODALITIES:
            crossed = [self.crossmodal[f"{a}_{b}"](rows[a], rows[b]) for b in MODALITIES if a != b]
            states.append(self.memory[a](torch.cat(crossed, dim=-1))[:, -1])
        state = torch.cat(states, dim=-1)
        return {"M": self.out(state + self.linear_2(self.dropout(torch.relu(self.linear_1(state)))))}
