"""The nine systems in tiny widths without dropout, and ragged inputs for them, in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from triptych.pipeline.trainer.models.inputs import InputWidths, Padded
from triptych.pipeline.trainer.models.subnetworks import SubnetworkSettings
from triptych.pipeline.trainer.settings import Dropouts, Layer, SystemSettings, Widths
from triptych.pipeline.trainer.systems import SYSTEMS, build

WIDTHS = InputWidths(5, 4, 6)
TEXT_LENGTH = 7
NONE = Dropouts(text=0, audio=0, vision=0)
NO_DROPOUT: dict[str, dict[str, Any]] = {
    "ef-lstm": {"dropout": 0.0},
    "mfn": {
        name: SYSTEMS["mfn"].model_dump()[name] | {"dropout": 0.0}
        for name in ("attention", "proposal", "retain", "update", "output")
    },
    "mult": {
        "attention_dropout": NONE,
        **dict.fromkeys(
            (
                "memory_dropout",
                "text_dropout",
                "embedding_dropout",
                "relu_dropout",
                "residual_dropout",
                "output_dropout",
            ),
            0.0,
        ),
    },
}
TINY: dict[str, dict[str, Any]] = {
    "ef-lstm": {"hidden": 3, "layers": 2},
    "mfn": {
        "hidden": Widths(text=3, audio=2, vision=3),
        "memory": 3,
        "aligner": 3,
        **{
            name: Layer(width=4, dropout=0)
            for name in ("attention", "proposal", "retain", "update", "output")
        },
    },
    "mult": {
        "width": 4,
        "heads": 2,
        "layers": 2,
        "memory_layers": 2,
        "kernels": Widths(text=3, audio=1, vision=1),
    },
}


def without_dropout(name: str, **changes: Any) -> SystemSettings:
    """A system's settings with every dropout rate at zero."""
    settings = SYSTEMS[name]
    pooled = isinstance(settings, SubnetworkSettings)
    off: dict[str, Any] = {"dropout": NONE, "head_dropout": 0.0} if pooled else NO_DROPOUT[name]
    return type(settings).model_validate(settings.model_dump() | off | changes)


def tiny_settings(name: str, **changes: Any) -> SystemSettings:
    """The same in widths of a few units, so that gradients can be checked by differences."""
    settings = SYSTEMS[name]
    if isinstance(settings, SubnetworkSettings):
        narrow: dict[str, Any] = {
            "hidden": Widths(text=5, audio=6, vision=5),
            "text_out": 3,
            "head_widths": dict.fromkeys(settings.head_widths, 6),
        }
    else:
        narrow = TINY[name]
    return without_dropout(name, **(narrow | changes))


def narrow(name: str, **changes: Any) -> SystemSettings:
    """A system's settings, the heavy ones in widths that a test can afford to train."""
    settings = SYSTEMS[name]
    if name in ("tfn", "mtfn"):
        changes = {"hidden": Widths(text=24, audio=8, vision=24), "text_out": 16, **changes}
    if name == "mult":
        changes = {"width": 20, "heads": 4, "memory_layers": 2, **changes}
    return type(settings).model_validate(settings.model_dump() | changes)


def tiny_model(name: str, seed: int = 0, **changes: Any) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build(tiny_settings(name, **changes), WIDTHS, TEXT_LENGTH).double().eval()


def ragged(lengths: list[int], width: int, seed: int, holes: bool = False) -> Padded:
    """Random rows of clips; with holes, every clip's second row does not count."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(len(lengths), max(lengths), width, generator=draw, dtype=torch.float64)
    counts = torch.tensor(lengths)
    mask = torch.arange(max(lengths)) < counts[:, None]
    if holes:
        mask[:, 1:2] = False
    return Padded(values, mask, counts)


def make_inputs(view: str, widths: InputWidths = WIDTHS, seed: int = 0) -> tuple[Padded, Any, Any]:
    """Four clips of 6, 4, 1 and 2 tokens; their audio and vision as a system of this view takes them."""
    tokens = [6, 4, 1, 2]
    text = ragged(tokens, widths.text, seed)
    if view == "mean":
        draw = torch.Generator().manual_seed(seed + 1)
        audio, vision = (torch.randn(4, width, generator=draw, dtype=torch.float64) for width in widths[1:])
        return text, audio, vision
    if view == "tokens":
        return text, ragged(tokens, widths.audio, seed + 1), ragged(tokens, widths.vision, seed + 2)
    return (
        text,
        ragged([9, 12, 3, 7], widths.audio, seed + 1, holes=True),
        ragged([8, 5, 4, 1], widths.vision, seed + 2, holes=True),
    )


def scrambled(given: Padded | Tensor, more: int = 5) -> Padded | Tensor:
    """The same clips padded further, with garbage where nothing counts."""
    if isinstance(given, Tensor):
        return given
    count, _, width = given.values.shape
    values = torch.cat([given.values, torch.zeros(count, more, width, dtype=given.values.dtype)], dim=1)
    mask = torch.cat([given.mask, torch.zeros(count, more, dtype=torch.bool)], dim=1)
    return Padded(values.masked_fill(~mask[..., None], 1e3), mask, given.lengths)
