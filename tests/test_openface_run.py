"""Complete runs with a stand-in for OpenFace: 40 clips of which 7 fail, killed runs, the three inputs."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import openface_stand_in
import pytest

from triptych.extractors.faces.crops import Aligned
from triptych.extractors.media.source import MediaSource
from triptych.extractors.vision import margins
from triptych.extractors.vision.openface import scratch
from triptych.extractors.vision.openface.images import bmp
from triptych.pipeline.run.events import ClipFinished, Event, StageStarted
from triptych.pipeline.run.extraction import prepare, run
from triptych.pipeline.run.group import run_group
from triptych.pipeline.run.task import GroupTask
from triptych.pipeline.storage.shard_reader import Shard
from triptych.pipeline.storage.store import FeatureStore

ROWS, RATE = 8, 44100
CLIPS = 40
BEHAVIOUR = {
    **dict.fromkeys((3, 4, 21, 39), "kills-SIGSEGV"),
    **dict.fromkeys((10,), "hangs"),
    **dict.fromkeys((0, 22), "short"),
}


@pytest.fixture(scope="module")
def face_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of eight frames of a face, with sound."""
    pytest.importorskip("matplotlib")
    from triptych.pipeline.demo.clips import make_clips

    folder = tmp_path_factory.mktemp("face")
    make_clips(folder, count=1)
    path = folder / "face.mp4"
    with av.open(str(next(folder.rglob("*.mp4")))) as source, av.open(str(path), "w") as target:
        video = target.add_stream("libx264", 30, options={"preset": "superfast"})
        video.width, video.height, video.pix_fmt = 320, 320, "yuv420p"
        audio = target.add_stream("aac", RATE, layout="mono")
        for frame in islice(source.decode(video=0), ROWS):
            image = frame.to_ndarray(format="rgb24")
            target.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        target.mux(video.encode(None))
        tone = np.sin(np.arange(RATE * ROWS // 30) / 50).astype(np.float32)[None]
        sound = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        sound.sample_rate, sound.time_base, sound.pts = RATE, Fraction(1, RATE), 0
        target.mux(audio.encode(sound))
        target.mux(audio.encode(None))
    return path


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    made = openface_stand_in.install(tmp_path / "openface")
    monkeypatch.setenv("OPENFACE_BIN", str(made))
    yield made
    for pid in running(made):
        os.kill(pid, signal.SIGKILL)


def running(program: Path) -> list[int]:
    """Processes that are this program."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(program).encode() in command.read_bytes():
                found.append(int(command.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def scratch_folders() -> set[Path]:
    return {
        path for root in (scratch.MEMORY, scratch.disk_root()) for path in root.glob(f"{scratch.PREFIX}*")
    }


def abandoned(folders: set[Path]) -> set[Path]:
    """Those of the scratch folders that no process holds; other tests run at the same time and have their own."""
    found = set()
    for path in folders:
        with suppress(OSError):  # it was removed in this moment, or a process holds it
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found.add(path)
            finally:
                os.close(lock)
    return found


def nothing_is_left(program: Path, before: set[Path], seconds: float = 20) -> bool:
    """Whether neither a process of the program nor an abandoned scratch folder remains, after a while."""
    deadline = time.monotonic() + seconds
    while running(program) or abandoned(scratch_folders() - before):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def make_copies(clip: Path, folder: Path, names: list[str]) -> Path:
    (folder / "v").mkdir(parents=True)
    for name in names:
        shutil.copy(clip, folder / "v" / f"{name}.mp4")
    return folder


def test_of_40_clips_33_have_features_and_7_a_reason(
    face_clip: Path, stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENFACE_SECONDS_PER_FRAME", "0.03")
    names = [f"{BEHAVIOUR.get(number, 'clip')}-{number:03d}" for number in range(CLIPS)]
    clips = make_copies(face_clip, tmp_path / "clips", names)
    before = scratch_folders()
    todo = prepare(clips, tmp_path / "features", only=["audio", "vision"])
    assert todo.recipe.vision.backend == "openface"
    stages = run(todo, jobs=2, group_size=10).plan.stages

    vision = stages["vision"]
    assert Counter(str(line.reason) for line in vision.failed.values()) == {
        "openface_crashed": 4,
        "timeout": 1,
        "openface_short": 2,
    }
    reasons = {"kills": "openface_crashed", "hangs": "timeout", "short": "openface_short"}
    for clip, line in vision.failed.items():
        assert line.reason == reasons[clip.partition("$_$")[2].partition("-")[0]], clip
    assert len(vision.done) == 33
    assert len(stages["audio"].done) == len(stages["faces"].done) == CLIPS
    assert nothing_is_left(stand_in, before, seconds=2)

    store = FeatureStore(tmp_path / "features")
    calibrated = store.read("vision", vision.done[0]).columns.index("AU01_r")
    for clip in vision.done:
        features = store.read("vision", clip)
        assert features.valid.all()
        np.testing.assert_array_equal(features.times, store.read("faces", clip).times)
        assert (features.values[:, calibrated] == float(openface_stand_in.CALIBRATED)).all()
    with Shard(next((tmp_path / "features" / "vision").glob("*.h5"))) as shard:
        header = shard.header
    assert header.attributes == {"backend": "openface", "input": "stable"}
    assert header.software["openface"] == openface_stand_in.VERSION_LINE
    assert header.software["openface_model"] == "main_clnf_general.txt"
    assert len(header.software["openface_sha256"]) == len(header.software["openface_models_sha256"]) == 64
    assert "ai-edge-litert" not in header.software


def clips_of_calls(state: Path) -> list[list[str]]:
    """The clips of each call of the program, without their numbers and sources."""
    words = [json.loads(line)["argv"] for line in (state / "calls.jsonl").read_text().splitlines()]
    return [
        [Path(b).name.rpartition("_")[2] for a, b in pairwise(argv) if a == "-fdir"]
        for argv in words
        if "image" not in [Path(word).name for word in argv]  # the probe's
    ]


def test_groups_of_one_clip_share_a_process_and_a_crash_costs_one_clip(
    face_clip: Path, stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENFACE_STAND_IN_STATE", str(tmp_path))
    names = ["a", "b", "kills-SIGSEGV", "c", "d", "e"]
    clips = make_copies(face_clip, tmp_path / "clips", names)
    todo = prepare(clips, tmp_path / "features", only=["vision"])
    assert len(todo.plan.groups()) == len(names)
    vision = run(todo, jobs=2).plan.stages["vision"]
    calls = clips_of_calls(tmp_path)
    assert sorted(map(len, calls), reverse=True)[0] == len(names), calls
    assert ["kills-SIGSEGV"] in calls
    assert list(vision.failed) == ["v$_$kills-SIGSEGV"]
    assert len(vision.done) == len(names) - 1


def test_rows_at_the_second_crop_margin_have_a_note_in_the_ledger(
    face_clip: Path, stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENFACE_STAND_IN_STATE", str(tmp_path))
    clips = make_copies(face_clip, tmp_path / "clips", ["a", "faceless-once-1"])
    todo = prepare(clips, tmp_path / "features", only=["vision"])
    vision = run(todo, jobs=0, group_size=2).plan.stages["vision"]
    assert vision.done == ["v$_$a", "v$_$faceless-once-1"]
    assert set(vision.notes) == {"v$_$faceless-once-1"}
    assert "crops with the margin 1.7" in vision.notes["v$_$faceless-once-1"]


def test_a_file_that_is_replaced_before_it_is_read_again_gives_no_rows(
    face_clip: Path, stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENFACE_STAND_IN_STATE", str(tmp_path))
    clips = make_copies(face_clip, tmp_path / "clips", ["a", "faceless-once-1"])
    todo = prepare(clips, tmp_path / "features", only=["vision"])
    cut = margins.wider_crops

    def replaced(*arguments: Any) -> Iterator[Aligned]:
        with (clips / "v" / "faceless-once-1.mp4").open("ab") as file:
            file.write(b"more")
        return cut(*arguments)

    monkeypatch.setattr(margins, "wider_crops", replaced)
    (group,) = todo.plan.groups(2)
    lines = run_group(
        GroupTask(tmp_path / "features", todo.recipe, todo.fingerprints, group, 2**28), lambda event: None
    )
    outcomes = {(line.clip_id, line.stage): str(line.reason) for line in lines}
    assert outcomes == {
        ("v$_$a", "faces"): "",
        ("v$_$a", "vision"): "",
        ("v$_$faceless-once-1", "faces"): "file_changed",
        ("v$_$faceless-once-1", "vision"): "file_changed",
    }
    with Shard(next((tmp_path / "features" / "faces").glob("*.h5"))) as shard:
        assert list(shard.ids) == ["v$_$a"]


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    while not path.exists():
        assert process.poll() is None, "the run ended before it hung"
        time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_ended_run_leaves_no_process_and_no_scratch_files(
    face_clip: Path, stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    clips = make_copies(face_clip, tmp_path / "clips", ["a", "hangs-1"])
    monkeypatch.setenv("OPENFACE_STAND_IN_STATE", str(tmp_path))
    before = scratch_folders()
    arguments = ["extract", str(clips), "-o", str(tmp_path / "features"), "--only", "vision", "-j", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "triptych.pipeline", *arguments], stderr=subprocess.DEVNULL
    )
    wait_for(tmp_path / "hanging", process)
    assert scratch_folders() - before
    process.send_signal(how)
    status = process.wait()
    assert status == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[how]
    assert nothing_is_left(stand_in, before)


def test_crops_and_whole_frames_reach_the_program(
    face_clip: Path, stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENFACE_STAND_IN_STATE", str(tmp_path))
    clips = make_copies(face_clip, tmp_path / "clips", ["a", "b"])
    sums = {}
    for shape in ("stable", "original", "frame"):
        folder = tmp_path / shape
        todo = prepare(clips, folder, only=["vision"], assignments=[f"vision.input={shape}"])
        events: list[Event] = []
        (group,) = todo.plan.groups(10)
        lines = run_group(GroupTask(folder, todo.recipe, todo.fingerprints, group, 2**28), events.append)
        assert {(line.stage, line.outcome) for line in lines} == {("faces", "done"), ("vision", "done")}
        ends = [index for index, event in enumerate(events) if isinstance(event, ClipFinished)]
        assert [events[index].clip for index in ends] == ["v$_$a", "v$_$b"]
        started = events.index(StageStarted(("v$_$a", "v$_$b"), "vision"))
        assert started < ends[0], "a crash while the program runs is attributed to both clips"
        with Shard(next((folder / "vision").glob("*.h5"))) as shard:
            assert shard.header.attributes["input"] == shape
            features, other = shard.read("v$_$a"), shard.read("v$_$b")
        assert len(features) == ROWS
        sums[shape] = tuple(features.values[:, features.columns.index("x_0")])
        np.testing.assert_array_equal(features.values, other.values)
    assert len(set(sums.values())) == 3
    first = next(MediaSource(face_clip, todo.recipe.media).frames())
    pixels = bmp(first.image)[54:]
    assert sums["frame"][0] == pytest.approx(openface_stand_in.checksum(pixels), abs=0.01)
