"""Landmarks that were found in crops, mapped back to the frames that the crops were cut from."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

import triptych
from triptych.extractors.base import Features, Frame
from triptych.extractors.faces.columns import FACE_COLUMNS
from triptych.extractors.faces.crops import aligned, cuts, in_frame
from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings
from triptych.extractors.vision.columns import VISION_COLUMNS
from triptych.extractors.vision.margins import SECOND_MARGIN, is_wider, widened
from triptych.extractors.vision.stage import VisionSettings
from triptych.pipeline.demo.clips import read_truth
from triptych.pipeline.demo.face import _CROP, _EYES, _HEAD, SIZE
from triptych.pipeline.report.frames import ClipMarks, frames_at, marked_frames
from triptych.pipeline.storage.store import FeatureStore

WIDTH, HEIGHT = 320, 240
DOT = (173.25, 118.5)  # between whole pixels
NAMES, UNITS = zip(*FACE_COLUMNS, strict=True)


def make_track(boxes, valid=None) -> Features:
    values = np.zeros((len(boxes), 15), np.float32)
    values[:, :4] = boxes
    values[:, 5:15] = np.tile(np.array(boxes)[:, :2] + 20, 5)
    found = np.ones(len(boxes), bool) if valid is None else np.array(valid)
    values[~found] = 0
    return Features(values, NAMES, UNITS, np.arange(len(boxes)) / 30, found)


def frame_with_dot(x: float, y: float, spread: float = 4.0) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    light = 250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * spread**2))
    return np.repeat(np.rint(light).astype(np.uint8)[..., None], 3, axis=2)


def centre_of_light(image: np.ndarray) -> np.ndarray:
    light = image[..., 0].astype(float)
    rows, columns = np.mgrid[: light.shape[0], : light.shape[1]]
    return np.array([(columns * light).sum(), (rows * light).sum()]) / light.sum()


@pytest.mark.parametrize("kind", ["stable", "original", "frame"])
@pytest.mark.parametrize("half", [26, 49, 110])  # crops that enlarge, and that shrink once and twice
def test_dot_of_a_crop_is_mapped_to_where_it_is_in_the_frame(kind, half):
    settings = VisionSettings(input=kind, image_size=96)
    track = make_track([(170 - half, 110 - half, 170 + half, 110 + half + 0.6 * half)] * 5)
    frames = [Frame(k, k / 30, frame_with_dot(*DOT)) for k in range(5)]
    where = cuts(track, settings, (WIDTH, HEIGHT))
    for crop, cut in zip(aligned(frames, track, settings), where, strict=True):
        height, width = crop.image.shape[:2]
        found = in_frame(centre_of_light(crop.image)[None], cut, (width, height))[0]
        assert np.abs(found - DOT).max() < 0.12


def test_wider_crops_are_mapped_by_the_second_margin():
    settings = VisionSettings(input="stable", image_size=96)
    track = make_track([(120, 60, 220, 160)] * 3)
    narrow, wide = (cuts(one, settings, (WIDTH, HEIGHT)) for one in (track, widened(track)))
    assert wide[0, 2] / narrow[0, 2] == pytest.approx(SECOND_MARGIN / 1.4)
    assert is_wider(
        f"no face at the crop margin 1.4: the rows are those of crops with the margin {SECOND_MARGIN}"
    )
    assert not is_wider("2.8 of 5.0 s decoded")


def vision_rows(times, valid=None) -> Features:
    names, units = zip(*VISION_COLUMNS, strict=True)
    values = np.zeros((len(times), 709), np.float32)
    values[:, names.index("x_30")] = 47.5  # of 96: the middle of the crop
    values[:, names.index("y_30")] = 47.5
    values[:, [names.index(name) for name in names if name.startswith("eye_lmk_Z")]] = 500
    values[:, names.index("gaze_0_x")] = 1
    found = np.ones(len(times), bool) if valid is None else np.array(valid)
    return Features(values, names, units, np.array(times), found, {"confidence": found.astype(np.float32)})


def test_gaze_ray_follows_the_projection():
    settings = VisionSettings(input="stable", image_size=96)
    marks = ClipMarks(make_track([(100, 60, 200, 160)] * 3), vision_rows(np.arange(3) / 30), settings, 30.0)
    (start, end), _ = marks.at(1, (WIDTH, HEIGHT)).gaze
    focal = (500 * 96 / 640 + 500 * 96 / 480) / 2
    assert (end - start)[0] == pytest.approx(60 / 500 * focal * 140 / 96)  # a crop of 1.4 boxes of 100 pixels
    assert (end - start)[1] == pytest.approx(0)


@pytest.mark.parametrize(("kind", "expected"), [("stable", (149.5, 109.5)), ("original", (149.5, 109.5))])
def test_middle_of_a_crop_is_the_middle_of_the_box(kind, expected):
    settings = VisionSettings(input=kind, image_size=96)
    marks = ClipMarks(make_track([(100, 60, 200, 160)] * 3), vision_rows(np.arange(3) / 30), settings, 30.0)
    assert marks.at(2, (WIDTH, HEIGHT)).landmarks[30] == pytest.approx(expected, abs=1e-4)


def test_rows_without_a_face_have_no_marks_and_known_row_numbers():
    settings = VisionSettings(input="stable", image_size=96)
    seen = [True, False, True]
    track, rows = make_track([(100, 60, 200, 160)] * 3, seen), vision_rows(np.arange(3) / 30, seen)
    found = ClipMarks(track, rows, settings, 30.0).at(1, (WIDTH, HEIGHT))
    assert (found.box, found.landmarks, found.gaze, found.vision_row) == (None, None, None, 1)
    assert ClipMarks(track, rows, settings, 30.0).at(7, (WIDTH, HEIGHT)).vision_row is None


def test_averaged_rows_belong_to_all_frames_of_their_run():
    settings = VisionSettings(input="original", image_size=96, average=5, drop_invalid=True)
    track, rows = make_track([(100, 60, 200, 160)] * 10), vision_rows([2 / 30, 7 / 30])
    marks = ClipMarks(track, rows, settings, 30.0)
    assert [marks.at(slot, (WIDTH, HEIGHT)).vision_row for slot in range(11)] == [0] * 5 + [1] * 5 + [None]


def test_columns_of_another_program_are_no_landmarks():
    rows = replace(vision_rows([0.0]), columns=tuple(f"vision_{k}" for k in range(709)))
    found = ClipMarks(make_track([(100, 60, 200, 160)]), rows, VisionSettings(), 30.0).at(0, (WIDTH, HEIGHT))
    assert found.landmarks is None
    assert found.box is not None


def eye_corners(truth, slot: int) -> np.ndarray:
    """The outer corners of the demonstration's eyes in a frame, left and right, shape (2, 2)."""
    x0, y0, side = _CROP
    scale = SIZE / side
    ends = np.array([(_EYES[0][0][0], _EYES[0][1][0]), (_EYES[1][0][-1], _EYES[1][1][-1])])
    ends, head = ((np.array(part) - (x0, y0) + 0.5) * scale - 0.5 for part in (ends, _HEAD))
    angle = np.deg2rad(truth.roll[slot])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (ends - head) @ turn.T + head + (truth.shift_x[slot], truth.shift_y[slot])


