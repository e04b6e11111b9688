"""Installed from a wheel or as an editable install, triptych is imported whatever files are in the user's folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from triptych.pipeline.storage.store import FeatureStore

ROOT = Path(__file__).parent.parent
HOSTILE = ("pipeline.py", "extractors.py", "extractors/__init__.py", "pipeline/__init__.py")


def packages_on_disk() -> set[str]:
    """Every folder of the product that has Python files, under the name that it is installed by."""
    folders = {
        path.parent.relative_to(ROOT)
        for top in ("triptych", "pipeline", "extractors")
        for path in (ROOT / top).rglob("*.py")
    }
    names = {".".join(folder.parts) for folder in folders}
    return {name if name == "triptych" else f"triptych.{name}" for name in names}


def test_every_folder_is_listed_as_a_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["tool"]["setuptools"]["packages"]) == packages_on_disk()


@pytest.fixture(scope="session")
def wheel(made_once) -> Path:
    """The wheel of this checkout."""

    def build(folder: Path) -> None:
        source = folder.with_name(
            "source"
        )  # in the checkout, setuptools adds what an earlier build left there
        for name in ("triptych", "pipeline", "extractors"):
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source)
        command = ["wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w"]
        subprocess.run([sys.executable, "-m", "pip", *command, str(folder), str(source)], check=True)

    return next(made_once("wheel", build).glob("*.whl"))


@pytest.fixture(scope="session")
def installed(made_once, wheel: Path) -> Path:
    """The Python of an environment with the wheel, and with the libraries of the environment that runs the tests."""

    def install(folder: Path) -> None:
        folder.mkdir()
        environment = folder.with_name("environment")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
        command = ["--python", str(environment), "install", "-q", "--no-deps", "--no-index", str(wheel)]
        subprocess.run([sys.executable, "-m", "pip", *command], check=True)
        # .pth files of a folder that is added by a .pth file are not read: the editable install stays out.
        site = next(environment.glob("lib/python*/site-packages"))
        (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))

    return made_once("installed", install).with_name("environment") / "bin" / "python"


def test_the_wheel_has_every_module_and_the_type_marker(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = [path for top in ("pipeline", "extractors") for path in (ROOT / top).rglob("*.py")]
    assert {f"triptych/{path.relative_to(ROOT)}" for path in modules} <= names
    assert {"triptych/__init__.py", "triptych/py.typed"} <= names
    outside = {name.partition("/")[0] for name in names}
    assert {name for name in outside if not name.endswith(".dist-info")} == {"triptych"}


@pytest.fixture(params=["wheel", "editable"])
def python(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("installed")) if request.param == "wheel" else sys.executable


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder whose files have the names of the product's folders; importing one of them ends Python."""
    folder = tmp_path / "project"
    for name in HOSTILE:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"import os\nprint('the user\\'s {name} was imported', flush=True)\nos._exit(99)\n")
    (folder / "triptych.csv").write_text("a,b\n1,2\n")
    return folder


def run(python: str, folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_import_ignores_the_users_own_modules(python: str, hostile: Path) -> None:
    code = "import triptych, triptych.pipeline.run.worker, triptych.extractors.registry; print(triptych.open.__name__)"
    done = run(python, hostile, "-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, "open"), done.stdout + done.stderr


def test_import_works_in_a_checkout_too(python: str) -> None:
    done = run(
        python,
        Path(__file__).parents[1],
        "-c",
        "import triptych.pipeline.run.plan, triptych.extractors.stage",
    )
    assert done.returncode == 0, done.stderr


def test_workers_ignore_the_users_own_modules(python: str, hostile: Path, few_clips: Path) -> None:
    arguments = ["extract", few_clips, "-o", "features", "--only", "audio", "--limit", "1", "--jobs", "1"]
    done = run(python, hostile, "-m", "triptych.pipeline", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(FeatureStore(hostile / "features").ids("audio")) == 1
