from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import cv2
import matplotlib
import numpy as np
import PIL.Image
import pytest
import torch
from facenet_pytorch import MTCNN
from torchvision.ops import nms

from triptych.extractors.base import ExtractionError, Features, Frame, Reason
from triptych.extractors.faces.columns import FACE_COLUMNS
from triptych.extractors.faces.mtcnn import Mtcnn, _suppress
from triptych.extractors.faces.networks import Layers, TorchNetworks, onet, pnet, rnet, weights
from triptych.extractors.faces.onnx_networks import OnnxNetworks
from triptych.extractors.faces.stage import FacesSettings
from triptych.extractors.faces.tracker import FaceTracker, _drop_flickers
from triptych.extractors.model_cache import ExportError

HEIGHT, WIDTH = 240, 320
IOD = 30.6  # pixels between the portrait's eyes at scale 1


@pytest.fixture(scope="module")
def portrait():
    """Matplotlib's sample photograph, 176 x 150, cut about the head."""
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    photograph = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    return cv2.resize(photograph, (176, 206), interpolation=cv2.INTER_AREA)[:150]


@pytest.fixture(scope="module")
def tracker():
    return FaceTracker(FacesSettings())


@pytest.fixture(scope="module")
def naive():
    return MTCNN(image_size=224, margin=0, keep_all=True)


def scene(*placed, width=WIDTH, height=HEIGHT):
    """A plain frame with photographs pasted in: (photograph, x, y, scale)."""
    frame = np.full((height, width, 3), (96, 128, 112), np.uint8)
    for photograph, x, y, scale in placed:
        cv2.warpAffine(
            photograph,
            np.array([[scale, 0, x], [0, scale, y]], float),
            (width, height),
            dst=frame,
            borderMode=cv2.BORDER_TRANSPARENT,
        )
    return frame


def clip(images: Iterable[np.ndarray]) -> Iterator[Frame]:
    return (Frame(slot, slot / 30, image) for slot, image in enumerate(images))


def points_of(rows):
    return rows[..., 5:].reshape(*rows.shape[:-1], 5, 2)


def middles(track):
    return (track.values[:, 0:2] + track.values[:, 2:4]) / 2


def count_calls(monkeypatch, name):
    """Return a list to which every call of a method of the detector appends its number of frames."""
    seen: list[int] = []
    real = getattr(Mtcnn, name)

    def counted(self, images, argument):
        seen.append(len(images) if isinstance(images, list) else 1)
        return real(self, images, argument)

    monkeypatch.setattr(Mtcnn, name, counted)
    return seen


def test_a_moving_face_is_tracked(tracker, portrait, monkeypatch):
    searched = count_calls(monkeypatch, "detect")
    phase = np.arange(50) / 30
    x, y = 70 + 35 * np.sin(2 * np.pi * 0.7 * phase), 40 + 20 * np.sin(2 * np.pi * 0.5 * phase)
    scale = 0.9 + 0.15 * np.sin(2 * np.pi * 0.4 * phase)
    track = tracker.extract(clip(scene((portrait, *position)) for position in zip(x, y, scale, strict=True)))
    assert track.values.shape == (50, 15)
    assert track.columns == tuple(name for name, _ in FACE_COLUMNS)
    assert track.values.dtype == np.float32
    assert track.valid.all()
    assert (track.extras["n_faces"] == 1).all()
    assert track.extras["n_faces"].dtype == np.int16
    np.testing.assert_allclose(track.times, phase)
    # Brought back to the photograph, the points of all rows must fall together.
    at_home = (points_of(track.values) - np.stack([x, y], 1)[:, None]) / scale[:, None, None]
    away = np.linalg.norm(at_home - np.median(at_home, axis=0), axis=2) / IOD
    assert away.mean() < 0.025
    assert away.max() < 0.10
    # Every 15th row, and some more where the head moves by half its size between two of them.
    assert len(searched) <= 17


