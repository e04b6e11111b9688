import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from triptych.pipeline.trainer.models.lstm import PackedLSTM, Packing

LENGTHS = torch.tensor([3, 6, 1, 6, 2])


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize(
    "lengths", [LENGTHS, torch.tensor([4]), torch.tensor([1, 1]), torch.tensor([5, 5, 5])]
)
def test_states_and_gradients_are_torchs_own(lengths, layers):
    torch.manual_seed(0)
    ours, theirs = PackedLSTM(4, 3, layers).double(), nn.LSTM(4, 3, layers, batch_first=True).double()
    theirs.load_state_dict(ours.state_dict())
    values = torch.randn(len(lengths), int(lengths.max()) + 2, 4, dtype=torch.float64)
    copies = [values.clone().requires_grad_() for _ in range(2)]
    packing = Packing.of(lengths)
    found = ours(packing.pack(copies[0]), packing)
    packed, (state, _) = theirs(
        pack_padded_sequence(copies[1], lengths, batch_first=True, enforce_sorted=False)
    )
    padded, _ = pad_packed_sequence(packed, batch_first=True, total_length=values.shape[1])
    torch.testing.assert_close(found[packing.last], state[-1], atol=1e-12, rtol=0)
    torch.testing.assert_close(found, packing.pack(padded), atol=1e-12, rtol=0)
    weights = torch.randn_like(found)
    (found * weights).sum().backward()
    (packing.pack(padded) * weights).sum().backward()
    for one, other in zip([copies[0], *ours.parameters()], [copies[1], *theirs.parameters()], strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-12, rtol=0)


def test_gradients_by_differences():
    torch.manual_seed(0)
    lstm = PackedLSTM(3, 2).double()
    packing = Packing.of(LENGTHS)
    rows = torch.randn(int(LENGTHS.sum()), 3, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*lstm.named_parameters(), strict=True)

    def states(rows, *weights):
        return torch.func.functional_call(lstm, dict(zip(names, weights, strict=True)), (rows, packing))

    assert torch.autograd.gradcheck(states, (rows, *parameters))


def test_dropout_falls_between_layers_in_training_alone():
    torch.manual_seed(0)
    lstm = PackedLSTM(3, 4, 2, dropout=0.5)
    packing = Packing.of(LENGTHS)
    rows = torch.randn(int(LENGTHS.sum()), 3)
    assert not torch.equal(lstm(rows, packing), lstm(rows, packing))
    lstm.eval()
    assert torch.equal(lstm(rows, packing), lstm(rows, packing))


def test_packed_rows_stand_step_by_step():
    packing = Packing.of(torch.tensor([1, 3, 2]))
    assert packing.sizes == [3, 2, 1]
    assert packing.clips.tolist() == [1, 2, 0, 1, 2, 1]
    assert packing.pack(torch.arange(12).view(3, 4, 1)).flatten().tolist() == [4, 8, 0, 5, 9, 6]
    assert packing.steps.tolist() == [0, 0, 0, 1, 1, 2]
    assert packing.before.tolist() == [0, 1, 2, 0, 1, 3]
    assert packing.last.tolist() == [2, 5, 4]


def test_a_scale_and_a_shift_are_those_of_the_rows():
    torch.manual_seed(0)
    lstm, packing = PackedLSTM(3, 4, 2).double(), Packing.of(LENGTHS)
    rows = torch.randn(int(LENGTHS.sum()), 3, dtype=torch.float64)
    scale, shift = torch.randn(2, len(rows), 1, dtype=torch.float64)
    expected = lstm(rows * scale + shift, packing)
    torch.testing.assert_close(lstm(rows, packing, scale, shift), expected, atol=1e-12, rtol=0)
