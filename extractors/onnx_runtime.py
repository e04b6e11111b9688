"""Networks in ONNX Runtime: exported from torch, checked against it, and run on one thread."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.model_cache import ExportError

if TYPE_CHECKING:
    import torch

OPSET = 17
# What an export depends on besides the model; a new version repeats the export and its check.
PROGRAMS = ("torch", "onnx", "onnxruntime")
TOLERANCE = 1e-5  # absolute below 1, relative above 1


class Network:
    """One exported network. Equal inputs give equal bits.

    Parameters
    ----------
    file
        The ONNX file.
    """

    def __init__(self, file: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3  # its warnings concern the graph and do not help users
        # The arena never frees the memory of the largest batch, and saves no time on one thread.
        options.enable_cpu_mem_arena = False
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._names = [each.name for each in self._session.get_inputs()]

    def __call__(self, *inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
        """Compute the outputs, in the order in which they were named at the export."""
        outputs: list[NDArray[np.float32]] = self._session.run(
            None, dict(zip(self._names, inputs, strict=True))
        )
        return outputs


def export(
    module: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    outputs: Mapping[str, Mapping[int, str]],
    axes: Mapping[int, str],
    file: Path,
) -> None:
    """Write a module as an ONNX file, its weights beside it in a file of the suffix ``.bin``.

    ONNX Runtime maps that file into memory, which halves the loading time and lets processes share its pages.

    Parameters
    ----------
    module
        In evaluation mode; called with the inputs by position.
    inputs
        Example inputs by name.
    outputs
        By name, the axes whose lengths vary.
    axes
        The axes of every input whose lengths vary.
    file
        Where to write; with the suffix ``.onnx``.

    Raises
    ------
    ExportError
        The module uses what ONNX cannot express, or the package onnx cannot be imported.
    """
    try:
        import onnx
        import torch
    except ImportError as error:
        raise ExportError(f"an export needs the package onnx: {error}") from error

    buffer = io.BytesIO()
    varying = {name: dict(axes) for name in inputs} | {name: dict(each) for name, each in outputs.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about traced branches, whose result `largest_error` checks
            torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                buffer,  # type: ignore[arg-type]
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_axes=varying,
                opset_version=OPSET,
                dynamo=False,  # torch.export's exporter needs onnxscript and takes ten times as long
            )
    except MemoryError:
        raise
    except Exception as error:  # the traced code may raise anything
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise ExportError(f"{type(module).__name__} cannot be exported: {first_line}") from error
    onnx.save_model(
        onnx.load_from_string(buffer.getvalue()),
        str(file),
        save_as_external_data=True,
        location=file.with_suffix(".bin").name,
    )


def check_equal(ours: Sequence[NDArray[Any]], reference: Sequence[NDArray[Any]]) -> None:
    """Compare an export's outputs with torch's.

    Raises
    ------
    ExportError
        They differ by more than `TOLERANCE`, or one is not finite.
    """
    for mine, its in zip(ours, reference, strict=True):
        if mine.shape != its.shape:
            raise ExportError(f"the export's output has shape {mine.shape}, torch's {its.shape}")
        difference = np.abs(mine.astype(np.float64) - its) / np.maximum(np.abs(its), 1)
        if not (difference <= TOLERANCE).all():  # also where one is NaN
            raise ExportError(f"the export differs from torch by {np.max(difference, initial=0.0):.1e}")
