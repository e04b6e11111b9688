"""A clip in which OpenFace finds no face at the first crop margin is read once more at another one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import openface_stand_in
import pytest

from triptych.extractors.base import ExtractionError, Features, Frame, Reason
from triptych.extractors.faces.columns import FACE_COLUMNS
from triptych.extractors.inputs import ClipInputs
from triptych.extractors.settings import MediaSettings
from triptych.extractors.vision import margins
from triptych.extractors.vision.columns import VISION_COLUMNS
from triptych.extractors.vision.openface import program
from triptych.extractors.vision.openface.images import bmp
from triptych.extractors.vision.stage import STAGE, VisionSettings
from triptych.pipeline.stages.fingerprints import fingerprints
from triptych.pipeline.stages.recipe import build_recipe

ROWS = 6
STABLE = VisionSettings(backend="openface")
X_0 = [name for name, _ in VISION_COLUMNS].index("x_0")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENFACE_BIN", str(openface_stand_in.install(tmp_path / "openface")))
    monkeypatch.setenv("OPENFACE_STAND_IN_STATE", str(tmp_path))
    return tmp_path


def ramp() -> np.ndarray:
    """An image whose red and green are half of x and y."""
    y, x = np.mgrid[:360, :480]
    return np.stack([x / 2, y / 2, np.full_like(x, 9)], 2).round().astype(np.uint8)


def track(side: float = 100.0) -> Features:
    """A face of one size in the middle of every frame."""
    values = np.zeros((ROWS, 15), np.float32)
    values[:, :4] = (240 - side / 2, 180 - side / 2, 240 + side / 2, 180 + side / 2)
    values[:, 4] = 1
    names, units = zip(*FACE_COLUMNS, strict=True)
    valid = np.ones(ROWS, bool)
    return Features(values, names, units, np.arange(ROWS) / 30, valid, {"n_faces": valid.astype(np.int16)})


class Clip:
    """A clip of the ramp, that counts how often it is decoded."""

    def __init__(self) -> None:
        self.decoded = self.tracked = 0
        self.rows = ROWS
        self.inputs = ClipInputs(STAGE, "", lambda: np.zeros(1, np.float32), self._frames, self._track)

    def _frames(self) -> Iterator[Frame]:
        self.decoded += 1
        return (Frame(slot, slot / 30, ramp()) for slot in range(self.rows))

    def _track(self, name: str) -> Features:
        self.tracked += 1
        return track()


def read(settings: VisionSettings, **clips: Clip) -> dict[str, Any]:
    extractor: Any = STAGE.load(settings, MediaSettings(), "cpu")
    for name, clip in clips.items():
        extractor.add(name, clip.inputs)
    return dict(extractor.finish())


def calls(state: Path) -> list[list[str]]:
    lines = (state / "calls.jsonl").read_text().splitlines()
    return [
        [Path(b).name.partition("-")[2] for a, b in pairwise(json.loads(line)["argv"]) if a == "-fdir"]
        for line in lines
    ]


def test_only_the_clip_without_a_face_is_read_again_with_a_note(state: Path) -> None:
    clips = {"a": Clip(), "faceless-once-1": Clip(), "b": Clip()}
    found = read(STABLE, **clips)
    assert calls(state) == [["a", "faceless-once-1", "b"], ["faceless-once-1"]]
    assert [clip.decoded for clip in clips.values()] == [1, 2, 1]
    assert found["a"].notes == found["b"].notes == ()
    again = found["faceless-once-1"]
    assert again.notes == ("no face at the crop margin 1.4: the rows are those of crops with the margin 1.7",)
    assert again.valid.all()
    np.testing.assert_array_equal(again.times, found["a"].times)


def test_the_second_crops_are_larger_by_the_ratio_of_the_margins(state: Path) -> None:
    crops = [crop.image for crop in margins.wider_crops(Clip().inputs, track(), STABLE)]
    assert len(crops) == ROWS
    row = crops[0][100:124, :, 0].astype(float).mean(axis=0)
    assert (row[-1] - row[0]) * 2 * len(row) / (len(row) - 1) == pytest.approx(170, abs=2)
    middle = crops[0][104:120, 104:120, :2].mean(axis=(0, 1)) * 2
    np.testing.assert_allclose(middle, (240, 180), atol=1)
    again = read(STABLE, **{"faceless-once-1": Clip()})["faceless-once-1"]
    sums = [openface_stand_in.checksum(bmp(image)[54:]) for image in crops]
    np.testing.assert_array_equal(again.values[:, X_0], np.array(sums, np.float32))


def test_a_clip_without_a_face_at_both_margins_fails_with_both(state: Path) -> None:
    failed = read(STABLE, faceless=Clip())["faceless"]
    assert isinstance(failed, ExtractionError)
    assert failed.reason == Reason.NO_FACE
    assert "at the crop margin 1.4 and again at 1.7" in failed.detail
    assert calls(state) == [["faceless"]] * 2, "once, not for ever"


@pytest.mark.parametrize("shape", ["original", "frame"])
def test_inputs_without_a_margin_have_no_second_try(state: Path, shape: Any) -> None:
    failed = read(STABLE.model_copy(update={"input": shape}), **{"faceless-once-1": Clip()})
    assert isinstance(failed["faceless-once-1"], ExtractionError)
    assert len(calls(state)) == 1


def test_other_failures_have_no_second_margin(state: Path) -> None:
    failed = read(STABLE, **{"short-1": Clip()})["short-1"]
    assert failed.reason == Reason.OPENFACE_SHORT
    assert "margin" not in failed.detail


def test_a_file_that_changes_before_the_second_try_costs_only_its_clip(state: Path) -> None:
    clips = {"faceless-once-1": Clip(), "faceless-once-2": Clip()}
    extractor: Any = STAGE.load(STABLE, MediaSettings(), "cpu")
    for name, clip in clips.items():
        extractor.add(name, clip.inputs)
    clips["faceless-once-1"].rows -= 1
    found = extractor.finish()
    assert isinstance(found["faceless-once-1"], ValueError)
    assert isinstance(found["faceless-once-2"], Features)


def test_the_second_margin_is_in_the_fingerprint_of_stable_crops(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = {
        shape: build_recipe({"vision": {"backend": "openface", "input": shape}})
        for shape in ("stable", "original", "frame")
    }
    before = {shape: fingerprints(recipe)["vision"] for shape, recipe in recipes.items()}
    monkeypatch.setattr(margins, "SECOND_MARGIN", 2.0)
    after = {shape: fingerprints(recipe)["vision"] for shape, recipe in recipes.items()}
    assert [shape for shape in recipes if before[shape] != after[shape]] == ["stable"]
    found = program.find()
    assert found is not None
    which = program.identity(found)
    old = f"openface {which.program} {which.models}"
    assert STAGE.model_identity(recipes["frame"].vision) == old, "fingerprints of other inputs stay"
