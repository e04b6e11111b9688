"""What the systems share: one text, one audio/visual sub-network, one head."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import batch_norm, relu
from torch.nn.utils.rnn import pack_padded_sequence


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation that takes a batch of one too.

    One sample has no variance: in training it is normalised by the running statistics, which it leaves
    as they are. Any larger batch goes the usual way.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise shape (B, D) by column."""
        if self.training and len(input) == 1:
            return batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


class TextSubnetwork(nn.Module):
    """LSTM over a text's token embeddings, read at the text's own last token, then a linear map.

    Padding is packed away: it enters neither the state nor the cost.
    """

    def __init__(self, width: int, hidden: int, out: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(hidden, out)

    def forward(self, text: Tensor, lengths: Tensor) -> Tensor:
        """Map tokens to one representation a clip.

        Parameters
        ----------
        text
            float32, shape (B, L, width); rows from ``lengths`` on are ignored.
        lengths
            int64 on the CPU, shape (B,), 1 to L.

        Returns
        -------
        shape (B, out).
        """
        packed = pack_padded_sequence(text, lengths, batch_first=True, enforce_sorted=False)
        _, (state, _) = self.lstm(packed)
        out: Tensor = self.project(self.dropout(state[-1]))
        return out


class PooledSubnetwork(nn.Module):
    """Three-layer DNN over a clip's mean audio or vision row."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = BatchNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.linear_1 = nn.Linear(width, hidden)
        self.linear_2 = nn.Linear(hidden, hidden)
        self.linear_3 = nn.Linear(hidden, hidden)

    def forward(self, rows: Tensor) -> Tensor:
        """Map shape (B, width) to shape (B, hidden)."""
        x = self.dropout(self.norm(rows))
        return relu(self.linear_3(relu(self.linear_2(relu(self.linear_1(x))))))


class Head(nn.Module):
    """Three-layer DNN from a representation to one task's sentiment."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear_1 = nn.Linear(width, hidden)
        self.linear_2 = nn.Linear(hidden, hidden)
        self.linear_3 = nn.Linear(hidden, 1)

    def forward(self, representation: Tensor) -> Tensor:
        """Map shape (B, width) to shape (B,)."""
        x = relu(self.linear_1(self.dropout(representation)))
        out: Tensor = self.linear_3(relu(self.linear_2(x)))
        return out.squeeze(-1)
