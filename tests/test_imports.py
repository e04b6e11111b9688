"""Modules that a worker process must not import: seconds of every process that nothing needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from triptych.extractors.audio.features import Audio
from triptych.extractors.faces.crops import aligned
from triptych.extractors.faces.tracker import FaceTracker
from triptych.extractors.audio.stage import AudioSettings
from triptych.extractors.faces.stage import FacesSettings
from triptych.extractors.text.stage import TextSettings
from triptych.extractors.vision.stage import VisionSettings
from triptych.extractors.text.encoder import TextEncoder
from triptych.extractors.vision.facemesh.backend import FaceMesh
from triptych.pipeline.run import worker

heavy = ["torch", "torchvision", "transformers", "onnx", "huggingface_hub", "librosa", "matplotlib", "sounddevice"]
heavy += ["scipy.signal", "sympy", "PIL"]
Audio(AudioSettings(), 22050)
FaceTracker(FacesSettings())
TextEncoder(TextSettings(model=sys.argv[1])).extract(["hello"])
FaceMesh(VisionSettings(backend="facemesh"))
print([name for name in heavy if name in sys.modules])
"""


def test_all_stages_import_nothing_that_they_do_not_use(small_bert: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    command = [sys.executable, "-c", CODE, str(small_bert)]
    subprocess.run(command, capture_output=True, check=True)  # exports the models, which does import torch
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