def test_a_frame_that_stays_empty_is_searched_once(tracker, portrait, monkeypatch):
    searched = count_calls(monkeypatch, "detect")
    random = np.random.default_rng(0)
    empty = scene()
    images = [empty + random.integers(0, 2, empty.shape, np.uint8) for _ in range(50)]
    images += [scene((portrait, 80, 40, 1.0)) for _ in range(14)]
    track = tracker.extract(clip(images))
    assert track.valid.tolist() == [False] * 50 + [True] * 14
    assert (track.extras["n_faces"] == track.valid).all()
    assert len(searched) <= 10


def test_a_face_that_fades_in_is_found_as_if_all_were_searched(tracker, portrait, monkeypatch):
    """Each frame is nearly the one before it: what counts is how far it is from the one searched."""
    shown = scene((portrait, 80, 40, 1.0)).astype(float)
    images = [(shown * step / 150).astype(np.uint8) for step in range(45)]
    track = tracker.extract(clip(images))
    monkeypatch.setattr("triptych.extractors.faces.tracker.LEVELS", 0)
    searched = tracker.extract(clip(images))
    assert 0 < track.valid.sum() < len(images)
    np.testing.assert_array_equal(track.valid, searched.valid)


def test_points_and_boxes_are_where_plain_mtcnn_has_them(tracker, naive, portrait):
    images = [scene((portrait, 60 + 2 * row, 30 + row, 1.0)) for row in range(32)]
    track = tracker.extract(clip(images))
    plain = np.zeros((8, 15))
    for index, row in enumerate(range(0, 32, 4)):
        boxes, scores, points = naive.detect(PIL.Image.fromarray(images[row]), landmarks=True)
        plain[index] = [*boxes[0], scores[0], *points[0].ravel()]
    tracked = track.values[::4]
    assert np.abs(tracked[:, :4] - plain[:, :4]).max() < 0.2 * IOD
    # Plain MTCNN's points shake by 2 to 3 % of the distance between the eyes: the means are compared.
    shift = np.arange(0, 32, 4)[:, None, None] * [2, 1]
    mine, its = points_of(tracked) - shift, points_of(plain) - shift
    assert np.linalg.norm(mine.mean(axis=0) - its.mean(axis=0), axis=1).max() < 0.04 * IOD
    assert mine.std(axis=0).mean() < 0.6 * its.std(axis=0).mean()


def test_a_detection_equals_plain_mtcnns(naive, portrait):
    image = scene((portrait, 20, 20, 0.8), (portrait[:, ::-1], 180, 60, 0.6))
    faces = Mtcnn().detect(image, 20)
    boxes, scores, points = naive.detect(PIL.Image.fromarray(image), landmarks=True)
    assert len(faces) == len(boxes) == 2
    for box, score, position in zip(boxes.astype(float), scores, points.astype(float), strict=True):
        mine = min(faces, key=lambda face, box=box: abs(face[:4] - box).max())
        assert np.abs(mine[:4] - box).max() < 6
        assert np.linalg.norm(points_of(mine) - position, axis=1).max() < 3
        assert mine[4] == pytest.approx(score, abs=0.02)


def test_runs_agree_bit_for_bit(tracker, portrait):
    images = [scene((portrait, 60 + 3 * row, 40, 0.8)) for row in range(20)]
    first, second = tracker.extract(clip(images)), FaceTracker(FacesSettings()).extract(clip(images))
    assert first.values.tobytes() == second.values.tobytes()


@pytest.mark.parametrize("images", [[], [np.full((240, 320, 3), 90, np.uint8)] * 20], ids=["empty", "plain"])
def test_no_face_is_an_error_with_its_reason(tracker, images):
    with pytest.raises(ExtractionError) as raised:
        tracker.extract(clip(images))
    assert raised.value.reason == Reason.NO_FACE
    assert str(len(images)) in raised.value.detail


@pytest.mark.parametrize("side", [1, 11, 12, 16])
def test_an_image_too_small_for_a_face_has_none(tracker, side):
    noise = np.random.default_rng(side).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    with pytest.raises(ExtractionError, match="no_face"):
        tracker.extract(clip(noise))


def test_one_frame_is_a_clip(tracker, portrait):
    track = tracker.extract(clip([scene((portrait, 60, 40, 1.0))]))
    assert track.valid.tolist() == [True]