def test_landmarks_are_on_the_eyes_of_the_demonstration(demo_clips, demo_features):
    store = FeatureStore(demo_features)
    clip = store.manifest.clips[0]
    truth = read_truth(demo_clips, clip.id)
    frames = list(frames_at(store, clip, [0, 10 / 30, 31 / 30]))
    assert [frame.slot for frame in frames] == [0, 10, 31]
    for frame in frames:
        off = frame.marks.landmarks[[36, 45]] - eye_corners(truth, frame.slot)
        assert np.abs(off).max() < 7  # of 320; glasses cover the corners
        assert (
            cv2.pointPolygonTest(
                frame.marks.landmarks[:17].astype(np.float32), frame.marks.landmarks[30], False
            )
            > 0
        )


def test_frames_of_a_clip_are_those_of_its_rows(demo_features):
    store = FeatureStore(demo_features)
    clip = store.manifest.clips[1]
    slots = [frame.slot for frame in marked_frames(store, clip)]
    assert slots == [round(time * 30) for time in store.read("faces", clip.id).times]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pyfeat/0001", "latentsync/0003"])
def test_landmarks_of_all_kinds_of_crops_agree_on_a_real_clip(test_data, name):
    pytest.importorskip("ai_edge_litert")
    path = test_data / "clips" / "Raw" / f"{name}.mp4"
    track = triptych.compute("faces", path=path)
    size = next(MediaSource(path, MediaSettings()).frames()).image.shape[1::-1]
    found = {}
    for kind in ("stable", "original", "frame"):
        rows = triptych.compute(
            "vision", path=path, settings={"vision.backend": "facemesh", "vision.input": kind}
        )
        marks = ClipMarks(track, rows, VisionSettings(input=kind), 30.0)
        found[kind] = [marks.at(slot, size) for slot in range(0, len(track), 10)]
    for stable, original, frame in zip(*found.values(), strict=True):
        eyes = np.linalg.norm(frame.landmarks[36] - frame.landmarks[45])
        for other in (stable, original):
            assert np.abs(other.landmarks - frame.landmarks).mean() < 0.05 * eyes
        left, top, right, bottom = frame.box
        assert left < frame.landmarks[30, 0] < right
        assert top < frame.landmarks[30, 1] < bottom
