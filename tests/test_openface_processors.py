"""OpenFace on a single processor, where the program hangs: it gets a second one, or is refused before the run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openface_stand_in
import pytest

from triptych.extractors.base import BackendMissingError, Features
from triptych.extractors.faces.crops import Aligned
from triptych.extractors.vision.openface import check, processors, program
from triptych.extractors.vision.openface.backend import OpenFace
from triptych.extractors.vision.openface.images import bmp
from triptych.extractors.vision.stage import VisionSettings
from triptych.pipeline.environment.doctor import examine
from triptych.pipeline.errors import InputError
from triptych.pipeline.stages.fingerprints import resolve
from triptych.pipeline.stages.recipe import Recipe

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs Linux and two processors",
)
bind: Any = getattr(os, "sched_setaffinity", None)  # the real one, whatever a test puts in its place
IMAGE = np.random.default_rng(0).integers(1, 255, (64, 64, 3), dtype=np.uint8)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = openface_stand_in.install(tmp_path / "openface")
    monkeypatch.setenv("OPENFACE_BIN", str(made))
    return made


@pytest.fixture
def one_processor() -> Iterator[None]:
    """Bind this process to a single processor for the time of a test."""
    before = os.sched_getaffinity(0)
    bind(0, {min(before)})
    yield
    bind(0, before)


@pytest.fixture
def cpuset(one_processor: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grant no further processor, without an error: so a container or a batch system does."""
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, wanted: None)


@pytest.fixture
def sandbox(one_processor: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse the system call itself."""

    def refused(pid: int, wanted: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", refused)


def read_one() -> Features:
    openface = OpenFace(VisionSettings())
    openface.add("a", [Aligned(slot, slot / 30, IMAGE, True, np.zeros(15, np.float32)) for slot in range(3)])
    features = openface.finish()["a"]
    assert isinstance(features, Features), features
    return features


def test_the_program_itself_hangs_on_one_processor(stand_in: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    (folder / "0.bmp").write_bytes(bmp(IMAGE))
    command = program.arguments(stand_in, [folder], out)
    one = ["taskset", "-c", str(min(os.sched_getaffinity(0)))]
    if shutil.which("taskset") is None:
        pytest.skip("no taskset")
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([*one, *command], timeout=2, check=False, stdout=subprocess.DEVNULL)
    subprocess.run(command, timeout=30, check=True, stdout=subprocess.DEVNULL)
    assert (out / "images.csv").is_file()


@pytest.mark.usefixtures("one_processor")
def test_it_gets_a_second_processor_where_that_is_allowed(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENFACE_SECONDS_PER_FRAME", "0.1")
    bound = os.sched_getaffinity(0)
    assert len(bound) == 1
    assert len(read_one()) == 3
    assert os.sched_getaffinity(0) == bound, "this process itself stays bound"
    assert program.problem(stand_in) is None
    assert check.probe(stand_in) is None


@pytest.mark.parametrize("confined", ["cpuset", "sandbox"])
def test_where_it_is_not_allowed_the_run_is_refused_with_the_remedy(
    stand_in: Path, confined: str, request: pytest.FixtureRequest
) -> None:
    assert processors.problem() is None
    request.getfixturevalue(confined)
    with pytest.raises(InputError, match=r"single processor.*--cpuset-cpus=0,1.*--cpus-per-task=2.*Dask"):
        resolve(Recipe(), ["vision"])
    with pytest.raises(BackendMissingError, match="single processor"):
        read_one()
    for quick in (True, False):
        finding = next(found for found in examine(Recipe(), quick=quick) if found.what == "openface")
        assert finding.state == "missing"
        assert "single processor" in finding.detail


def test_enough_processors_are_left_as_they_are() -> None:
    assert processors.widened() == frozenset()


def test_a_system_without_affinity_is_not_troubled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "sched_setaffinity")
    assert processors.problem() is None
    assert processors.widened() == frozenset()


@pytest.mark.skipif(shutil.which("taskset") is None, reason="no taskset")
def test_doctor_bound_to_one_processor_finds_a_working_program(stand_in: Path) -> None:
    code = (
        "import json; from triptych.pipeline.environment.doctor import _openface; "
        "from triptych.pipeline.stages.recipe import Recipe; print(json.dumps(_openface(Recipe()).as_dict()))"
    )
    done = subprocess.run(
        ["taskset", "-c", "0", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    finding = json.loads(done.stdout)
    assert finding["state"] == "ok"
    assert "a second processor" in finding["detail"]