@pytest.mark.parametrize("shape", [(40, 40), (40, 40, 1), (40, 40, 4)])
def test_an_image_that_is_not_rgb_is_refused(tracker, shape):
    with pytest.raises(ValueError, match=r"uint8 of shape \(H, W, 3\)"):
        tracker.extract(clip([np.zeros(shape, np.uint8)]))


def test_frames_of_several_sizes_in_one_clip(tracker, portrait):
    sizes = [(240, 320), (300, 320), (240, 400)]
    images = [scene((portrait, 60, 40, 1.0), height=h, width=w) for h, w in sizes for _ in range(7)]
    assert tracker.extract(clip(images)).valid.all()


def test_a_face_leaves_and_returns(tracker, portrait):
    present = [*[True] * 20, *[False] * 37, *[True] * 23]
    full, empty = scene((portrait, 60, 40, 1.0)), scene()
    track = tracker.extract(clip((full if there else empty).copy() for there in present))
    assert track.valid.tolist() == present
    assert (track.extras["n_faces"][25:50] == 0).all()
    assert not track.values[~track.valid].any()


def test_the_larger_face_is_tracked_even_when_it_shrinks(tracker, portrait):
    def image(row):
        return scene((portrait[:, ::-1], 8, 30, 0.9 - 0.008 * row), (portrait, 170, 30, 0.5 + 0.007 * row))

    track = tracker.extract(clip(image(row) for row in range(60)))
    assert track.valid.all()
    assert (middles(track)[:, 0] < 150).all()
    assert (track.extras["n_faces"] == 2).all()


def test_a_bystander_is_not_tracked_while_the_face_is_hidden(tracker, portrait):
    def image(row):
        bystander = (portrait, 190, 90, 0.6)
        return scene(bystander) if 18 <= row < 32 else scene((portrait[:, ::-1], 10, 20, 1.0), bystander)

    track = tracker.extract(clip(image(row) for row in range(48)))
    assert track.valid.tolist() == [not 18 <= row < 32 for row in range(48)]
    assert (middles(track)[track.valid, 0] < 160).all()
    assert track.extras["n_faces"][25] == 1


def test_a_bystander_is_tracked_when_the_face_stays_away(tracker, portrait):
    bystander = (portrait, 190, 90, 0.6)
    both, one = scene((portrait[:, ::-1], 10, 20, 1.0), bystander), scene(bystander)
    track = tracker.extract(clip((both if row < 18 else one).copy() for row in range(75)))
    assert not track.valid[18:45].any()
    assert track.valid[60:].all()
    assert (middles(track)[60:, 0] > 200).all()


@pytest.mark.parametrize("cut", [15, 22, 29])
@pytest.mark.parametrize("second", [(180, 80, 0.7), (80, 60, 1.0)], ids=["elsewhere", "nearly-there"])
def test_nothing_is_interpolated_across_a_cut(tracker, portrait, cut, second):
    before, after = scene((portrait, 40, 20, 1.0)), scene((portrait[:, ::-1], *second))
    homes = [tracker.extract(clip([image])).values[0] for image in (before, after)]
    track = tracker.extract(clip((before if row < cut else after).copy() for row in range(45)))
    assert track.valid.all()
    for row in range(45):
        away = np.abs(track.values[row] - homes[row >= cut])
        away[4] = 0
        assert away.max() < 0.12 * IOD, row


def test_a_repeated_frame_is_searched_once(tracker, portrait, monkeypatch):
    distinct = [scene((portrait, 60 + row, 40, 1.0)) for row in range(20)]
    looked = count_calls(monkeypatch, "refine")
    track = tracker.extract(clip(itertools.chain.from_iterable((image, image) for image in distinct)))
    assert len(track) == 40
    assert sum(looked) <= 22
    np.testing.assert_array_equal(track.values[0::2], track.values[1::2])
    assert (np.diff(middles(track)[::2, 0]) > 0.3).all()


