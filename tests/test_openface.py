"""OpenFace's wrapper against a stand-in that fails as the real program does; each guard has its test."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import openface_stand_in
import pytest

from triptych.extractors.base import BackendMissingError, ExtractionError, Features
from triptych.extractors.faces.crops import Aligned
from triptych.extractors.vision.columns import VISION_COLUMNS
from triptych.extractors.vision.openface import backend, images, process, program, scratch
from triptych.extractors.vision.openface.backend import OpenFace
from triptych.extractors.vision.stage import VisionSettings

NAMES = [name for name, _ in VISION_COLUMNS]
Results = dict[str, Features | ExtractionError]


class Bench:
    """A stand-in installed in a folder of its own, with all scratch space beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.memory, self.disk = folder / "memory", folder / "tmp"
        for made in (self.state, self.memory, self.disk):
            made.mkdir()
        self.program = openface_stand_in.install(folder / "openface" / "bin")

    def calls(self) -> list[dict]:
        log = self.state / "calls.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def clips_of_calls(self) -> list[list[str]]:
        """Return the names of the clips in each call, without their numbers."""
        words = [call["argv"] for call in self.calls()]
        return [[Path(b).name.partition("-")[2] for a, b in pairwise(call) if a == "-fdir"] for call in words]

    def hanging(self) -> list[int]:
        log = self.state / "hanging"
        return [int(pid) for pid in log.read_text().split()] if log.exists() else []

    def left(self) -> list[Path]:
        return [*self.memory.iterdir(), *self.disk.iterdir()]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path)
    monkeypatch.setenv("OPENFACE_BIN", str(made.program))
    monkeypatch.setenv("OPENFACE_STAND_IN_STATE", str(made.state))
    monkeypatch.setattr(scratch, "MEMORY", made.memory)
    monkeypatch.setattr("tempfile.tempdir", str(made.disk))
    yield made
    for pid in made.hanging():
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit every run to a short time."""
    monkeypatch.setattr(program, "START_FRAMES", 0)
    monkeypatch.setenv("OPENFACE_SECONDS_PER_FRAME", "0.5")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pids: list[int], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(alive, pids))


def shown(
    count: int = 4, seed: int = 0, size: tuple[int, int] = (64, 64), first: float = 0.5
) -> list[Aligned]:
    """Images of noise."""
    rng = np.random.default_rng(seed)
    return [
        Aligned(
            slot + 15,
            first + slot / 30,
            rng.integers(1, 255, (*size, 3), dtype=np.uint8),
            True,
            np.zeros(15, np.float32),
        )
        for slot in range(count)
    ]


def read(settings: VisionSettings | None = None, **clips: list[Aligned]) -> Results:
    openface = OpenFace(settings or VisionSettings())
    for clip, frames in clips.items():
        openface.add(clip, frames)
    return openface.finish()


def several(*names: str, count: int = 4) -> dict[str, list[Aligned]]:
    return {name: shown(count, seed) for seed, name in enumerate(names)}


def expected(frames: list[Aligned]) -> np.ndarray:
    """What the stand-in says of images in their order."""
    sums = [openface_stand_in.checksum(images.bmp(frame.image)[54:]) for frame in frames]
    return np.array(sums, np.float32)


def column(features: Features | ExtractionError, name: str) -> np.ndarray:
    assert isinstance(features, Features), features
    return features.values[:, NAMES.index(name)]


def assert_whole(results: Results, clips: dict[str, list[Aligned]]) -> None:
    """Every clip has a row an image, its own, of a sequence that was read to its end."""
    assert set(results) == set(clips)
    for clip, frames in clips.items():
        np.testing.assert_array_equal(column(results[clip], "x_0"), expected(frames), err_msg=clip)
        assert (column(results[clip], "AU01_r") == float(openface_stand_in.CALIBRATED)).all(), clip


def reason(result: Features | ExtractionError) -> str:
    assert isinstance(result, ExtractionError), "it has features"
    return str(result.reason)


# -- calling it -----------------------------------------------------------------------------------------


def test_clips_of_one_call_get_their_own_rows(bench: Bench) -> None:
    clips = several("a", "b", "c")
    results = read(**clips)
    assert_whole(results, clips)
    assert bench.clips_of_calls() == [["a", "b", "c"]], "one process for all"
    features = results["b"]
    assert isinstance(features, Features)
    assert features.columns == tuple(NAMES)
    np.testing.assert_array_equal(features.times, [frame.time for frame in clips["b"]])
    np.testing.assert_allclose(features.extras["confidence"], 0.98, rtol=1e-6)
    assert features.valid.all()
    assert features.values.dtype == features.extras["confidence"].dtype == np.float32


def test_images_are_read_in_the_order_of_their_numbers(bench: Bench) -> None:
    clips = {"long": shown(23)}  # 10.bmp comes before 2.bmp
    assert_whole(read(**clips), clips)


def test_the_program_is_called_by_its_real_absolute_path(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bench.folder / "bin").mkdir()
    (bench.folder / "bin" / "FeatureExtraction").symlink_to(bench.program)
    monkeypatch.chdir(bench.folder)
    for setting in ("bin/FeatureExtraction", ""):
        monkeypatch.setenv("OPENFACE_BIN", setting)
        monkeypatch.setenv("PATH", "bin", prepend=os.pathsep)
        assert_whole(read(a=shown()), {"a": shown()})
    assert {call["argv"][0] for call in bench.calls()} == {str(bench.program)}


def test_it_runs_in_an_empty_folder(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (bench.folder / "here" / "model").mkdir(parents=True)  # would be taken for its models, and crash it
    monkeypatch.chdir(bench.folder / "here")
    assert_whole(read(a=shown()), {"a": shown()})
    assert [call["in_cwd"] for call in bench.calls()] == [[]]


def test_every_call_has_a_fresh_output_folder(bench: Bench) -> None:
    clips = several("a", "short-once-1", "skipped-once-2", "b")
    assert_whole(read(**clips), clips)
    calls = bench.calls()
    assert len(calls) > 2
    assert [call["in_out"] for call in calls] == [[]] * len(calls)
    assert len({call["argv"][-1] for call in calls}) == len(calls)


def test_no_name_goes_through_a_shell(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = bench.folder / '-a b\'s "我" $(touch pwned); é.x'
    odd.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(odd))
    monkeypatch.setattr(scratch, "MEMORY", odd)
    moved = openface_stand_in.install(odd / "open face")
    monkeypatch.setenv("OPENFACE_BIN", str(moved))
    monkeypatch.chdir(bench.folder)
    clips = {"-x y": shown(), "$(touch pwned)": shown(seed=1), "我/们": shown(seed=2)}
    assert_whole(read(**clips), clips)
    assert not list(bench.folder.rglob("pwned"))


def test_names_that_would_meet_in_one_file_stay_separate(bench: Bench) -> None:
    clips = several("v$_$1.a", "v$_$1,a", "v__1_a", "v$_$1.b", "x" * 300)
    assert_whole(read(**clips), clips)


def test_all_714_columns_are_asked_for(bench: Bench) -> None:
    read(a=shown())
    flags = [word for word in bench.calls()[0]["argv"] if word.startswith("-")]
    assert flags == ["-2Dfp", "-3Dfp", "-pdmparams", "-pose", "-aus", "-gaze", "-fdir", "-out_dir"]


@pytest.mark.parametrize("separator", [",", ", "])
def test_both_separators_are_read(bench: Bench, monkeypatch: pytest.MonkeyPatch, separator: str) -> None:
    monkeypatch.setenv("OPENFACE_STAND_IN_SEPARATOR", separator)
    assert_whole(read(a=shown()), {"a": shown()})


def test_other_columns_end_the_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENFACE_STAND_IN_COLUMNS", "other")
    with pytest.raises(BackendMissingError, match=r"misses 35 of the 714 .*AU01_r"):
        read(a=shown())
    assert not bench.left()


def test_the_time_allowed_grows_with_the_images(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    run = process.run

    def watched(arguments: list[str], folder: Path, seconds: float) -> process.Ending:
        given.append(seconds)
        return run(arguments, folder, seconds)

    monkeypatch.setattr(backend, "run", watched)
    monkeypatch.setenv("OPENFACE_SECONDS_PER_FRAME", "0.25")
    read(a=shown(2))
    read(a=shown(2), b=shown(10))
    assert given == [0.25 * (program.START_FRAMES + 2), 0.25 * (program.START_FRAMES + 12)]


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf"])
def test_a_senseless_time_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OPENFACE_SECONDS_PER_FRAME", value)
    with pytest.raises(BackendMissingError, match="OPENFACE_SECONDS_PER_FRAME"):
        program.seconds_allowed(1)


def test_a_crash_leaves_no_memory_image(bench: Bench) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == 0:
        pytest.skip("this system allows none anyway")
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        read(a=shown())
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    assert bench.calls()[0]["core"] == 0


# -- failing --------------------------------------------------------------------------------------------


def test_status_0_without_a_table_is_a_failure(bench: Bench) -> None:
    clips = several("a", "skipped-1", "b", "c")
    results = read(**clips)
    failed = results.pop("skipped-1")
    assert reason(failed) == "openface_short"
    assert "no table" in str(failed)
    assert_whole(results, {name: clips[name] for name in "abc"})
    assert sorted(bench.clips_of_calls(), key=len) == [
        ["skipped-1"],
        ["b", "c"],
        ["a", "skipped-1", "b", "c"],
    ]


def test_a_clip_that_could_not_be_opened_is_retried_alone(bench: Bench) -> None:
    clips = several("a", "skipped-once-1", "b")
    assert_whole(read(**clips), clips)
    assert ["skipped-once-1"] in bench.clips_of_calls()


def test_fewer_rows_than_images_are_no_features(bench: Bench) -> None:
    clips = several("a", "short-1", "b")
    results = read(**clips)
    failed = results.pop("short-1")
    assert reason(failed) == "openface_short"
    assert "2 rows" in str(failed)
    assert "4 images" in str(failed)
    assert_whole(results, {name: clips[name] for name in "ab"})
    assert bench.clips_of_calls() == [["a", "short-1", "b"], ["short-1"]], "only what is missing"


def test_an_undecodable_image_does_not_truncate_a_clip(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    good, frames = images.bmp, shown(6)
    monkeypatch.setattr(images, "bmp", lambda image: b"?" if image is frames[3].image else good(image))
    results = read(a=shown(), b=frames)
    assert reason(results["b"]) == "openface_short"
    assert isinstance(results["a"], Features)


def test_an_undecodable_first_image_costs_only_its_clip(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, clips = images.bmp, several("a", "b", "c", "d")
    monkeypatch.setattr(images, "bmp", lambda image: b"?" if image is clips["c"][0].image else good(image))
    results = read(**clips)
    monkeypatch.undo()
    failed = results.pop("c")
    assert reason(failed) == "openface_crashed"
    assert "SIGFPE" in str(failed)
    assert_whole(results, {name: clips[name] for name in "abd"})


def test_a_tiny_image_is_refused_before_it_can_crash_the_run(bench: Bench) -> None:
    openface = OpenFace(VisionSettings())
    openface.add("a", shown())
    with pytest.raises(ExtractionError, match="frame_too_small: an image of 64 x 24"):
        openface.add("tiny", shown(size=(24, 64)))
    assert_whole(openface.finish(), {"a": shown()})
    assert bench.clips_of_calls() == [["a"]]


def test_a_clip_without_images_is_not_handed_on(bench: Bench) -> None:
    openface = OpenFace(VisionSettings())
    with pytest.raises(ExtractionError, match="no_face"):
        openface.add("empty", [])
    assert openface.finish() == {}
    assert not bench.calls()


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGFPE", "SIGKILL"])
def test_a_clip_that_crashes_it_twice_reports_the_signal(bench: Bench, name: str) -> None:
    clips = several("a", "b", f"kills-{name}", "c", "d")
    results = read(**clips)
    failed = results.pop(f"kills-{name}")
    assert reason(failed) == "openface_crashed"
    assert f"was killed by {name}" in str(failed)
    assert f"about to die of {name}" in str(failed)
    assert_whole(results, {clip: clips[clip] for clip in "abcd"})
    assert bench.clips_of_calls().count([f"kills-{name}"]) == 1, "once in company, once alone"


def test_a_table_is_taken_only_from_a_run_that_ended_by_itself(bench: Bench) -> None:
    # It dies having written every row, but before the action units are calibrated.
    clips = several("a", "kills-SIGSEGV-once-1", "b")
    assert_whole(read(**clips), clips)
    assert_whole(read(alone=shown()), {"alone": shown()})


def test_a_table_of_a_run_that_was_ended_is_not_taken(bench: Bench, hasty: None) -> None:
    clips = several("a", "hangs-once-1", "b")
    assert_whole(read(**clips), clips)


@pytest.mark.usefixtures("hasty")
def test_a_clip_on_which_it_hangs_twice_is_a_timeout(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENFACE_STAND_IN_CHILD", "1")
    clips = several("a", "hangs-1", "b")
    results = read(**clips)
    failed = results.pop("hangs-1")
    assert reason(failed) == "timeout"
    assert "did not end within" in str(failed)
    assert_whole(results, {name: clips[name] for name in "ab"})
    assert len(bench.hanging()) == 4, "the program and its child, twice"
    assert gone(bench.hanging())
    assert not bench.left()


def test_a_status_other_than_0_is_a_crash(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # A shell script around the program says 128 + 11 where the program was killed.
    script = bench.folder / "wrapper"
    script.write_text(f'#!/bin/sh\n"{bench.program}" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("OPENFACE_BIN", str(script))
    results = read(**several("a", "kills-SIGSEGV"))
    assert reason(results["kills-SIGSEGV"]) == "openface_crashed"
    assert "SIGSEGV" in str(results["kills-SIGSEGV"])
    assert isinstance(results["a"], Features)


def test_many_failures_in_one_run_cost_nobody_else(bench: Bench) -> None:
    names = [f"clip-{i}" for i in range(12)]
    for index, deed in {
        0: "kills-SIGSEGV",
        3: "short",
        4: "kills-SIGABRT",
        5: "skipped",
        11: "kills-SIGFPE",
    }.items():
        names[index] = f"{deed}-{index}"
    clips = several(*names)
    results = read(**clips)
    reasons = {
        name: reason(result) for name, result in results.items() if isinstance(result, ExtractionError)
    }
    assert reasons == {
        "kills-SIGSEGV-0": "openface_crashed",
        "short-3": "openface_short",
        "kills-SIGABRT-4": "openface_crashed",
        "skipped-5": "openface_short",
        "kills-SIGFPE-11": "openface_crashed",
    }
    good = {name: frames for name, frames in clips.items() if name.startswith("clip")}
    assert_whole({name: results[name] for name in good}, good)
    assert not bench.left()


def test_rows_without_success_hold_zeros_and_are_not_valid(bench: Bench) -> None:
    frames = shown(6, seed=3)
    black = np.zeros((64, 64, 3), np.uint8)
    for index in (0, 3):
        frames[index] = frames[index]._replace(image=black)
    results = read(a=shown(), b=frames)
    features = results["b"]
    assert isinstance(features, Features)
    assert features.valid.tolist() == [False, True, True, False, True, True]
    assert not features.values[~features.valid].any()
    np.testing.assert_allclose(features.extras["confidence"], [0.12, 0.98, 0.98, 0.12, 0.98, 0.98], rtol=1e-6)
    np.testing.assert_array_equal(column(features, "x_0")[[1, 2, 4, 5]], expected(frames)[[1, 2, 4, 5]])


def test_min_confidence_decides_which_rows_are_valid(bench: Bench) -> None:
    results = read(VisionSettings(min_confidence=0.98), a=shown())
    assert isinstance(results["a"], Features)
    assert results["a"].valid.all()
    refused = read(VisionSettings(min_confidence=0.99), a=shown())["a"]
    assert isinstance(refused, ExtractionError)
    assert refused.reason == "no_face"
    assert "reaches 0.98 in 4 of 4 images, less than vision.min_confidence = 0.99" in refused.detail


def test_a_clip_without_any_success_has_no_face(bench: Bench) -> None:
    frames = [frame._replace(image=np.zeros_like(frame.image)) for frame in shown()]
    results = read(a=shown(), b=frames)
    assert reason(results["b"]) == "no_face"
    assert isinstance(results["a"], Features)


def test_an_empty_original_crop_is_never_valid(bench: Bench) -> None:
    frames = shown()
    frames[1] = frames[1]._replace(found=False)
    for shape, valid in (
        ("original", [True, False, True, True]),
        ("stable", [True] * 4),
        ("frame", [True] * 4),
    ):
        features = read(VisionSettings(input=shape), a=frames)["a"]
        assert isinstance(features, Features)
        assert features.valid.tolist() == valid


# -- a program that works on nothing ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("crash", "was killed by SIGSEGV on a generated image"),
        ("exit", "ended with status 3"),
        ("hang", "did not end within"),
    ],
)
def test_a_program_that_works_on_no_image_is_no_clips_failure(
    bench: Bench, hasty: None, monkeypatch: pytest.MonkeyPatch, fault: str, message: str
) -> None:
    monkeypatch.setenv("OPENFACE_STAND_IN_FAULT", fault)
    with pytest.raises(BackendMissingError, match=message):
        read(a=shown(), b=shown())
    assert not bench.left()
    assert gone(bench.hanging())


def test_missing_cen_patches_end_the_run_with_a_message(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = openface_stand_in.install(bench.folder / "stock", "main_ceclm_general.txt")
    monkeypatch.setenv("OPENFACE_BIN", str(moved))
    assert isinstance(read(a=shown())["a"], Features)
    (moved.parent / "model" / "patch_experts" / "cen_patches_0.25_of.dat").unlink()
    with pytest.raises(BackendMissingError, match=r"cen_patches_\*_of\.dat.*download_models\.sh"):
        read(a=shown())


def test_a_program_that_worked_on_a_clip_is_not_probed(bench: Bench) -> None:
    openface = OpenFace(VisionSettings())
    openface.add("good", shown())
    openface.finish()
    openface.add("kills-SIGSEGV", shown())
    assert reason(openface.finish()["kills-SIGSEGV"]) == "openface_crashed"
    assert len(bench.calls()) == 3


# -- scratch space, and processes left behind -----------------------------------------------------------


def test_small_clips_lie_in_memory_and_nothing_is_left(bench: Bench) -> None:
    openface = OpenFace(VisionSettings())
    openface.add("a", shown())
    assert len(list(bench.memory.rglob("*.bmp"))) == 4
    assert not list(bench.disk.iterdir())
    openface.finish()
    assert not bench.left()


def test_images_too_many_for_memory_go_to_the_temporary_folder(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "IN_MEMORY", 5 * len(images.bmp(shown()[0].image)))
    openface = OpenFace(VisionSettings())
    clips = several("a", "b") | {"big": shown(8, seed=9)}
    assert not openface.add("a", clips["a"])
    assert openface.add("b", clips["b"]), "enough in memory for one process"
    openface.add("big", clips["big"])
    assert len(list(bench.memory.rglob("*.bmp"))) == 8
    assert len(list(bench.disk.rglob("*.bmp"))) == 8
    assert_whole(openface.finish(), clips)
    assert not bench.left()


def test_a_ram_disk_without_room_is_left_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "IN_MEMORY", 2**60)
    openface = OpenFace(VisionSettings())
    openface.add("a", shown())
    assert not list(bench.memory.iterdir())
    assert_whole(openface.finish(), {"a": shown()})


def full(root: Path, after: int) -> Callable[[Path, bytes], int]:
    """A write that finds its disk full."""
    write, written = Path.write_bytes, []

    def limited(path: Path, data: bytes) -> int:
        if path.is_relative_to(root):
            written.append(path)
            if len(written) > after:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, data)

    return limited


def test_a_ram_disk_that_fills_is_left(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = {"a": shown(6)}
    openface = OpenFace(VisionSettings())
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full(bench.memory, 3))
        openface.add("a", clips["a"])
    assert len(list(bench.disk.rglob("*.bmp"))) == 6
    assert_whole(openface.finish(), clips)
    assert not bench.left()


def test_no_room_anywhere_is_that_clips_reason(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    openface = OpenFace(VisionSettings())
    openface.add("a", shown())
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full(bench.folder, 3))
        with pytest.raises(ExtractionError, match=r"no_scratch_space.*TMPDIR"):
            openface.add("b", shown())
    assert_whole(openface.finish(), {"a": shown()})
    assert not bench.left()


def test_images_that_break_off_leave_nothing(bench: Bench) -> None:
    def broken() -> Iterator[Aligned]:
        yield from shown(2)
        raise ExtractionError("undecodable", "there")

    openface = OpenFace(VisionSettings())
    with pytest.raises(ExtractionError, match="there"):
        openface.add("broken", broken())
    assert not list(bench.memory.rglob("*.bmp"))
    assert openface.finish() == {}


HANGING = """
import sys, tempfile
from pathlib import Path
from types import SimpleNamespace
import numpy
sys.path[:0] = {path!r}
from triptych.extractors.vision.openface import scratch
from triptych.extractors.vision.openface.backend import OpenFace
from triptych.extractors.vision.stage import VisionSettings
tempfile.tempdir, scratch.MEMORY = {disk!r}, Path({memory!r})
openface = OpenFace(VisionSettings())
image = numpy.full((64, 64, 3), 9, numpy.uint8)
openface.add("hangs", [SimpleNamespace(slot=0, time=0.0, image=image, found=True)])
openface.finish()
"""


def start_hanging(bench: Bench) -> subprocess.Popen[bytes]:
    """A process that waits for a program that hangs."""
    code = HANGING.format(path=sys.path, disk=str(bench.disk), memory=str(bench.memory))
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not bench.hanging() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert bench.hanging(), "it never started"
    return process


def test_a_killed_worker_leaves_no_program_or_scratch(bench: Bench) -> None:
    process = start_hanging(bench)
    assert all(map(alive, bench.hanging()))
    assert scratch.remove_stale() == [], "it lives: its scratch is not stale"
    assert bench.left()
    process.kill()
    process.wait()
    assert gone(bench.hanging()), "the program outlived the worker"
    assert len(scratch.remove_stale()) == 1
    assert not bench.left()


def test_scratch_of_this_process_can_be_removed_at_once(bench: Bench) -> None:
    openface = OpenFace(VisionSettings())
    openface.add("a", shown())
    assert bench.left()
    scratch.remove_own()
    assert not bench.left()


@pytest.mark.parametrize("moment", ["before it is opened", "before it is locked"])
def test_a_folder_taken_for_stale_in_that_moment_is_made_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    module, name = (tempfile, "mkdtemp") if moment == "before it is opened" else (fcntl, "flock")
    original = getattr(module, name)
    swept: list[Path] = []

    def sweeping(*arguments: object, **options: object) -> object:
        if module is fcntl:
            monkeypatch.undo()
            monkeypatch.setattr(scratch, "MEMORY", bench.memory)
            monkeypatch.setattr("tempfile.tempdir", str(bench.disk))
            swept.extend(scratch.remove_stale())
            return original(*arguments)
        made = original(**options)
        if not swept:
            swept.extend(scratch.remove_stale())
        return made

    monkeypatch.setattr(module, name, sweeping)
    folders = scratch.Scratch()
    folder = folders.under(bench.disk)
    assert len(swept) == 1
    assert folder.is_dir()
    assert folder not in swept
    folders.close()


# -- what made it ---------------------------------------------------------------------------------------


def test_version_hash_and_model_are_known(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    openface = OpenFace(VisionSettings())
    openface.add("a", shown())
    openface.finish()
    software = openface.software
    assert software["openface"] == openface_stand_in.VERSION_LINE
    assert software["openface_model"] == "main_clnf_general.txt"
    assert software["openface_sha256"] == hashlib.sha256(bench.program.read_bytes()).hexdigest()
    assert len(software["openface_models_sha256"]) == 64
    moved = openface_stand_in.install(bench.folder / "other", "main_ceclm_general.txt")
    monkeypatch.setenv("OPENFACE_BIN", str(moved))
    assert OpenFace(VisionSettings()).software["openface_model"] == "main_ceclm_general.txt"


def test_a_script_and_what_it_ran_are_known_without_another_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = bench.folder / "script"
    script.write_text(f'#!/bin/sh\n"{bench.program}" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("OPENFACE_BIN", str(script))
    openface = OpenFace(VisionSettings())
    openface.add("a", shown())
    openface.finish()
    software = openface.software
    assert len(bench.calls()) == 1
    assert software["openface_model"] == "main_clnf_general.txt"
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (script, bench.program)]
    assert software["openface_sha256"] == hashlib.sha256("\n".join(digests).encode()).hexdigest()
    assert software["openface_models_sha256"] == program.identity(bench.program).models
    assert len(software["openface_models_sha256"]) == 64
