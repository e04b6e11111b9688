from itertools import product

import pytest
import torch
from small_systems import TEXT_LENGTH, WIDTHS, make_inputs, scrambled, tiny_model, tiny_settings

from triptych.pipeline.trainer.models.inputs import InputWidths, Padded
from triptych.pipeline.trainer.models.late_fusion import LateFusionSettings
from triptych.pipeline.trainer.models.subnetworks import BatchNorm
from triptych.pipeline.trainer.models.transformer import TransformerSettings
from triptych.pipeline.trainer.search.grid import at
from triptych.pipeline.trainer.settings import MODALITIES
from triptych.pipeline.trainer.systems import SYSTEMS, build

PAPER = InputWidths(768, 33, 709)
PARAMETERS = {
    "ef-lstm": 215_695,
    "mfn": 601_505,
    "mult": 1_870_701,
    "lf-dnn": 635_821,
    "mlf-dnn": 283_388,
    "tfn": 35_632_077,
    "mtfn": 140_957_188,
    "lmf": 272_381,
    "mlmf": 1_413_392,
}


def modal(text, audio, vision):
    return {"text": text, "audio": audio, "vision": vision}


def layer(width, dropout):
    return {"width": width, "dropout": dropout}


# What the reference uses for CH-SIMS, but for MTFN's alpha_A: its 0 leaves the audio head untrained.
COMMON = {
    "accumulate": 1,
    "gradient_clip": None,
    "clip_batches": False,
    "patience": 8,
    "max_epochs": 200,
    "padding": "masked",
}
SETTINGS = {
    "ef-lstm": {
        "family": "early-fusion",
        "batch_size": 128,
        "learning_rate": 5e-4,
        "weight_decay": 1e-3,
        "task_weights": {"M": 1},
        "hidden": 32,
        "layers": 3,
        "dropout": 0.5,
    },
    "mfn": {
        "family": "memory-fusion",
        "batch_size": 32,
        "learning_rate": 1e-3,
        "weight_decay": 0,
        "task_weights": {"M": 1},
        "hidden": modal(64, 16, 64),
        "memory": 64,
        "window": 2,
        "attention": layer(128, 0.2),
        "proposal": layer(128, 0),
        "retain": layer(64, 0.2),
        "update": layer(64, 0.7),
        "output": layer(64, 0.7),
        "aligner": 32,
        "repeat_mean": False,
        "aligner_weight": 1,
    },
    "mult": {
        "family": "transformer",
        "batch_size": 16,
        "learning_rate": 2e-3,
        "weight_decay": 1e-3,
        "accumulate": 8,
        "gradient_clip": 0.6,
        "task_weights": {"M": 1},
        "width": 50,
        "heads": 10,
        "layers": 2,
        "memory_layers": 3,
        "kernels": modal(5, 1, 1),
        "attention_dropout": modal(0.2, 0.1, 0),
        "memory_dropout": 0.2,
        "text_dropout": 0.3,
        "embedding_dropout": 0.1,
        "relu_dropout": 0,
        "residual_dropout": 0.2,
        "output_dropout": 0.1,
        "positions": True,
        "causal": False,
    },
    "lf-dnn": {
        "family": "late-fusion",
        "batch_size": 128,
        "learning_rate": 5e-3,
        "weight_decay": 5e-3,
        "subnetwork_decay": modal(5e-3, 5e-3, 5e-3),
        "task_weights": {"M": 1},
        "hidden": modal(128, 32, 128),
        "text_out": 256,
        "head_widths": {"M": 32},
        "dropout": modal(0.3, 0.3, 0.3),
        "head_dropout": 0.5,
    },
    "mlf-dnn": {
        "family": "late-fusion",
        "batch_size": 32,
        "learning_rate": 2e-3,
        "weight_decay": 0,
        "subnetwork_decay": modal(1e-4, 1e-3, 1e-4),
        "task_weights": {"M": 0.6, "T": 0.2, "A": 0.8, "V": 0.8},
        "hidden": modal(64, 32, 64),
        "text_out": 32,
        "head_widths": {"M": 32, "T": 16, "A": 4, "V": 32},
        "dropout": modal(0.3, 0.3, 0.3),
        "head_dropout": 0.5,
    },
    "lmf": {
        "family": "low-rank",
        "batch_size": 64,
        "learning_rate": 2e-3,
        "factor_lr": 5e-4,
        "weight_decay": 5e-3,
        "subnetwork_decay": modal(5e-3, 5e-3, 5e-3),
        "task_weights": {"M": 1},
        "hidden": modal(64, 16, 64),
        "text_out": 32,
        "rank": 4,
        "head_widths": {},
        "dropout": modal(0.2, 0.2, 0.2),
        "head_dropout": 0.2,
    },
    "mlmf": {
        "family": "low-rank",
        "batch_size": 128,
        "learning_rate": 1e-3,
        "factor_lr": 1e-3,
        "weight_decay": 5e-3,
        "subnetwork_decay": modal(1e-4, 0, 1e-4),
        "task_weights": {"M": 0.2, "T": 1, "A": 0.4, "V": 0.8},
        "hidden": modal(256, 32, 256),
        "text_out": 128,
        "rank": 3,
        "head_widths": {"T": 8, "A": 4, "V": 32},
        "dropout": modal(0.3, 0.3, 0.3),
        "head_dropout": 0.4,
    },
    "tfn": {
        "family": "tensor-fusion",
        "batch_size": 32,
        "learning_rate": 5e-4,
        "weight_decay": 0,
        "subnetwork_decay": modal(0, 0, 0),
        "task_weights": {"M": 1},
        "hidden": modal(128, 32, 128),
        "text_out": 256,
        "head_widths": {"M": 32},
        "dropout": modal(0.4, 0.4, 0.4),
        "head_dropout": 0.4,
        "output_range": 3,
    },
    "mtfn": {
        "family": "tensor-fusion",
        "batch_size": 64,
        "learning_rate": 5e-3,
        "weight_decay": 5e-3,
        "subnetwork_decay": modal(1e-3, 1e-4, 1e-5),
        "task_weights": {"M": 0.6, "T": 0.4, "A": 0.2, "V": 1},
        "hidden": modal(256, 32, 256),
        "text_out": 256,
        "head_widths": {"M": 64, "T": 64, "A": 4, "V": 8},
        "dropout": modal(0.2, 0.2, 0.2),
        "head_dropout": 0.2,
        "output_range": 3,
    },
}


