"""MTCNN's networks in ONNX Runtime, exported from torch once. Does not import torch if the export is cached."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import BackendMissingError
from triptych.extractors.faces.stage import FacesSettings
from triptych.extractors.faces.weights import NETWORKS, weights_file
from triptych.extractors.model_cache import ExportError, exported, is_exported, package_versions, run_exporter
from triptych.extractors.onnx_runtime import OPSET, PROGRAMS, Network, check_equal, export

if TYPE_CHECKING:
    import torch

KIND, VERSION = "mtcnn", "2"  # the version changes with what this module writes
AT_A_TIME = 16  # crops whose activations stay in a core's own cache

# The outputs of each network, and the axes of their lengths that vary.
_CROPS = {0: "crops"}
_MAP = {0: "images", 2: "rows", 3: "columns"}
OUTPUTS = {
    "pnet": {"offsets": _MAP, "probability": {0: "images", 1: "rows", 2: "columns"}},
    "rnet": {"offsets": _CROPS, "probability": _CROPS},
    "onet": {"offsets": _CROPS, "points": _CROPS, "probability": _CROPS},
}
# Shapes of images on which an export is compared with torch; the first is the example for the export.
PROBES = {
    "pnet": ((2, 60, 70, 3), (1, 12, 12, 3), (1, 135, 241, 3)),
    "rnet": ((2, 24, 24, 3), (1, 24, 24, 3), (17, 24, 24, 3)),
    "onet": ((2, 48, 48, 3), (1, 48, 48, 3), (17, 48, 48, 3)),
}


class OnnxNetworks:
    """The three networks; the methods are those of `networks.TorchNetworks`.

    Raises
    ------
    ExportError
        The networks cannot be exported, or the export cannot be loaded.
    triptych.extractors.base.BackendMissingError
        facenet-pytorch, which carries the weights, is not installed.
    """

    def __init__(self) -> None:
        folder = ensure_exported()
        try:
            self.pnet, rnet, onet = (Network(folder / f"{name}.onnx") for name in NETWORKS)
        except MemoryError:
            raise
        except Exception as error:  # a damaged file, a package that cannot be imported
            raise ExportError(f"the export in {folder} cannot be loaded: {error}") from error
        self.rnet, self.onet = _in_parts(rnet), _in_parts(onet)


def ensure_exported() -> Path:
    """Return the folder of the networks' export; if it is missing, make it, which imports torch."""
    return exported(KIND, _identity(), _export_all)


def prepare(settings: FacesSettings, device: str = "cpu") -> None:
    """Make the export in a separate process, before worker processes need it."""
    if settings.runtime == "onnx" and device == "cpu" and not is_exported(KIND, _identity()):
        run_exporter("triptych.extractors.faces.onnx_networks")


def _identity() -> dict[str, str]:
    whole = hashlib.sha256(b"".join(weights_file(name).read_bytes() for name in NETWORKS))
    versions = package_versions("facenet-pytorch", *PROGRAMS)
    return {"weights": whole.hexdigest(), "code": VERSION, "opset": str(OPSET), **versions}


def _in_parts(network: Network) -> Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]:
    """Run any number of crops in batches of `AT_A_TIME`."""

    def run(crops: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        parts = [network(crops[start : start + AT_A_TIME]) for start in range(0, len(crops), AT_A_TIME)]
        return parts[0] if len(parts) == 1 else [np.concatenate(each) for each in zip(*parts, strict=True)]

    return run


def _export_all(folder: Path) -> None:
    import torch

    from triptych.extractors.faces.networks import TorchNetworks

    reference, random = TorchNetworks(), np.random.default_rng(0)
    for name in NETWORKS:
        file = folder / f"{name}.onnx"
        lengths = {0: "images", 1: "height", 2: "width"} if name == "pnet" else _CROPS
        example = torch.zeros(PROBES[name][0], dtype=torch.uint8)
        export(_module(name), {"images": example}, OUTPUTS[name], lengths, file)
        try:
            ours = Network(file)
        except Exception as error:  # ONNX Runtime's own errors
            raise ExportError(f"the export of {name} cannot be loaded: {error}") from error
        for shape in PROBES[name]:
            images = random.integers(0, 256, shape, dtype=np.uint8)
            check_equal(ours(images), getattr(reference, name)(images))


def _module(name: str) -> Any:
    """Wrap a network in a module, with an activation that ONNX Runtime computes fast."""
    import torch

    from triptych.extractors.faces import networks

    def prelu(x: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
        # ONNX Runtime's own PRelu is not vectorised: it took a third of the time of all three networks.
        return x.clamp(min=0) + slopes.reshape(-1, *[1] * (x.ndim - 2)) * x.clamp(max=0)

    class Exported(torch.nn.Module):
        layers = networks.Layers(networks.weights(name, torch.device("cpu")), prelu)

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return networks.FORWARD[name](self.layers, networks.standardised(images))

    return Exported()


if __name__ == "__main__":
    try:
        ensure_exported()
    except (ExportError, BackendMissingError) as problem:
        sys.exit(str(problem))
