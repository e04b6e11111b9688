"""`triptych.plot.clip`: its panels, values and time axis."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from feature_folder import make_folder

import triptych
from triptych.pipeline.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("plot") / "features"
    path.mkdir()
    make_folder(path, {"train": 3}, missing={"vision": [1], "audio": [2], "text": [1]})
    return path


def test_all_panels_share_one_time_axis(folder, tmp_path):
    store = triptych.open(folder)
    clip = store.ids("text")[0]
    figure = triptych.plot.clip(store, clip)
    labels = [axis.get_ylabel() for axis in figure.axes]
    assert labels == ["chroma", "action unit", "gaze [degree]", "tokens", "F0 [Hz]", "0 to 5"]
    audio, vision = store.read("audio", clip), store.read("vision", clip)
    pitch = figure.axes[4].lines[0]
    assert pitch.get_ydata() == pytest.approx(np.exp(audio.values[:, 0].astype(float)))
    assert pitch.get_xdata() == pytest.approx(audio.times)
    gaze = figure.axes[2].lines[0].get_ydata()
    assert np.isnan(gaze[~vision.valid]).all()
    assert {axis.get_xlim() for axis in figure.axes[:5]} == {(0, max(audio.times[-1], vision.times[-1]))}
    figure.savefig(tmp_path / "clip.png", dpi=40)
    assert (tmp_path / "clip.png").stat().st_size > 5000


def test_panels_without_rows_are_left_out(folder):
    labels = [axis.get_ylabel() for axis in triptych.plot.clip(folder, "v_0001/0001").axes]
    assert labels == ["chroma", "F0 [Hz]"]


def test_unknown_clip_is_an_input_error(folder):
    with pytest.raises(InputError, match="no clip 'other'"):
        triptych.plot.clip(folder, "other")


def test_import_loads_no_matplotlib():
    code = "import sys, triptych; triptych.plot; print('matplotlib' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
