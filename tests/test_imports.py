"""What a worker must not import: seconds of every process, for nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from extractors.settings import AudioSettings, FacesSettings, TextSettings, VisionSettings
from extractors.audio import Audio
from extractors.faces import FaceTracker
from extractors.facemesh import FaceMesh
from extractors.text import TextEncoder

TextEncoder(TextSettings(model=sys.argv[1])).extract(["好"])
Audio(AudioSettings(), 22050)
FaceTracker(FacesSettings())
FaceMesh(VisionSettings(backend="facemesh"))
heavy = ["torchvision", "torch._dynamo", "transformers", "librosa", "scipy.signal", "matplotlib.pyplot", "sympy"]
print([name for name in heavy if name in sys.modules])
import matplotlib.pyplot
from mediapipe.python.solutions import drawing_utils
print(drawing_utils.plt.figure is matplotlib.pyplot.figure)
"""


def test_no_stage_imports_what_it_does_not_use(small_bert: Path) -> None:
    pytest.importorskip("mediapipe")
    words = [sys.executable, "-c", CODE, small_bert]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "True"]
