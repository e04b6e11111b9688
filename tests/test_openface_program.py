"""Which OpenFace is here, what is wrong with it, and what follows for backend, fingerprint and doctor."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import openface_stand_in
import pytest

from triptych.extractors.base import BackendMissingError
from triptych.extractors.vision.openface import check, launched, process, program
from triptych.pipeline.environment.doctor import Finding, examine
from triptych.pipeline.errors import InputError
from triptych.pipeline.stages.fingerprints import fingerprints, resolve
from triptych.pipeline.stages.recipe import Recipe, build_recipe

OPENFACE = build_recipe({"vision": {"backend": "openface"}})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = openface_stand_in.install(tmp_path / "openface")
    monkeypatch.setenv("OPENFACE_BIN", str(made))
    return made


def found_by(doctor: list[Finding]) -> Finding:
    return next(finding for finding in doctor if finding.what == "openface")


def test_auto_is_openface_where_it_is_found(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(Recipe(), ["vision"]).vision.backend == "openface"
    monkeypatch.delenv("OPENFACE_BIN")
    monkeypatch.setenv("PATH", str(here.parent))
    assert program.find() == here
    assert resolve(Recipe(), ["vision"]).vision.backend == "openface"
    monkeypatch.setenv("PATH", "")
    pytest.importorskip("ai_edge_litert")
    assert resolve(Recipe(), ["vision"]).vision.backend == "facemesh"


def test_a_wrong_openface_bin_never_selects_another_backend(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENFACE_BIN", "/nowhere/FeatureExtraction")
    for recipe in (Recipe(), OPENFACE):
        with pytest.raises(InputError, match="OPENFACE_BIN = /nowhere/FeatureExtraction: file not found"):
            resolve(recipe, ["vision"])
    resolve(OPENFACE, ["audio"])
    resolve(Recipe(), ["audio"])
    assert found_by(examine(Recipe(), quick=True)).state == "missing"


def broken(here: Path, how: str) -> None:
    """Break an installation."""
    elf = Path(shutil.which("true") or "/bin/true").read_bytes()
    if how == "not executable":
        here.chmod(0o644)
    elif how == "another architecture":
        here.write_bytes(elf[:18] + (0xB7 if elf[18] == 0x3E else 0x3E).to_bytes(2, "little") + elf[20:])
    elif how == "another system":
        here.write_bytes(b"MZ" + elf[2:])
    elif how == "no models":
        shutil.rmtree(here.parent / "model")
        here.write_bytes(elf)
    else:
        shutil.rmtree(here.parent / how)


BREAKAGES = {
    "not executable": r"not executable: chmod \+x",
    "another architecture": r"built for \w+, and this machine is",
    "another system": "no program for Linux",
    "no models": "no folder model/ beside it",
    "AU_predictors": "AU_predictors missing",
    "model/detection_validation": "model/detection_validation missing",
    "model/mtcnn_detector": "model/mtcnn_detector missing",
}


@pytest.mark.parametrize("how", BREAKAGES)
def test_what_is_wrong_is_said_before_any_clip_is_run(here: Path, how: str) -> None:
    assert program.problem(here) is None
    broken(here, how)
    with pytest.raises(InputError, match=BREAKAGES[how]):
        resolve(OPENFACE, ["vision"])
    assert resolve(OPENFACE, ["audio"]) == OPENFACE, "who wants no vision is not troubled"
    for quick in (True, False):
        finding = found_by(examine(Recipe(), quick=quick))
        assert finding.state == "missing"
        assert "openface" in finding.detail
    relaxed = examine(build_recipe({"vision": {"backend": "facemesh"}}), quick=True)
    assert found_by(relaxed).state == "optional"


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
def test_missing_libraries_are_named(here: Path, tmp_path: Path) -> None:
    (tmp_path / "lib.c").write_text("int face(void) { return 0; }")
    (tmp_path / "main.c").write_text("int face(void); int main(void) { return face(); }")
    library = tmp_path / "libdlandmarks.so"
    subprocess.run(["gcc", "-shared", "-o", library, tmp_path / "lib.c"], check=True)
    subprocess.run(["gcc", "-o", here, tmp_path / "main.c", library, f"-Wl,-rpath,{tmp_path}"], check=True)
    assert program.problem(here) is None
    library.unlink()
    assert "libdlandmarks.so" in (program.problem(here) or "")
    assert "libdlandmarks.so" in found_by(examine(Recipe(), quick=True)).detail


def test_doctor_runs_it_on_one_image(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = found_by(examine(Recipe()))
    assert whole.state == "ok"
    assert str(here) in whole.detail
    assert "main_clnf_general.txt" in whole.detail
    monkeypatch.setenv("OPENFACE_STAND_IN_FAULT", "crash")
    assert found_by(examine(Recipe(), quick=True)).state == "ok", "a glance does not run it"
    crashing = found_by(examine(Recipe()))
    assert crashing.state == "missing"
    assert "SIGSEGV" in crashing.detail


def test_doctor_knows_missing_cen_patches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = openface_stand_in.install(tmp_path / "stock", "main_ceclm_general.txt")
    assert check.probe(made) is None
    shutil.rmtree(made.parent / "model" / "patch_experts")
    assert "cen_patches_*_of.dat" in (check.probe(made) or "")


def test_models_may_lie_where_an_installation_puts_them(tmp_path: Path) -> None:
    openface_stand_in.install(tmp_path / "etc" / "OpenFace")
    made = tmp_path / "bin" / "FeatureExtraction"
    made.parent.mkdir()
    (tmp_path / "etc" / "OpenFace" / "FeatureExtraction").rename(made)
    assert program.models_folder(made) == tmp_path / "etc" / "OpenFace"
    assert program.identity(made).landmark_model == "main_clnf_general.txt"


CHANGES: dict[str, Callable[[Path], object]] = {
    "program": lambda here: here.write_text(here.read_text() + "\n"),
    "a model": lambda here: (here.parent / "model" / "main_clnf_general.txt").write_text("other"),
    "a new file": lambda here: (here.parent / "AU_predictors" / "new.dat").write_text("other"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_program_and_models_are_in_visions_fingerprint(
    here: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    before = fingerprints(OPENFACE)
    moved = here.parent.with_name("elsewhere")
    shutil.copytree(here.parent, moved)
    monkeypatch.setenv("OPENFACE_BIN", str(moved / here.name))
    assert fingerprints(OPENFACE) == before, "its folder does not matter"
    CHANGES[what](moved / here.name)
    program._identity.cache_clear()
    after = fingerprints(OPENFACE)
    assert {name for name in after if after[name] != before[name]} == {"vision"}


# -- scripts around the program ---------------------------------------------------------------------------


SCRIPTS = {
    "replaced": 'exec "{program}" "$@"',
    "waits": 'sleep 0.05\n"{program}" "$@"\nsleep 0.15',
    "waits, in a pipe": '"{program}" "$@" | cat',
    "in two steps": 'exec sh -c \'"{program}" "$@"; sleep 0.1\' sh "$@"',
}


def script_around(made: Path, monkeypatch: pytest.MonkeyPatch, body: str = SCRIPTS["replaced"]) -> Path:
    """Set OPENFACE_BIN to a script in another folder that starts the program."""
    script = made.parent.parent / "openface.sh"
    script.write_text("#!/bin/sh\n" + body.format(program=made) + "\n")
    script.chmod(0o755)
    monkeypatch.setenv("OPENFACE_BIN", str(script))
    return script


def forget() -> None:
    """Identify again, as another process does."""
    program._identity.cache_clear()
    program._trial.cache_clear()


@pytest.mark.parametrize("how", SCRIPTS)
def test_the_program_that_a_script_runs_is_found(
    here: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    script = script_around(here, monkeypatch, SCRIPTS[how])
    run = check.trial(script)
    assert run.problem is None
    assert run.ending is not None
    assert run.ending.launched is not None
    assert run.ending.launched.program == here
    assert program.identity(script).landmark_model == "main_clnf_general.txt"


def test_a_binary_that_a_script_starts_is_found(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nsleep 0.1\n" + 'exec sleep "$1"\n')
    script.chmod(0o755)
    ended = process.run([str(script), "0.3217"], tmp_path, 20)
    assert ended.launched is not None
    assert ended.launched.program == Path(shutil.which("sleep") or "").resolve()
    assert process.run([shutil.which("sleep") or "", "0.01"], tmp_path, 20).launched is None


@pytest.mark.parametrize("what", CHANGES)
def test_what_a_script_runs_is_in_visions_fingerprint(
    here: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    script = script_around(here, monkeypatch)
    before = fingerprints(OPENFACE)
    forget()
    assert fingerprints(OPENFACE) == before
    CHANGES[what](here)
    forget()
    after = fingerprints(OPENFACE)
    assert {name for name in after if after[name] != before[name]} == {"vision"}
    script.write_text(script.read_text() + "# changed\n")
    assert fingerprints(OPENFACE)["vision"] != after["vision"], "it may set options of the program"


UNKNOWN = {
    "models elsewhere": r"its landmark model /nowhere/model/main\.txt is not on this machine",
    "no /proc": "none of its processes has OpenFace's arguments",
    "crashes": "was killed by SIGSEGV",
}


@pytest.mark.parametrize("why", UNKNOWN)
def test_a_script_that_cannot_be_identified_is_refused(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    body = SCRIPTS["replaced"]
    if why == "models elsewhere":  # as in a container that the script starts
        body = '"{program}" "$@" | sed \'s#tracker from: .*#tracker from: /nowhere/model/main.txt#\''
    if why == "no /proc":
        monkeypatch.setattr(launched, "PROC", tmp_path / "proc")
    if why == "crashes":
        monkeypatch.setenv("OPENFACE_STAND_IN_FAULT", "crash")
    script = script_around(here, monkeypatch, body)
    forget()
    with pytest.raises(BackendMissingError, match=UNKNOWN[why]) as refused:
        fingerprints(OPENFACE)
    assert f"OPENFACE_BIN = {script} is a script" in str(refused.value)
    assert "Set OPENFACE_BIN to FeatureExtraction itself" in str(refused.value)
    assert found_by(examine(Recipe())).state == "missing"


def test_doctor_reports_the_landmark_model_that_was_loaded(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here.parent / "model" / "main_ceclm_general.txt").write_text("not the one that is compiled in")
    monkeypatch.setenv("OPENFACE_STAND_IN_LANDMARKS", "main_clnf_general.txt")
    finding = found_by(examine(Recipe()))
    assert finding.state == "ok", finding.detail
    assert "main_clnf_general.txt" in finding.detail
    assert "ceclm" not in finding.detail
    script = script_around(here, monkeypatch)
    assert f"{script}, which runs {here}, main_clnf_general.txt" in found_by(examine(Recipe())).detail


def test_a_quick_look_loads_nothing_heavy(here: Path) -> None:
    code = (
        "import sys, runpy; sys.argv = ['triptych', 'doctor', '--quick', '--json']\n"
        "from triptych.pipeline.cli.main import cli\ncli.main(standalone_mode=False)\n"
        "print(sorted({'torch', 'cv2', 'av', 'ai_edge_litert', 'transformers', 'librosa', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    findings, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    assert {"what": "openface", "state": "ok", "detail": str(here)} in json.loads(findings)
