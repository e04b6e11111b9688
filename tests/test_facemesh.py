"""FaceMesh's 709 columns on a portrait that is moved by known amounts, and against real OpenFace output."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from triptych.extractors.base import BackendMissingError, ExtractionError, Features, Frame, Reason
from triptych.extractors.vision.columns import AU_INTENSITIES, VISION_COLUMNS, VISION_GROUPS
from triptych.extractors.vision.stage import VisionSettings

cv2 = pytest.importorskip("cv2")
pytest.importorskip("ai_edge_litert")
cbook = pytest.importorskip("matplotlib.cbook")

from triptych.extractors.faces.crops import Aligned  # noqa: E402
from triptych.extractors.faces.stage import FacesSettings  # noqa: E402
from triptych.extractors.faces.tracker import FaceTracker, aligned  # noqa: E402
from triptych.extractors.vision.facemesh import backend, pose, shape  # noqa: E402
from triptych.extractors.vision.facemesh.backend import FaceMesh  # noqa: E402
from triptych.extractors.vision.facemesh.landmarks import EYE_MIRROR, MIRROR_68, spread  # noqa: E402

Image = np.ndarray


WHOLE = VisionSettings(input="frame")


@cache
def tracker() -> FaceTracker:
    return FaceTracker(FacesSettings())


def clip(images: list[Image]) -> list[Aligned]:
    """Frames with the track of the face in them."""
    frames = [Frame(slot, slot / 30, image) for slot, image in enumerate(images)]
    return list(aligned(frames, tracker().extract(frames), WHOLE))


def tracked(image: Image, found: bool, time: float = 0.0) -> Aligned:
    """A frame whose track claims a face in the middle of the image, or none."""
    height, width = image.shape[:2]
    parts = (0.3, 0.3, 0.7, 0.7, 0, 0.4, 0.45, 0.6, 0.45, 0.5, 0.55, 0.42, 0.62, 0.58, 0.62)
    face = np.array(parts, np.float32)
    face[[0, 2, *range(5, 15, 2)]] *= width
    face[[1, 3, *range(6, 15, 2)]] *= height
    return Aligned(round(30 * time), time, image, found, face)


def column(features: Features, name: str) -> np.ndarray:
    return features.values[:, features.columns.index(name)].astype(float)


def group(features: Features, name: str) -> np.ndarray:
    names = [column for column, _ in VISION_GROUPS[name]]
    start = features.columns.index(names[0])
    return features.values[:, start : start + len(names)].astype(float)


def points_2d(features: Features) -> np.ndarray:
    return group(features, "landmarks_2d").reshape(-1, 2, 68).transpose(0, 2, 1)


def warp(image: Image, matrix: np.ndarray) -> Image:
    return cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def roll(image: Image, degrees: float) -> Image:
    """Turned clockwise in the image, about its middle."""
    height, width = image.shape[:2]
    return warp(image, cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1.0))


@pytest.fixture(scope="module")
def mesh() -> FaceMesh:
    return FaceMesh(WHOLE)


@pytest.fixture(scope="module")
def portrait() -> Image:
    """Matplotlib's sample photograph, Grace Hopper, RGB, shape (600, 512, 3)."""
    with cbook.get_sample_data("grace_hopper.jpg", asfileobj=True) as file:
        data = np.frombuffer(file.read(), np.uint8)
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


@pytest.fixture(scope="module")
def still(mesh: FaceMesh, portrait: Image) -> Features:
    return mesh.extract(clip([portrait] * 5))


