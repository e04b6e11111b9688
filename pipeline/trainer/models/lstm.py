"""LSTMs over ragged rows, without computing the padding."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import dropout, linear


class Packing(NamedTuple):
    """The order of clips' rows when they are packed step by step, the longest clip first.

    Attributes
    ----------
    clips, steps
        int64, shape (N,) each, N being the sum of lengths: each packed row's clip and step.
    before
        int64, shape (N,): the packed row of the same clip one step earlier; at step 0 the row itself.
    last
        int64, shape (B,): each clip's last packed row, clips in their own order.
    sizes
        Number of clips with at least this many steps.
    """

    clips: Tensor
    steps: Tensor
    before: Tensor
    last: Tensor
    sizes: list[int]

    @classmethod
    def of(cls, lengths: Tensor, device: torch.device | None = None) -> Packing:
        """Pack clips of these lengths (on the CPU, shape (B,), at least 1 each); the indices are on `device`."""
        ordered, order = lengths.sort(descending=True, stable=True)
        steps, ranks = (torch.arange(int(ordered[0]))[:, None] < ordered).nonzero(as_tuple=True)
        sizes = torch.bincount(steps)
        starts = sizes.cumsum(0) - sizes
        before = torch.where(steps > 0, starts[(steps - 1).clamp(min=0)] + ranks, ranks)
        last = torch.empty_like(order).scatter_(0, order, starts[ordered - 1] + torch.arange(len(order)))
        clips, steps, before, last = (index.to(device) for index in (order[ranks], steps, before, last))
        return cls(clips, steps, before, last, sizes.tolist())

    def pack(self, values: Tensor) -> Tensor:
        """Lay shape (B, L, D) out as (N, D)."""
        return values.flatten(0, 1).index_select(0, self.clips * values.shape[1] + self.steps)


class PackedLSTM(nn.LSTM):
    """`torch.nn.LSTM`, its parameters and its numbers, over packed rows.

    The input's part of the gates is one matrix product for all steps, and so are the gradients of the weights. Only
    the part that depends on the previous step is computed step by step.
    """

    def forward(  # type: ignore[override]
        self, rows: Tensor, packing: Packing, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        """Map packed rows, shape (N, D), to the last layer's states h, shape (N, H).

        With a scale and a shift, shape (N, 1) each, the rows are ``rows * scale + shift``.
        """
        for layer in range(self.num_layers):
            into, across, bias, other = (getattr(self, name) for name in self._all_weights[layer])
            if layer == 0 and scale is not None and shift is not None:
                gates = linear(rows, into) * scale + shift * into.sum(dim=1) + (bias + other)
            else:
                dropped = dropout(rows, self.dropout, self.training) if layer else rows
                gates = linear(dropped, into, bias + other)
            rows = _Recurrence.apply(gates, across, packing)  # type: ignore[no-untyped-call]
        return rows


class _Recurrence(torch.autograd.Function):
    """i, f, o = sigmoid(x + W h), u = tanh(x + W h), c = f c + i u, h = o tanh(c); the gates stand as i, f, u, o."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, packing: Packing) -> Tensor:
        width = weight.shape[1]
        gates = torch.empty_like(inputs)
        cells, squashed, hidden = (inputs.new_empty(len(inputs), width) for _ in range(3))
        start, before = 0, 0
        for size in packing.sizes:
            now, then = slice(start, start + size), slice(before, before + size)
            gate, cell = gates[now], cells[now]
            if start:
                torch.addmm(inputs[now], hidden[then], weight.T, out=gate)
            else:
                gate.copy_(inputs[now])
            gate[:, : 2 * width].sigmoid_()
            gate[:, 2 * width : 3 * width].tanh_()
            gate[:, 3 * width :].sigmoid_()
            entry, forget, proposal, output = gate.chunk(4, dim=1)
            torch.mul(entry, proposal, out=cell)
            if start:
                cell.addcmul_(forget, cells[then])
            torch.mul(torch.tanh(cell, out=squashed[now]), output, out=hidden[now])
            start, before = start + size, start
        ctx.save_for_backward(gates, cells, squashed, hidden, weight)
        ctx.packing = packing
        return hidden

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gates, cells, squashed, hidden, weight = ctx.saved_tensors
        packing: Packing = ctx.packing
        first, width = packing.sizes[0], weight.shape[1]
        entry, forget, proposal, output = gates.chunk(4, dim=1)
        # The factors of each step's gradients, for all steps at once.
        to_cell = output * (1 - squashed * squashed)
        to_output = squashed * output * (1 - output)
        to_gates = gates.new_empty(len(gates), 3, width)
        torch.mul(proposal, entry * (1 - entry), out=to_gates[:, 0])
        torch.mul(cells.index_select(0, packing.before), forget * (1 - forget), out=to_gates[:, 1])
        to_gates[:first, 1] = 0  # there is no cell before step 0
        torch.mul(entry, 1 - proposal * proposal, out=to_gates[:, 2])
        gate_gradients = torch.empty_like(gates)
        by_gate = gate_gradients.view(-1, 4, width)
        stop, carried, carried_cell = len(gates), None, None
        for size in reversed(packing.sizes):
            now = slice(stop - size, stop)
            state = gradient[now]
            if carried is not None:
                state = state.clone()
                state[: len(carried)] += carried
            cell = state * to_cell[now]
            if carried_cell is not None:
                cell[: len(carried_cell)] += carried_cell
            torch.mul(cell[:, None], to_gates[now], out=by_gate[now, :3])
            torch.mul(state, to_output[now], out=by_gate[now, 3])
            carried, carried_cell = gate_gradients[now] @ weight, cell * forget[now]
            stop -= size
        earlier = hidden.index_select(0, packing.before[first:])
        return gate_gradients, gate_gradients[first:].T @ earlier, None
