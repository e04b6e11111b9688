"""What a worker must not import: seconds of every process, for nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys
from triptych.extractors.settings import (AudioSettings, FacesSettings, VisionSettings)
from triptych.extractors.audio.features import Audio
from triptych.extractors.faces.tracker import FaceTracker
from triptych.extractors.vision.facemesh import FaceMesh

Audio(AudioSettings(), 22050)
FaceTracker(FacesSettings())
FaceMesh(VisionSettings(backend="facemesh"))
heavy = ["torchvision", "torch._dynamo", "transformers", "librosa", "scipy.signal", "matplotlib.pyplot", "sympy"]
print([name for name in heavy if name in sys.modules])
import matplotlib.pyplot
from mediapipe.python.solutions import drawing_utils
print(drawing_utils.plt.figure is matplotlib.pyplot.figure)
"""


def test_sound_and_pictures_import_nothing_that_they_do_not_use() -> None:
    pytest.importorskip("mediapipe")
    words = [sys.executable, "-c", CODE]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "True"]
