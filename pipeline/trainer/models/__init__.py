"""The systems as plain torch modules, one file a family."""

from __future__ import annotations

from torch import nn

from triptych.pipeline.trainer.models.inputs import InputWidths
from triptych.pipeline.trainer.models.late_fusion import LateFusion
from triptych.pipeline.trainer.models.low_rank import LowRankFusion
from triptych.pipeline.trainer.models.recurrent import EarlyFusion, MemoryFusion
from triptych.pipeline.trainer.models.tensor_fusion import TensorFusion
from triptych.pipeline.trainer.models.transformer import CrossmodalTransformer
from triptych.pipeline.trainer.models.unimodal import Unimodal
from triptych.pipeline.trainer.settings import (
    EarlyFusionSettings,
    LateFusionSettings,
    LowRankSettings,
    MemoryFusionSettings,
    SystemSettings,
    TensorFusionSettings,
    TransformerSettings,
    UnimodalSettings,
)


def build(settings: SystemSettings, widths: InputWidths, text_length: int) -> nn.Module:
    """Make the system that settings describe, with weights drawn from torch's generator.

    All of them are called with text, audio and vision and give a prediction by task, shape (B,) each; the
    text is `Padded`, the others are what `settings.view` says: means, shape (B, D), or `Padded`.

    Parameters
    ----------
    widths
        Columns of the three inputs.
    text_length
        Longest text.
    """
    match settings:
        case LateFusionSettings():
            return LateFusion(settings, widths)
        case TensorFusionSettings():
            return TensorFusion(settings, widths)
        case LowRankSettings():
            return LowRankFusion(settings, widths)
        case UnimodalSettings():
            return Unimodal(settings, widths)
        case EarlyFusionSettings():
            return EarlyFusion(settings, widths, text_length)
        case MemoryFusionSettings():
            return MemoryFusion(settings, widths, text_length)
        case TransformerSettings():
            return CrossmodalTransformer(settings, widths)
    raise TypeError(f"no system has settings of type {type(settings).__name__}")
