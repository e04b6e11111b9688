"""The image: its parts on their own; and built and run without an engine, where the tools for that are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import openface_stand_in
import pytest

DOCKER = Path(__file__).parents[1] / "docker"
SCRIPT = Path(__file__).parent / "docker" / "build_and_run"
TOOLS = ("buildah", "podman", "runc", "debootstrap")


@pytest.mark.slow
def test_the_image_builds_and_keeps_its_promises() -> None:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"needs root and {', '.join(TOOLS)}; missing: {', '.join(missing) or 'root'}")
    ended = subprocess.run([str(SCRIPT)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture
def build_tree(tmp_path: Path) -> Path:
    """OpenFace as its image has it, with a licence; return the program."""
    program = tmp_path / "openface" / "build" / "bin" / "FeatureExtraction"
    for models in ("model", "classifiers", "AU_predictors"):
        (program.parent / models).mkdir(parents=True)
        (program.parent / models / "data.txt").write_text(models)
    shutil.copy(shutil.which("true") or "/bin/true", program)
    (tmp_path / "openface" / "OpenFace-license.txt").write_text("its licence")
    return program


def collect(program: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(DOCKER / "collect_openface"), str(program), str(out)],
        capture_output=True,
        text=True,
        check=False,
    )


needs_ldd = pytest.mark.skipif(shutil.which("ldd") is None, reason="no ldd")


@needs_ldd
def test_openface_is_collected_with_its_licence(build_tree: Path, tmp_path: Path) -> None:
    ended = collect(build_tree, tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found >= {"FeatureExtraction", "model", "classifiers", "AU_predictors", "OpenFace-license.txt"}


@needs_ldd
def test_a_missing_licence_stops_the_build_with_a_message(build_tree: Path, tmp_path: Path) -> None:
    (tmp_path / "openface" / "OpenFace-license.txt").unlink()
    (tmp_path / "openface" / "Copyright.txt").write_text("not the licence")
    ended = collect(build_tree, tmp_path / "out")
    assert ended.returncode == 1
    assert "no licence file (OpenFace-license.txt)" in ended.stderr


def probe_of_the_build() -> list[str]:
    """The command by which the build runs the program on one image."""
    lines = re.findall(r"^RUN (\[.*\])$", (DOCKER / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    (command,) = [words for line in lines if "check.probe" in (words := json.loads(line))[-1]]
    assert command[0] == "python"
    return [sys.executable, *command[1:]]


def test_the_build_runs_the_program_on_an_image(tmp_path: Path) -> None:
    made = openface_stand_in.install(tmp_path / "openface")
    environment = {**os.environ, "OPENFACE_BIN": str(made)}
    assert subprocess.run(probe_of_the_build(), env=environment, check=False).returncode == 0
    environment["OPENFACE_STAND_IN_FAULT"] = "crash"
    ended = subprocess.run(probe_of_the_build(), env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "was killed by SIGSEGV on a generated image" in ended.stderr


def test_every_service_has_limits_of_memory_and_processes() -> None:
    yaml = pytest.importorskip("yaml")
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert {"triptych", "pull-models", "scheduler", "worker", "on-dask"} == set(services)
    for name, service in services.items():
        assert service["mem_limit"] == "${TRIPTYCH_MEMORY:-16gb}", name
        assert service["pids_limit"] == "${TRIPTYCH_PIDS:-4096}", name


def test_both_base_images_can_be_pinned_by_digest() -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    bases = set(re.findall(r"^FROM (\$\S+)", text, re.MULTILINE))
    assert bases == {"${OPENFACE_IMAGE}", "${PYTHON_IMAGE}"}
    assert re.search(r"^ARG OPENFACE_IMAGE=\S+@sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    readme = (DOCKER / "README.md").read_text(encoding="utf-8")
    assert "--build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:DIGEST" in readme
    assert "--cpuset-cpus=0,1" in readme