def inputs_of(name, **changes):
    return make_inputs(SYSTEMS[name].view, **changes)


@pytest.mark.parametrize("name", SYSTEMS)
def test_parameter_counts_are_the_references(name):
    with torch.device("meta" if "tfn" in name else "cpu"):
        model = build(SYSTEMS[name], PAPER, 39)
    counted = sum(
        parameter.numel() for key, parameter in model.named_parameters() if not key.startswith("aligners.")
    )
    assert counted == PARAMETERS[name]


@pytest.mark.parametrize("name", SYSTEMS)
def test_settings_are_the_references(name):
    assert SYSTEMS[name].model_dump() == COMMON | SETTINGS[name]


@pytest.mark.parametrize("name", SYSTEMS)
def test_outputs_by_task(name):
    outputs = tiny_model(name)(*inputs_of(name))
    assert tuple(outputs) == SYSTEMS[name].tasks
    assert all(values.shape == (4,) for values in outputs.values())


@pytest.mark.parametrize("name", SYSTEMS)
def test_padding_never_leaks(name):
    model = tiny_model(name)
    given = inputs_of(name)
    plain, padded = model(*given), model(*map(scrambled, given))
    for task in plain:
        torch.testing.assert_close(plain[task], padded[task], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SYSTEMS)
def test_padding_never_leaks_into_the_gradients(name):
    model = tiny_model(name).train()
    for norm in (part for part in model.modules() if isinstance(part, BatchNorm)):
        norm.eval()  # a clip's pooled mean is no padding: batch statistics have a test of their own
    found = []
    for given in (inputs_of(name), tuple(map(scrambled, inputs_of(name)))):
        model.zero_grad()
        sum(values.sum() for values in model(*given).values()).backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    for plain, padded in zip(*found, strict=True):
        torch.testing.assert_close(plain, padded, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_clips_output_is_independent_of_its_batch(name):
    model, given = tiny_model(name), inputs_of(name)
    together = model(*given)
    for clip in range(4):
        alone = model(
            *(
                part[clip, None]
                if isinstance(part, torch.Tensor)
                else Padded(
                    *(field[clip, None, : part.lengths[clip]] for field in part[:2]), part.lengths[clip, None]
                )
                for part in given
            )
        )
        for task, values in alone.items():
            torch.testing.assert_close(values[0], together[task][clip], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_input_counts(name):
    model, given = tiny_model(name), inputs_of(name)
    plain = model(*given)["M"]
    for index, part in enumerate(given):
        moved = part + 1 if isinstance(part, torch.Tensor) else part._replace(values=part.values * 1.5 + 1)
        changed = model(*given[:index], moved, *given[index + 1 :])["M"]
        assert not torch.isclose(plain, changed, rtol=0, atol=1e-6).any()


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_batch_of_one_in_training_and_evaluation(name):
    model = build(tiny_settings(name), WIDTHS, TEXT_LENGTH).double()
    one = [
        part[:1]
        if isinstance(part, torch.Tensor)
        else Padded(part.values[:1], part.mask[:1], part.lengths[:1])
        for part in inputs_of(name)
    ]
    outputs = model.train()(*one)
    sum(outputs.values()).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(torch.isfinite(values).all() for values in model.eval()(*one).values())


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_right_in_float64(name, training):
    given, model = inputs_of(name), tiny_model(name).train(training)
    values = [part if isinstance(part, torch.Tensor) else part.values for part in given]
    weights = dict(model.named_parameters())
    draw = torch.Generator().manual_seed(3)
    directions = [
        torch.randn(3, *point.shape, generator=draw, dtype=torch.float64)
        for point in [*values, *weights.values()]
    ]

    def predict(steps):
        """Predict with inputs and weights moved by `steps` along three random directions."""
        moved = [
            point + torch.tensordot(steps, direction, 1)
            for point, direction in zip([*values, *weights.values()], directions, strict=True)
        ]
        filled = [
            value if isinstance(part, torch.Tensor) else part._replace(values=value)
            for part, value in zip(given, moved[:3], strict=True)
        ]
        outputs = torch.func.functional_call(model, dict(zip(weights, moved[3:], strict=True)), tuple(filled))
        return tuple(outputs.values())

    start = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(predict, start, check_undefined_grad=False)


@pytest.mark.parametrize("name", ["mlf-dnn", "mtfn", "mlmf"])
def test_heads_read_their_own_modality(name):
    model = tiny_model(name)
    text, audio, vision = inputs_of(name)
    plain = model(text, audio, vision)
    for changed, tasks in (
        ((text._replace(values=text.values + 1), audio, vision), "MT"),
        ((text, audio + 1, vision), "MA"),
        ((text, audio, vision + 1), "MV"),
    ):
        outputs = model(*changed)
        assert {task for task in plain if not torch.equal(plain[task], outputs[task])} == set(tasks)


BLOCKS = [
    *(f"crossmodal.{a}_{b}.blocks.{i}" for a, b, i in product(MODALITIES, MODALITIES, (0, 1)) if a != b),
    *(f"memory.{name}.blocks.{i}" for name, i in product(MODALITIES, (0, 1))),
]
DROPOUTS = {  # the parts of a system that each rate reaches; "" is the system itself
    "ef-lstm": {"dropout": {"lstm", "dropout", "head.dropout"}},
    "mfn": {
        f"{part}.dropout": {f"{part}.dropout"}
        for part in ("attention", "proposal", "retain", "update", "output")
    },
    "mult": {
        **{
            f"attention_dropout.{source}": {f"{name}.attention" for name in BLOCKS if f"_{source}." in name}
            for source in MODALITIES
        },
        "memory_dropout": {f"{name}.attention" for name in BLOCKS if name.startswith("memory.")},
        "text_dropout": {""},
        "embedding_dropout": {f"{name.split('.blocks')[0]}.dropout" for name in BLOCKS},
        "relu_dropout": {f"{name}.feed.dropout" for name in BLOCKS},
        "residual_dropout": {f"{name}.dropout" for name in BLOCKS},
        "output_dropout": {"residual.dropout"},
    },
    **{
        name: {
            **{f"dropout.{modality}": {f"{modality}.dropout"} for modality in MODALITIES},
            "head_dropout": heads,
        }
        for name, heads in {
            "lf-dnn": {"heads.M.dropout"},
            "mlf-dnn": {f"heads.{task}.dropout" for task in "MTAV"},
            "tfn": {"fusion"},
            "mtfn": {"fusion", *(f"heads.{task}.dropout" for task in "TAV")},
            "lmf": set(),  # M has no hidden units
            "mlmf": {f"heads.{task}.dropout" for task in "TAV"},
        }.items()
    },
}


def drawing_parts(model, given):
    """Names of a model's parts that give another output for the same input, without the parts around them."""
    calls = {}
    hooks = [
        part.register_forward_pre_hook(lambda _, inputs, name=name: calls.update({name: inputs}))
        for name, part in model.named_modules()
    ]
    model(*given)
    for hook in hooks:
        hook.remove()
    drawing = set()
    for name, inputs in calls.items():
        part = model.get_submodule(name)
        first, second = part(*inputs), part(*inputs)
        if not same(first, second):
            drawing.add(name)
    return {
        name
        for name in drawing
        if not any(other.startswith(f"{name}." if name else "") for other in drawing - {name})
    }


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        one, other = one.values(), other.values()
    return all(same(*parts) for parts in zip(one, other, strict=True))


@pytest.mark.parametrize(("name", "rate"), [(name, rate) for name in DROPOUTS for rate in DROPOUTS[name]])
def test_each_dropout_rate_reaches_its_layer(name, rate):
    torch.manual_seed(0)
    model = build(at(tiny_settings(name), {rate: 0.5}), WIDTHS, TEXT_LENGTH).double().train()
    assert drawing_parts(model, inputs_of(name)) == DROPOUTS[name][rate]


@pytest.mark.parametrize("name", SYSTEMS)
def test_dropout_is_off_in_evaluation(name):
    torch.manual_seed(0)
    everywhere = at(tiny_settings(name), dict.fromkeys(DROPOUTS[name], 0.5))
    model, given = build(everywhere, WIDTHS, TEXT_LENGTH).double(), inputs_of(name)
    assert not same(model.train()(*given), model(*given))
    assert same(model.eval()(*given), model(*given))


def test_no_dropout_rate_is_forgotten():
    for name, settings in SYSTEMS.items():
        dumped = settings.model_dump()
        flat = {
            f"{key}.{inner}" for key, value in dumped.items() if isinstance(value, dict) for inner in value
        }
        rates = {
            rate for rate in {*dumped, *flat} if "dropout" in rate and not isinstance(dumped.get(rate), dict)
        }
        assert rates == DROPOUTS[name].keys(), name


def test_batch_norm_of_one_uses_running_statistics():
    norm = BatchNorm(3).train()
    norm(torch.randn(8, 3) * 2 + 1)
    before = norm.running_mean.clone(), norm.running_var.clone()
    one = torch.randn(1, 3)
    trained = norm(one)
    assert torch.equal(norm.running_mean, before[0])
    assert torch.equal(norm.running_var, before[1])
    torch.testing.assert_close(trained, norm.eval()(one))


def test_settings_hold_together():
    numbers = SYSTEMS["mlf-dnn"].model_dump()
    with pytest.raises(ValueError, match="has no M"):
        LateFusionSettings.model_validate({**numbers, "head_widths": {"T": 4}, "task_weights": {"T": 1.0}})
    with pytest.raises(ValueError, match="different tasks"):
        LateFusionSettings.model_validate({**numbers, "task_weights": {"M": 1.0}})
    with pytest.raises(ValueError, match="not a multiple"):
        TransformerSettings.model_validate({**SYSTEMS["mult"].model_dump(), "width": 51})