def test_only_a_window_of_the_clip_is_in_memory(tracker, portrait):
    references: list[weakref.ref[np.ndarray]] = []
    most = 0

    def images():
        nonlocal most
        for row in range(60):
            image = scene((portrait, 60 + row / 2, 40, 1.0))
            references.append(weakref.ref(image))
            yield image
            del image
            most = max(most, sum(reference() is not None for reference in references))

    tracker.extract(clip(images()))
    assert most <= FacesSettings().keyframe_every + 2


def test_keyframes_at_every_row_give_the_same_face(portrait):
    images = [scene((portrait, 60 + 2 * row, 40, 1.0)) for row in range(8)]
    dense = FaceTracker(FacesSettings(keyframe_every=1)).extract(clip(images))
    sparse = FaceTracker(FacesSettings()).extract(clip(images))
    assert np.linalg.norm(points_of(dense.values) - points_of(sparse.values), axis=2).mean() < 0.03 * IOD


def test_a_face_at_the_edge_keeps_its_position(tracker, portrait):
    inside = tracker.extract(clip([scene((portrait, 60, 40, 1.0))])).values[0]
    track = tracker.extract(clip(scene((portrait, 60 - 3 * row, 40, 1.0)) for row in range(36)))
    shift = np.arange(36)[:, None] * [[3.0, 0.0]]
    away = np.linalg.norm(points_of(track.values) + shift[:, None] - points_of(inside), axis=2) / IOD
    # The left eye leaves the frame after row 40.
    assert track.valid[:25].all()
    assert away[:25].mean() < 0.06


def test_a_box_outside_the_image_shows_no_face(portrait):
    faces = Mtcnn().refine(
        [scene((portrait, 60, 40, 1.0))] * 2, np.array([[900, 900, 990, 990], [5, 5, 5, 5.0]], np.float32)
    )
    assert (faces[:, 4] < 0.7).all()
    assert np.isfinite(faces).all()


def test_flickers_are_dropped_and_faces_are_not():
    values = np.zeros((40, 15), np.float32)
    times = np.arange(40) / 30
    for rows, score in ((slice(2, 6), 0.85), (slice(10, 14), 0.99), (slice(20, 35), 0.85)):
        values[rows, :4] = (10, 10, 50, 60)
        values[rows, 4] = score
    _drop_flickers(values, times)
    assert np.flatnonzero(values[:, 4]).tolist() == [*range(10, 14), *range(20, 35)]


def read(path: Path) -> Iterator[Frame]:
    """Every frame as stored, turned upright."""
    with av.open(str(path)) as container:
        for slot, frame in enumerate(container.decode(video=0)):
            image = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
            yield Frame(slot, float(frame.time), np.ascontiguousarray(image))


HARD = {  # share of rows with a face, faces seen
    "two_faces_hstack.mp4": (1.0, 2),
    "two_faces_sizes.mp4": (1.0, 2),
    "multi_face_openface.mp4": (1.0, 3),
    "speaker_change_cut.mp4": (1.0, 1),
    "tiny_face_in_720p.mp4": (1.0, 1),
    "grayscale.mp4": (1.0, 1),
    "very_dark.mp4": (1.0, 1),
    "rot180_meta.mp4": (1.0, 1),
    "black_start.mp4": (122 / 167, 1),
}


@pytest.mark.parametrize("name", HARD)
def test_hard_clips(test_data, tracker, name):
    track = tracker.extract(read(test_data / "clips" / "hard" / name))
    share, faces = HARD[name]
    assert track.valid.mean() == pytest.approx(share, abs=0.01)
    assert np.median(track.extras["n_faces"][track.valid]) == faces


def test_a_room_without_a_face(test_data, tracker):
    frames = itertools.islice(read(test_data / "clips" / "hard" / "no_face_background.mp4"), 21, 27)
    with pytest.raises(ExtractionError, match="no_face"):
        tracker.extract(frames)


def test_hands_that_look_like_a_face_are_not_tracked(test_data, tracker):
    frames = itertools.islice(read(test_data / "clips" / "Raw" / "latentsync" / "0003.mp4"), 40)
    track = tracker.extract(frames)
    assert track.valid.all()
    assert (track.values[:, 3] < 600).all()