def by_columns(image: Image, source: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Image:
    """Each pixel (x, y) of the result taken from (x, source(x, y))."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    return cv2.remap(
        image, x, source(x, y).astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def close_lids(image: Image, still: Features, amount: float) -> Image:
    """The upper lids slid down over the eyes by a share of their opening."""
    eyes = group(still, "eye_landmarks_2d")[0].reshape(2, 2, 28)
    for (lid_x, lid_y), brow in zip(eyes.transpose(1, 0, 2), (19, 24), strict=True):
        left, right = lid_x[8], lid_x[14]
        top = points_2d(still)[0, brow, 1]

        def source(x: np.ndarray, y: np.ndarray, lid_x=lid_x, lid_y=lid_y, left=left, right=right, top=top):
            upper = np.interp(x, lid_x[8:15], lid_y[8:15])
            lower = np.interp(x, lid_x[[8, *range(19, 13, -1)]], lid_y[[8, *range(19, 13, -1)]])
            edge = upper + amount * (lower - upper)
            pulled = top + (y - top) * (upper - top) / (edge - top)
            return np.where((x > left) & (x < right) & (y > top) & (y < edge), pulled, y)

        image = by_columns(image, source)
    return image


def open_mouth(image: Image, still: Features, pixels: float) -> Image:
    """Lower lip and chin pulled down, the gap between the lips dark."""
    points = points_2d(still)[0]
    (left, _), (right, _), chin = points[60], points[64], points[8, 1]
    line = points[[61, 62, 63, 65, 66, 67], 1].mean()
    middle, half = (left + right) / 2, (right - left) / 2
    end = float(image.shape[0])
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    across = np.clip((x - middle) / half, -1, 1)
    jaw = pixels * np.exp(-(((x - middle) / (3 * half)) ** 4))
    gap = jaw * np.sqrt(1 - across**2)

    def source(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        inside = line + (y - line - gap) * (chin - line) / (chin + jaw - line - gap)
        below = chin + (y - chin - jaw) * (end - chin) / (end - chin - jaw)
        moved = np.where(y < chin + jaw, inside, below)
        return np.where(y < line + gap, y, moved)

    opened = by_columns(image, source)
    opened[(y >= line) & (y < line + gap)] = (50, 15, 15)
    return opened


def test_709_named_columns(still: Features) -> None:
    assert still.values.shape == (5, 709)
    assert still.values.dtype == np.float32
    assert tuple(zip(still.columns, still.units, strict=True)) == VISION_COLUMNS
    assert still.extras["confidence"].dtype == np.float32
    assert still.valid.all()
    assert np.isfinite(still.values).all()
    assert np.allclose(still.times, np.arange(5) / 30)


def test_missing_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(BackendMissingError, match=r"pip install 'triptych\[facemesh\]'"):
        FaceMesh(VisionSettings())


@pytest.mark.parametrize("found", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (24, 24), (240, 320)])
def test_no_face_anywhere(mesh: FaceMesh, size: tuple[int, int], found: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    with pytest.raises(ExtractionError) as error:
        mesh.extract([tracked(image, found) for image in noise])
    assert error.value.reason is Reason.NO_FACE
    with pytest.raises(ExtractionError):
        mesh.extract([])


def test_rows_without_a_face_stay_as_zeros(mesh: FaceMesh, portrait: Image) -> None:
    noise = np.random.default_rng(1).integers(0, 256, portrait.shape, dtype=np.uint8)
    frames = clip([portrait] * 5)
    frames[2] = frames[2]._replace(image=noise)
    frames[4] = frames[4]._replace(found=False)
    features = mesh.extract(frames)
    assert features.valid.tolist() == [True, True, False, True, False]
    assert not features.values[~features.valid].any()
    assert features.extras["confidence"][2] < 0.2
    assert features.extras["confidence"][4] == 0
    assert (features.extras["confidence"][features.valid] > 0.5).all()
    assert np.allclose(features.times, np.arange(5) / 30)
    with pytest.raises(ExtractionError):
        mesh.extract([frames[4]])


def covered(image: Image, face: np.ndarray, part: float) -> Image:
    """The face's lower part behind a grey sheet."""
    x, y, right, bottom = face[:4].astype(int)
    hidden = image.copy()
    hidden[int(bottom - part * (bottom - y)) : bottom + 40, x - 40 : right + 40] = 128
    return hidden


def test_a_covered_face_is_marked_and_min_confidence_decides(portrait: Image) -> None:
    frames = clip([portrait] * 6)
    parts = (0, 0, 0.5, 0.8, 1, 0)
    shown = [
        frame._replace(image=covered(portrait, frame.face, part) if part else portrait)
        for frame, part in zip(frames, parts, strict=True)
    ]
    every = FaceMesh(WHOLE.model_copy(update={"min_confidence": 0.0})).extract(shown)
    confidence = every.extras["confidence"]
    assert every.valid.all()
    assert (confidence[[0, 1, 5]] > 0.9).all()
    assert 0.5 < confidence[2] < confidence[1]
    assert (confidence[[3, 4]] < 0.3).all()
    for least in (0.5, 0.9):
        found = FaceMesh(WHOLE.model_copy(update={"min_confidence": least})).extract(shown)
        assert (found.valid == (found.extras["confidence"] >= least)).all()
        assert not found.values[~found.valid].any()
        assert not found.valid[4]
        assert found.valid[[0, 1, 5]].all()


def test_a_cut_to_another_place_starts_from_the_track(mesh: FaceMesh, portrait: Image) -> None:
    wide = cv2.copyMakeBorder(portrait, 0, 0, 0, 600, cv2.BORDER_REPLICATE)
    other = np.roll(wide, 560, axis=1)
    later = [one._replace(time=one.time + 0.4) for one in clip([other] * 12)]
    points = np.stack(mesh.watch(clip([wide] * 12) + later).meshes)[:, :, :2]
    assert len(points) == 24
    for after in (12, 23):  # no smoothing across the cut
        assert np.allclose(points[after] - points[5], [560, 0], atol=1)


def test_one_frame_is_a_clip(mesh: FaceMesh, portrait: Image, still: Features) -> None:
    alone = mesh.extract(clip([portrait]))
    assert np.isfinite(alone.values).all()
    assert np.abs(points_2d(alone)[0] - points_2d(still)[0]).max() < 2


def test_a_clip_does_not_depend_on_the_one_before(mesh: FaceMesh, portrait: Image) -> None:
    frames = clip([roll(portrait, angle) for angle in (0, 4, 8)])
    first = mesh.extract(frames)
    mesh.extract(clip([np.ascontiguousarray(portrait[::2, ::-2])] * 2))
    assert np.array_equal(first.values, mesh.extract(frames).values)
    with pytest.raises(ZeroDivisionError):
        mesh.extract(tracked(image, True, k / 0) for k, image in enumerate([portrait]))
    assert np.array_equal(first.values, mesh.extract(frames).values)


PROCESS = """
import hashlib, cv2, matplotlib.cbook, numpy as np
from triptych.extractors.faces.crops import Aligned
from triptych.extractors.vision.facemesh.backend import FaceMesh
from triptych.extractors.vision.stage import VisionSettings
face = np.array([{face}], np.float32)
image = cv2.imread(str(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))[..., ::-1]
values = FaceMesh(VisionSettings()).extract(Aligned(k, k / 30, image, True, face) for k in range(20)).values
print(hashlib.sha256(values.tobytes()).hexdigest())
"""


def test_parallel_processes_agree_bit_for_bit_and_print_nothing(mesh: FaceMesh, portrait: Image) -> None:
    root = Path(__file__).parent.parent
    face = clip([portrait])[0].face
    code = PROCESS.format(face=", ".join(map(repr, face.tolist())))
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    (one, noise_one), (two, noise_two) = (run.communicate(timeout=120) for run in runs)
    frames = [Aligned(k, k / 30, portrait, True, face) for k in range(20)]
    here = hashlib.sha256(mesh.extract(frames).values.tobytes()).hexdigest()
    assert one.decode().strip() == two.decode().strip() == here
    assert noise_one == noise_two == b""


def test_long_clips_are_solved_in_blocks(
    mesh: FaceMesh, portrait: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = clip([roll(portrait, angle) for angle in (0, 3, 6, 9, 12)])
    whole = mesh.extract(frames).values
    monkeypatch.setattr(backend, "_BLOCK", 2)
    assert np.allclose(mesh.extract(frames).values, whole, atol=1e-3)


def test_roll_has_its_sign_and_size(mesh: FaceMesh, portrait: Image) -> None:
    degrees = np.concatenate([np.zeros(5), np.linspace(0, 20, 15), np.linspace(20, -20, 30)])
    rz = np.degrees(column(mesh.extract(clip([roll(portrait, angle) for angle in degrees])), "pose_Rz"))
    error = rz - rz[:5].mean() - degrees
    assert np.abs(error).max() < 1.5
    assert np.corrcoef(rz, degrees)[0, 1] > 0.99


def test_landmarks_follow_the_image(mesh: FaceMesh, portrait: Image, still: Features) -> None:
    before = points_2d(still)[-1]
    for matrix in ([[1, 0, 40], [0, 1, -25]], [[0.7, 0, 60], [0, 0.7, 60]]):
        matrix = np.array(matrix, float)
        after = points_2d(mesh.extract(clip([warp(portrait, matrix)] * 5)))[-1]
        width = np.linalg.norm(after[36] - after[45])
        assert np.abs(after - (before @ matrix[:, :2].T + matrix[:, 2])).max() < 0.05 * width


def test_crop_columns_are_in_the_crops_frame(mesh: FaceMesh, portrait: Image, still: Features) -> None:
    left, top, side = 130, 20, 270
    crop = cv2.resize(
        portrait[top : top + side, left : left + side], (224, 224), interpolation=cv2.INTER_AREA
    )
    features = mesh.extract(clip([crop] * 5))
    expected = (points_2d(still)[-1] - [left, top]) * 224 / side
    assert np.abs(points_2d(features)[-1] - expected).mean() < 3
    # f = 204 at 224 x 224: a head that fills the image is nearer to that camera than to the portrait's.
    eyes = np.linalg.norm(expected[36] - expected[45])
    assert column(features, "pose_Tz")[-1] == pytest.approx(204.2 * pose.EYES_WIDTH / eyes, rel=0.2)


def test_mirrored_image_gives_the_mirrored_face(mesh: FaceMesh, portrait: Image) -> None:
    images = [roll(portrait, angle) for angle in (0, 0, 5, 10)]
    original = mesh.extract(clip(images))
    flipped = mesh.extract(clip([np.ascontiguousarray(image[:, ::-1]) for image in images]))
    width = portrait.shape[1]
    mirrored = points_2d(flipped)[:, list(MIRROR_68)] * [-1, 1] + [width, 0]
    assert np.abs(mirrored - points_2d(original)).mean() < 2
    eyes, other = (group(f, "eye_landmarks_2d").reshape(-1, 2, 2, 28) for f in (original, flipped))
    other = other[:, :, ::-1, list(EYE_MIRROR)]
    assert np.abs(width - other[:, 0] - eyes[:, 0]).mean() < 2
    assert np.abs(other[:, 1] - eyes[:, 1]).mean() < 2
    for name, sign in (
        ("pose_Rx", 1),
        ("pose_Ry", -1),
        ("pose_Rz", -1),
        ("gaze_angle_x", -1),
        ("gaze_angle_y", 1),
    ):
        bound = np.radians(4.5 if name.startswith("gaze") else 4)  # gaze takes the head's error along
        assert np.abs(column(original, name) - sign * column(flipped, name)).max() < bound, name


def test_points_gaze_and_scale_hang_together(still: Features, portrait: Image) -> None:
    camera = pose.Camera.of_image(portrait.shape[1], portrait.shape[0])
    face = group(still, "landmarks_3d").reshape(-1, 3, 68).transpose(0, 2, 1)
    assert np.allclose(camera.project(face), points_2d(still), atol=0.05)
    eyes = group(still, "eye_landmarks_3d").reshape(-1, 3, 56).transpose(0, 2, 1)
    pixels = group(still, "eye_landmarks_2d").reshape(-1, 2, 56).transpose(0, 2, 1)
    assert np.allclose(camera.project(eyes), pixels, atol=0.05)
    assert np.allclose(np.linalg.norm(group(still, "gaze")[:, :6].reshape(-1, 2, 3), axis=-1), 1, atol=1e-5)
    assert np.allclose(column(still, "p_scale"), camera.focal / face[..., 2].mean(1), rtol=1e-4)
    assert np.abs(column(still, "pose_Tz") - face[..., 2].mean(1)).max() < 15
    iris = np.linalg.norm(eyes[:, [0, 28]] - eyes[:, [4, 32]], axis=-1)
    assert ((iris > 10) & (iris < 13.5)).all()  # an adult iris is 11.7 mm wide: nothing here was given that


def test_mouth_opening_is_found(mesh: FaceMesh, portrait: Image, still: Features) -> None:
    opening = 12 * (1 - np.cos(np.linspace(0, 4 * np.pi, 60)))
    features = mesh.extract(clip([open_mouth(portrait, still, pixels) for pixels in opening]))
    for name in ("AU25_r", "AU26_r"):
        assert np.corrcoef(column(features, name), opening)[0, 1] > 0.9, name
    assert column(features, "AU25_r").max() > 2
    assert column(features, "AU25_c")[opening > 20].all()
    assert not column(features, "AU25_c")[opening < 1].any()
    for unit in ("01", "02", "04", "05", "06", "07", "09", "12", "15", "45"):
        assert column(features, f"AU{unit}_r").max() < 1.5, unit
        # The warp also moves what the network reads a smile from.
        assert column(features, f"AU{unit}_r").mean() < (0.75 if unit == "12" else 0.5), unit


def test_blinks_are_found(mesh: FaceMesh, portrait: Image, still: Features) -> None:
    closed = np.zeros(60)
    for start in (10, 28, 45):
        closed[start : start + 5] = (0.4, 0.9, 1, 0.7, 0.3)
    features = mesh.extract(clip([close_lids(portrait, still, amount) for amount in closed]))
    blink = column(features, "AU45_r")
    assert np.corrcoef(blink, closed)[0, 1] > 0.9
    assert blink.max() > 2
    assert set(np.flatnonzero(column(features, "AU45_c"))) >= {12, 30, 47}
    for unit in ("09", "10", "12", "15", "17", "20", "25", "26"):
        assert column(features, f"AU{unit}_r").max() < 1, unit


def test_moving_the_head_is_no_action(mesh: FaceMesh, portrait: Image) -> None:
    wave = np.sin(np.linspace(0, 4 * np.pi, 40))
    images = []
    for part in wave:
        matrix = cv2.getRotationMatrix2D((256, 300), 10 * part, 1 - 0.1 * part)
        matrix[:, 2] += [20 * part, 10 * part]
        images.append(warp(portrait, matrix))
    intensity = group(mesh.extract(clip(images)), "au_intensity")
    assert intensity.shape[1] == len(AU_INTENSITIES)
    assert intensity.mean() < 0.3
    assert intensity[:, AU_INTENSITIES.index("45")].max() < 1


def test_euler_angles_are_those_of_rx_ry_rz() -> None:
    angles = np.radians([[10, -20, 30], [-5, 40, -70]])
    x, y, z = (
        np.stack([cv2.Rodrigues(np.eye(3)[axis] * angle)[0] for angle in angles[:, axis]])
        for axis in range(3)
    )
    assert np.allclose(pose.euler_angles(x @ y @ z), angles)


def test_facing_turns_the_axis_to_the_direction() -> None:
    directions = np.array([[0.3, -0.2, 1.0], [0.0, 0.0, 5.0]])
    turned = pose.facing(directions) @ np.array([0, 0, 1.0])
    assert np.allclose(turned, directions / np.linalg.norm(directions, axis=1, keepdims=True))


def test_align_recovers_rotation_and_scale() -> None:
    source = np.random.default_rng(2).normal(size=(9, 3))
    rotation = cv2.Rodrigues(np.array([0.3, -0.5, 0.2]))[0]
    found, scale = pose.align(source, (2.5 * source @ rotation.T + 7)[None])
    assert np.allclose(found[0], rotation)
    assert scale[0] == pytest.approx(2.5)


def test_spread_is_even_along_the_line() -> None:
    line = np.array([[[0, 0], [1, 0], [1, 3]], [[0, 0], [0, 0], [4, 0]]], float)
    assert np.allclose(spread(line, 5)[0], [[0, 0], [1, 0], [1, 1], [1, 2], [1, 3]])
    assert np.allclose(spread(line, 5)[1], [[0, 0], [1, 0], [2, 0], [3, 0], [4, 0]])


def test_shape_basis_is_the_graphs_own() -> None:
    assert {frozenset((MIRROR_68[a], MIRROR_68[b])) for a, b in shape.EDGES} == set(
        map(frozenset, shape.EDGES)
    )
    modes = shape.modes()
    assert modes.shape == (17, 68)
    assert np.allclose(modes @ modes.T / 68, np.eye(17))
    assert np.allclose(modes.sum(1), 0)  # moving the whole face changes no coefficient
    coefficients = shape.coefficients(np.stack([np.zeros((68, 3)), np.outer(modes[3], [2, -5, 9])]))
    assert np.allclose(np.flatnonzero(coefficients[1].round(9)), [6, 7])
    assert np.allclose(coefficients[1, 6:8], [2, -5])


@pytest.mark.parametrize(("name", "rx", "gaze_x"), [("default", 0.85, 0.85), ("changeLighting", 0.4, 0.3)])
def test_agreement_with_openface(test_data: Path, name: str, rx: float, gaze_x: float) -> None:
    """Loosely below what tests/bench/facemesh_agreement.py prints; in changeLighting the head hardly nods."""
    from bench.facemesh_agreement import agreement, extract, read_openface

    openface = read_openface(test_data / "openface" / f"{name}.csv")
    table = agreement(extract(test_data / "openface" / f"{name}.wmv", WHOLE), openface)
    assert table["face found, %"] == 100
    assert table["68 points, % of eye distance"] < 3.5
    assert table["inner 51, % of eye distance"] < 3.2
    assert table["eye points, % of eye distance"] < 2.5
    for angle, bound, r in (("Rx", 4.5, rx), ("Ry", 5, 0.83), ("Rz", 1.2, 0.95)):
        assert table[f"pose_{angle}, error in degrees"] < bound, angle
        assert table[f"pose_{angle}, r"] > r, angle
    assert table["gaze_angle_x, r"] > gaze_x
    assert table["gaze_angle_x, error in degrees"] < 3
    assert table["gaze_angle_y, error in degrees"] < 4
    assert table["pose_Tx, error in mm"] < 5
    assert table["AU12_r, r"] > 0.6
    assert table["AU_c alike, %"] >= table["AU_c alike if always 0, %"]
    assert table["AU_r, mean level"] < 4 * table["AU_r, OpenFace's mean level"]
    if name == "default":  # the other face hardly moves, the light does
        for unit, r in (("06", 0.7), ("12", 0.9), ("25", 0.8), ("26", 0.65), ("45", 0.7)):
            assert table[f"AU{unit}_r, r"] > r, unit
