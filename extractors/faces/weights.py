"""Files of MTCNN's weights, which facenet-pytorch carries. Imports no torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from triptych.extractors.base import BackendMissingError

NETWORKS = ("pnet", "rnet", "onet")


def weights_file(network: str) -> Path:
    """Locate the weights of one of `NETWORKS`.

    Raises
    ------
    BackendMissingError
        facenet-pytorch is not installed.
    """
    package = find_spec("facenet_pytorch")
    if package is None or package.origin is None:
        raise BackendMissingError(
            "MTCNN's weights are missing: `pip install facenet-pytorch==2.5.3` installs them"
        )
    return Path(package.origin).parent / "data" / f"{network}.pt"