@pytest.mark.slow
def test_every_raw_clip_has_a_face_throughout(test_data, tracker):
    shares: dict[str, float] = {}
    for path in sorted((test_data / "clips" / "Raw").glob("*/*.mp4")):
        track: Features = tracker.extract(read(path))
        shares[f"{path.parent.name}/{path.name}"] = float(track.valid.mean())
        assert np.isfinite(track.values).all()
    assert len(shares) == 24
    assert {name: share for name, share in shares.items() if share < 0.99} == {}


def test_networks_are_facenet_pytorchs(naive):
    device = torch.device("cpu")
    noise = torch.rand(5, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for name, network, theirs, side in (
        ("pnet", pnet, naive.pnet, 48), ("rnet", rnet, naive.rnet, 24), ("onet", onet, naive.onet, 48)
    ):  # fmt: skip
        with torch.inference_mode():
            mine, its = (
                network(Layers(weights(name, device)), noise[..., :side, :side]),
                theirs(noise[..., :side, :side]),
            )
        for result, expected in zip(mine, (*its[:-1], its[-1][:, 1]), strict=True):
            torch.testing.assert_close(result, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
def test_onnx_networks_agree_with_torch(count):
    ours, theirs = OnnxNetworks(), TorchNetworks()
    random = np.random.default_rng(count)
    shapes = {"pnet": (1, 30 + count, 41, 3), "rnet": (count, 24, 24, 3), "onet": (count, 48, 48, 3)}
    for name, shape in shapes.items():
        images = random.integers(0, 256, shape, dtype=np.uint8)
        for mine, its in zip(getattr(ours, name)(images), getattr(theirs, name)(images), strict=True):
            assert mine.dtype == its.dtype == np.float32
            np.testing.assert_allclose(mine, its, rtol=1e-5, atol=1e-5)


def test_onnx_and_torch_track_the_same_face(portrait):
    images = [scene((portrait, 60 + 2 * row, 30 + row, 1.0)) for row in range(32)] + [scene()] * 10
    assert_same_track(clip(images), clip(images))


def test_onnx_and_torch_track_the_same_faces_of_real_clips(test_data):
    for name in ("hard/speaker_change_cut.mp4", "Raw/pyfeat/0001.mp4"):
        path = test_data / "clips" / name
        assert_same_track(*(itertools.islice(read(path), 60) for _ in range(2)))


def assert_same_track(frames, again):
    ours = FaceTracker(FacesSettings()).extract(frames)
    theirs = FaceTracker(FacesSettings(runtime="torch")).extract(again)
    assert ours.notes == theirs.notes == ()
    np.testing.assert_array_equal(ours.valid, theirs.valid)
    np.testing.assert_array_equal(ours.extras["n_faces"], theirs.extras["n_faces"])
    difference = np.abs(ours.values - theirs.values)[theirs.valid]
    assert np.median(difference) < 1e-3
    assert difference.max() < 0.05


def test_networks_without_export_run_on_torch_with_a_note(portrait, tmp_path, monkeypatch):
    def refused(*arguments):
        raise ExportError("uses an operator that ONNX has not")

    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path))
    monkeypatch.setattr("triptych.extractors.faces.onnx_networks.export", refused)
    images = [scene((portrait, 60, 40, 1.0))]
    track = FaceTracker(FacesSettings()).extract(clip(images))
    assert track.notes == ("computed by torch, not ONNX Runtime: uses an operator that ONNX has not",)
    expected = FaceTracker(FacesSettings(runtime="torch")).extract(clip(images))
    assert track.values.tobytes() == expected.values.tobytes()


def test_suppression_is_torchvisions():
    rng = np.random.default_rng(0)
    corner, side, scores = rng.uniform(0, 60, (400, 2)), rng.uniform(4, 40, (400, 2)), rng.random(400)
    boxes = np.hstack([corner, corner + side]).astype(np.float32)
    for overlap in (0.5, 0.7):
        expected = nms(torch.from_numpy(boxes), torch.from_numpy(scores.astype(np.float32)), overlap)
        assert _suppress(boxes, scores.astype(np.float32), overlap).tolist() == expected.tolist()
    assert len(_suppress(boxes[:0], scores[:0].astype(np.float32), 0.5)) == 0
