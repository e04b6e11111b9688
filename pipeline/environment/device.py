"""The device that torch computes on: refused where it is not available."""

from __future__ import annotations

from triptych.pipeline.errors import InputError


def check_device(device: str) -> None:
    """Refuse ``cuda`` where torch cannot compute on it.

    Raises
    ------
    InputError
        The text says why, and what to do.
    """
    if device == "cpu":
        return
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = f"finds no GPU (it is built for CUDA {built})" if built else "is built without CUDA"
        raise InputError(
            f"--device {device}: torch {torch.__version__} {why}; leave the option out to compute on the CPU, or "
            "see `triptych doctor` and https://pytorch.org/get-started for a build that fits the driver"
        )
