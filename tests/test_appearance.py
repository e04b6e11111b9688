"""The stage `appearance`: embeddings of aligned crops equal transformers' own, at the rate asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from small_models import save_model
from transformers import AutoImageProcessor, AutoModel

from triptych.extractors.appearance import BATCH, AppearanceSettings, ImageEncoder
from triptych.extractors.base import ExtractionError, Reason, UnusableSettingError
from triptych.extractors.faces.crops import Aligned


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("appearance")
    return {kind: save_model(kind, base / kind) for kind in ("vit", "dinov2", "clip")}


@dataclass
class Clip:
    """Stands in for `ClipInputs`: it has nothing but crops."""

    images: np.ndarray
    found: list[bool]
    frame_rate: float = 30.0

    def crops(self, settings):
        for slot, (image, found) in enumerate(zip(self.images, self.found, strict=True)):
            yield Aligned(slot, slot / self.frame_rate, image, found, np.zeros(15, np.float32))


def clip(frames, found=None):
    images = np.random.default_rng(0).integers(0, 256, (frames, 48, 48, 3), dtype=np.uint8)
    return Clip(images, [True] * frames if found is None else found)


def encoder(folder, frame_rate=30.0, **settings):
    return ImageEncoder(AppearanceSettings(model=str(folder), revision="", **settings), frame_rate)


@pytest.mark.parametrize("kind", ["vit", "dinov2", "clip"])
def test_rows_equal_transformers_own(folders, kind):
    shown = clip(3)
    pixels = AutoImageProcessor.from_pretrained(folders[kind])(list(shown.images), return_tensors="pt")
    model = AutoModel.from_pretrained(folders[kind]).eval()
    with torch.inference_mode():
        if kind == "clip":
            output = model.get_image_features(**pixels)
            expected = getattr(output, "pooler_output", output)
        else:
            expected = model(**pixels).pooler_output
    found = encoder(folders[kind], rate=30).extract(shown)
    np.testing.assert_array_equal(found.values, expected.numpy())
    assert found.values.shape[1] == (24 if kind == "clip" else 32)


@pytest.mark.parametrize(
    ("rate", "slots"), [(5, [0, 6, 12, 18, 24]), (7, [0, 4, 9, 13, 17, 21, 26]), (30, list(range(30)))]
)
def test_rows_are_at_the_rate_asked_for(folders, rate, slots):
    found = encoder(folders["vit"], rate=rate).extract(clip(30))
    np.testing.assert_allclose(found.times, np.array(slots) / 30)


def test_rows_do_not_depend_on_the_batch(folders):
    shown = clip(2 * BATCH + 3)
    together = encoder(folders["vit"], rate=30).extract(shown)
    one = encoder(folders["vit"]).embed([shown.images[BATCH]])
    np.testing.assert_allclose(together.values[BATCH], one[0], atol=1e-5)


def test_a_row_without_a_face_is_zero_and_not_valid(folders):
    found = encoder(folders["vit"], rate=30).extract(clip(4, [True, False, False, True]))
    assert found.valid.tolist() == [True, False, False, True]
    assert not found.values[1:3].any()
    assert found.values[3].any()


def test_a_whole_frame_needs_no_face(folders):
    found = encoder(folders["vit"], rate=30, input="frame").extract(clip(2, [True, False]))
    assert found.valid.all()
    assert found.values[1].any()


def test_no_face_at_all_has_a_reason(folders):
    with pytest.raises(ExtractionError) as error:
        encoder(folders["vit"]).extract(clip(9, [False] * 9))
    assert error.value.reason == Reason.NO_FACE


def test_a_rate_above_the_frame_rate_is_refused(folders):
    with pytest.raises(
        UnusableSettingError, match=r"appearance\.rate = 50\.0: higher than media\.frame_rate"
    ):
        encoder(folders["vit"], rate=50)
