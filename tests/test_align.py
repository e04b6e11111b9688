from __future__ import annotations

from pathlib import Path

import cv2
import matplotlib
import numpy as np
import PIL.Image
import pytest
from facenet_pytorch import MTCNN

from triptych.extractors.base import Features, Frame
from triptych.extractors.faces.columns import FACE_COLUMNS
from triptych.extractors.faces.crops import aligned
from triptych.extractors.faces.stage import FacesSettings
from triptych.extractors.faces.tracker import FaceTracker
from triptych.extractors.vision.stage import VisionSettings

STABLE, ORIGINAL = VisionSettings(input="stable"), VisionSettings(input="original")


def track_of(boxes, valid=None):
    """A track with the given boxes; the points play no part in alignment."""
    valid = np.ones(len(boxes), bool) if valid is None else np.array(valid)
    values = np.zeros((len(boxes), 15), np.float32)
    values[valid, :4] = np.array(boxes, np.float32)[valid]
    values[valid, 4] = 1
    names, units = zip(*FACE_COLUMNS, strict=True)
    return Features(
        values, names, units, np.arange(len(boxes)) / 30, valid, {"n_faces": valid.astype(np.int16)}
    )


def box_about(x, y, width, height):
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def ramp(height=360, width=480):
    """An image whose red and green say where a pixel comes from: half its x, half its y."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x / 2, y / 2, np.zeros_like(x)], 2).round().astype(np.uint8)


def clip(image, rows):
    return [Frame(slot, slot / 30, image) for slot in range(rows)]


def middle_of(image):
    """Where in the ramp the middle of a crop lies, pixels."""
    half = image.shape[0] // 2
    return image[half - 8 : half + 8, half - 8 : half + 8, :2].mean(axis=(0, 1)) * 2


def span_of(image):
    """How many pixels of the ramp a crop is wide."""
    rows = image[100:124, :, 0].astype(float).mean(axis=0)
    return (rows[-1] - rows[0]) * 2 * len(rows) / (len(rows) - 1)


def test_stable_is_one_square_of_the_median_box_about_the_face():
    heights = np.full(41, 100.0) + np.resize([-8, 8], 41)
    track = track_of([box_about(240, 180, 70, height) for height in heights])
    crops = list(aligned(clip(ramp(), 41), track, STABLE))
    assert {crop.image.shape for crop in crops} == {(224, 224, 3)}
    side = 1.4 * np.median(heights)
    for crop in crops:
        assert span_of(crop.image) == pytest.approx(side, abs=2)
        np.testing.assert_allclose(middle_of(crop.image), (240, 180), atol=1)
    assert [(crop.slot, crop.time) for crop in crops[:2]] == [(0, 0.0), (1, 1 / 30)]


def test_stable_follows_motion_without_its_shake():
    rows = np.arange(60)
    shake = np.random.default_rng(1).normal(0, 3, 60)
    track = track_of([box_about(x, 180, 80, 100) for x in 120 + 3 * rows + shake])
    found = np.array([middle_of(crop.image)[0] for crop in aligned(clip(ramp(), 60), track, STABLE)])
    away = (found - (120 + 3 * rows))[12:-12]
    assert np.abs(away).mean() < 1.5
    assert np.diff(away).std() < 0.3 * np.diff(shake).std()


def test_stable_runs_on_where_there_is_no_face():
    valid = [not 20 <= row < 30 for row in range(50)]
    track = track_of([box_about(150 + 3 * row, 180, 80, 100) for row in range(50)], valid)
    crops = list(aligned(clip(ramp(), 50), track, STABLE))
    assert [crop.found for crop in crops] == valid
    for row in (22, 25, 28):
        np.testing.assert_allclose(middle_of(crops[row].image), (150 + 3 * row, 180), atol=2)


def test_stable_crop_stands_still_outside_the_faces():
    track = track_of([box_about(200, 150, 80, 100)] * 30, [10 <= row < 20 for row in range(30)])
    for crop in aligned(clip(ramp(), 30), track, STABLE):
        np.testing.assert_allclose(middle_of(crop.image), (200, 150), atol=1)


@pytest.mark.parametrize("missing", [0, 6])
def test_stable_jumps_at_a_cut_and_fits_each_shot(missing):
    boxes = [box_about(120, 150, 80, 100)] * 20 + [box_about(330, 200, 48, 60)] * 20
    valid = [not 20 - missing // 2 <= row < 20 + missing // 2 for row in range(40)]
    crops = list(aligned(clip(ramp(), 40), track_of(boxes, valid), STABLE))
    for row, crop in enumerate(crops):
        x, y, side = (120, 150, 140) if row < 20 else (330, 200, 84)
        np.testing.assert_allclose(middle_of(crop.image), (x, y), atol=1.5, err_msg=str(row))
        assert span_of(crop.image) == pytest.approx(side, abs=2)


def test_one_row_gone_wrong_is_no_cut():
    boxes = [box_about(240, 180, 80, 100)] * 30
    boxes[15] = box_about(275, 180, 80, 100)
    spans = [span_of(crop.image) for crop in aligned(clip(ramp(), 30), track_of(boxes), STABLE)]
    centres = [middle_of(crop.image)[0] for crop in aligned(clip(ramp(), 30), track_of(boxes), STABLE)]
    assert np.ptp(spans) < 3
    assert max(centres) < 246


def test_stable_keeps_pixels_where_nothing_is_to_be_resized():
    image = np.random.default_rng(2).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    track = track_of([box_about(200, 190, 100, 224 / 1.4)])
    [crop] = aligned(clip(image, 1), track, STABLE)
    np.testing.assert_array_equal(crop.image, image[78:302, 88:312])


def test_stable_shrinks_by_averaging():
    image = np.zeros((900, 900, 3), np.uint8)
    image[::2, ::2] = 255
    track = track_of([box_about(450, 450, 300, 448 / 1.4)])
    [crop] = aligned(clip(image, 1), track, STABLE)
    assert np.abs(crop.image.astype(int) - 64).max() <= 1


def test_stable_repeats_the_edge_outside_the_image():
    track = track_of([box_about(10, 180, 80, 100)])
    [crop] = aligned(clip(ramp() + np.uint8(40), 1), track, STABLE)
    outside = round(224 * (70 - 10) / 140)
    assert (crop.image[:, : outside - 2, 0] == 40).all()
    assert crop.image[112, -1, 0] > 70


@pytest.fixture(scope="module")
def photograph():
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)[:400]


@pytest.mark.parametrize("x", [0, 190])
def test_original_is_facenet_pytorchs_own_crop(photograph, x):
    image = np.ascontiguousarray(photograph[:, x:])
    track = FaceTracker(FacesSettings()).extract(clip(image, 1))
    mtcnn = MTCNN(image_size=224, margin=0, post_process=False)
    theirs = mtcnn.extract(PIL.Image.fromarray(image), track.values[:, :4].astype(float), None)
    [crop] = aligned(clip(image, 1), track, ORIGINAL)
    np.testing.assert_array_equal(crop.image, theirs.permute(1, 2, 0).numpy().astype(np.uint8))
    assert crop.image.dtype == np.uint8


def test_original_is_black_where_there_is_no_face():
    track = track_of([box_about(200, 150, 80, 100)] * 2, [True, False])
    first, second = aligned(clip(ramp(), 2), track, ORIGINAL)
    assert first.image.any()
    assert not second.image.any()
    assert second.image.shape == (224, 224, 3)
    assert (first.found, second.found) == (True, False)


def test_frame_is_the_whole_image():
    image = ramp()
    track = track_of([box_about(200, 150, 80, 100)] * 2, [True, False])
    shown = list(aligned(clip(image, 2), track, VisionSettings(input="frame")))
    assert all(crop.image is image for crop in shown)
    assert [crop.found for crop in shown] == [True, False]


def test_crops_have_the_size_asked_for():
    track = track_of([box_about(200, 150, 80, 100)])
    for kind in ("stable", "original"):
        [crop] = aligned(clip(ramp(), 1), track, VisionSettings(input=kind, image_size=112))
        assert crop.image.shape == (112, 112, 3)


@pytest.mark.parametrize("rows", [2, 4])
def test_frames_and_rows_must_be_as_many(rows):
    track = track_of([box_about(200, 150, 80, 100)] * 3)
    with pytest.raises(ValueError, match="zip"):
        list(aligned(clip(ramp(), rows), track, STABLE))
