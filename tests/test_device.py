"""One device through training, evaluation and prediction.

Torch's ``meta`` device stands in for a GPU in a system's forward and backward pass: like one it refuses to
combine its tensors with those of the CPU.
"""

import pytest
import torch
from click.testing import CliRunner
from small_systems import make_inputs, narrow, tiny_settings
from synthetic_store import make_store

from triptych.pipeline.cli.main import cli
from triptych.pipeline.environment.device import check_device
from triptych.pipeline.errors import InputError
from triptych.pipeline.trainer import training
from triptych.pipeline.trainer.data.clips import load
from triptych.pipeline.trainer.data.standardising import Normaliser, Ragged, SplitTensors
from triptych.pipeline.trainer.models.inputs import InputWidths, Padded
from triptych.pipeline.trainer.models.memory_fusion import MemoryFusion
from triptych.pipeline.trainer.models.tensor_fusion import TensorProduct
from triptych.pipeline.trainer.runs.checkpoint import Origin, checkpoint_bytes, load_checkpoint
from triptych.pipeline.trainer.systems import SYSTEMS, build
from triptych.pipeline.trainer.training import evaluate, train

META = torch.device("meta")
WIDTHS = InputWidths(5, 4, 6)


@pytest.fixture(scope="module")
def data():
    return load(make_store(20, shorter=4, tokens_about=6), sequences=True)


def on_meta(part):
    if isinstance(part, torch.Tensor):
        return part.to(META, torch.float32)
    return Padded(part.values.to(META, torch.float32), part.mask.to(META), part.lengths)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_computes_on_the_device_of_its_inputs(name):
    changes = {"aligner": None} if name == "mfn" else {}  # CTC has no meta kernel
    settings = tiny_settings(name, **changes)
    model = build(settings, WIDTHS, 7).to(META).train()
    outputs = model(*map(on_meta, make_inputs(settings.view)))
    assert {values.device for values in outputs.values()} == {META}
    sum(values.sum() for values in outputs.values()).backward()
    assert {parameter.grad.device for parameter in model.parameters()} == {META}
    outputs = model.eval()(*map(on_meta, make_inputs(settings.view)))
    assert {values.device for values in outputs.values()} == {META}


def test_dropout_of_the_fusion_tensor_draws_on_its_device(monkeypatch):
    """Torch has no generator for `meta`: a stub that seeds nothing replaces it."""
    devices = []

    class Unseeded:
        def __init__(self, device):
            devices.append(device)

        def manual_seed(self, seed):
            return None

    monkeypatch.setattr(torch, "Generator", Unseeded)
    product = TensorProduct(4, 3, 5, 6, 0.5).to(META).train()
    mapped = product(*(torch.zeros(7, width, device=META) for width in (4, 3, 5)))
    mapped.sum().backward()
    assert mapped.device == META
    assert devices == [META]


def test_ctc_gets_lengths_on_the_cpu_and_labels_on_device(monkeypatch):
    from triptych.pipeline.trainer.models import memory_fusion

    seen = []
    ctc_loss = memory_fusion.ctc_loss

    def recorded(logp, labels, rows, tokens, **options):
        seen.append((labels.device == logp.device, rows.device.type, tokens.device.type))
        return ctc_loss(logp, labels, rows, tokens, **options)

    monkeypatch.setattr(memory_fusion, "ctc_loss", recorded)
    model: MemoryFusion = build(tiny_settings("mfn"), WIDTHS, 7).double().train()
    model(*make_inputs("rows"))
    assert seen == [(True, "cpu", "cpu")] * 2


def test_a_split_moves_as_a_whole_and_its_lengths_stay(data):
    clips = Normaliser.fit(data, data.split("train")).apply(data, data.split("train"), "rows").to(META)
    assert {clips.text.values.device, clips.audio.valid.device, clips.vision.values.device} == {META}
    assert clips.labels.device == META
    assert clips.text.lengths.device.type == "cpu"
    for part in clips.inputs(torch.arange(3)):
        assert (part.values.device, part.mask.device, part.lengths.device.type) == (META, META, "cpu")
    means = Normaliser.fit(data, data.split("train")).apply(data, data.split("train")).to(META)
    assert means.inputs(torch.arange(3))[1].device == META


def test_clips_are_moved_once_to_the_device_that_is_given(data, monkeypatch):
    """Training moves train and valid split once, evaluation and prediction the clips that they read."""
    moved, built = [], []
    to, move = SplitTensors.to, torch.nn.Module.to

    def counted(self, device):
        moved.append((len(self), device))
        return to(self, device)

    def placed(self, *arguments):
        built.append(arguments)
        return move(self, *arguments)

    monkeypatch.setattr(SplitTensors, "to", counted)
    monkeypatch.setattr(torch.nn.Module, "to", placed)
    device = torch.device("cpu")
    trained = train(data, narrow("lmf", max_epochs=3), 1, data.split("train"), data.split("valid"), "cpu")
    assert moved == [(12, device), (4, device)]
    assert built == [(device,)]
    evaluate(trained, data, data.split("test"))
    assert moved[2:] == [(4, device)]


def test_large_parameters_keep_their_step_on_their_device():
    settings = narrow("lmf")
    model = build(settings, WIDTHS, 7).to(META)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "LARGE", 1)
        made = []
        adam = torch.optim.Adam
        patch.setattr(
            torch.optim, "Adam", lambda groups, **options: made.append(adam(groups, lr=1e-3)) or made[-1]
        )
        with training.adam(model, settings):
            pass
    states = [state for optimiser in made for state in optimiser.state.values()]
    assert states
    assert {value.device for state in states for value in state.values()} == {META}


def test_a_checkpoint_has_tensors_on_the_cpu_alone(data, tmp_path):
    trained = train(data, narrow("lmf", max_epochs=1), 1, data.split("train"), data.split("valid"))
    path = tmp_path / "seed-1.pt"
    path.write_bytes(checkpoint_bytes(trained, Origin("lmf", {})))
    content = torch.load(path, weights_only=True)  # without a map_location: as saved
    assert {value.device.type for value in content["state_dict"].values()} == {"cpu"}
    assert load_checkpoint(path, "meta").device == META
    assert load_checkpoint(path).device.type == "cpu"


def test_a_device_that_is_not_available_is_one_clear_error(monkeypatch, tmp_path):
    check_device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"--device cuda: torch .* leave the option out"):
        check_device("cuda")


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--model", "lmf"],
        ["tune", "--model", "lmf"],
        *(["experiment", name] for name in ("table2", "table4", "table5", "figure4")),
    ],
)
def test_commands_refuse_a_missing_gpu_before_they_work(words, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "recipe.json").write_text('{"recipe": {}, "fingerprints": {}}')
    (tmp_path / "manifest.csv").write_text("id,path,text\n")
    *group, name = [word for word in words if word not in ("--model", "lmf")]
    options = words[len(group) + 1 :]
    done = CliRunner().invoke(
        cli, [*group, name, str(tmp_path), *options, "-o", str(tmp_path / "out"), "--device", "cuda"]
    )
    assert isinstance(done.exception, InputError), done.output
    assert "--device cuda" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_ragged_rows_are_the_same_after_a_move():
    ragged = Ragged.of([(torch.ones(2, 3), torch.ones(2, dtype=torch.bool))])
    moved = ragged.to(torch.device("cpu"))
    assert torch.equal(moved.take(torch.tensor([0])).values, ragged.take(torch.tensor([0])).values)
