"""The structure that docs/architecture.md describes: rooms, direction of imports, size of files."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

from triptych.extractors.registry import BUILT_IN

ROOT = Path(__file__).parents[1]
# From the top. A room may import only rooms of lower floors; `pipeline` stands for the modules beside the rooms.
FLOORS = (
    ("triptych", "pipeline/__main__"),
    ("pipeline/cli",),
    (
        "pipeline/cutting",
        "pipeline/demo",
        "pipeline/exchange",
        "pipeline/report",
        "pipeline/start",
        "pipeline/transcribing",
    ),
    ("pipeline/trainer",),
    ("pipeline/terminal",),
    ("pipeline/run",),
    ("pipeline/storage", "pipeline/environment"),
    ("pipeline/stages", "pipeline/manifest"),
    ("pipeline/processes", "pipeline"),
    ("extractors",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
LONGEST_FILE = 400  # lines
FILES = sorted(
    path for folder in ("triptych", "pipeline", "extractors") for path in (ROOT / folder).rglob("*.py")
)


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    if parts[:2] == ("pipeline", "__main__.py"):
        return "pipeline/__main__"
    return "/".join(parts[:2]) if parts[0] == "pipeline" and len(parts) > 2 else parts[0]


def file_of(module: str) -> Path | None:
    """The file of a module of the product; None for any other name."""
    top, *rest = module.split(".")
    if top != "triptych":
        return None
    base = ROOT.joinpath(*rest) if rest[:1] in (["pipeline"], ["extractors"]) else ROOT.joinpath(top, *rest)
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def imported_files(path: Path) -> set[Path]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {found for name in names if (found := file_of(name))} - {ROOT / "triptych/__init__.py"}


def wrong_imports(path: Path) -> list[str]:
    own = room_of(path)
    return [
        f"{path.relative_to(ROOT)} imports {imported.relative_to(ROOT)}"
        for imported in sorted(imported_files(path))
        if (room := room_of(imported)) != own and FLOOR[room] <= FLOOR[own]
    ]


def test_every_room_has_a_floor():
    assert {room_of(path) for path in FILES} == set(FLOOR)


def test_imports_run_downwards():
    assert [problem for path in FILES for problem in wrong_imports(path)] == []


def test_upward_import_is_found(tmp_path, monkeypatch):
    upward = ROOT / "extractors" / "upward.py"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "def f():\n    import triptych.pipeline.errors\n")
    assert wrong_imports(upward) == ["extractors/upward.py imports pipeline/errors.py"]


@pytest.mark.parametrize("folder", ["triptych", "pipeline", "extractors"])
def test_no_product_file_is_too_long(folder):
    lengths = {path: path.read_bytes().count(b"\n") for path in (ROOT / folder).rglob("*.py")}
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_documentation_names_every_room():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    packages = {path.parent.relative_to(ROOT) for path in FILES if path.name == "__init__.py"}
    top = {Path("triptych"), Path("pipeline"), Path("extractors")}
    assert [str(package) for package in sorted(packages - top) if f"`{package}`" not in text] == []


def test_documentation_names_every_stage():
    text = (ROOT / "docs/stages.md").read_text(encoding="utf-8")
    names = [import_module(module).STAGE.name for module in BUILT_IN]
    assert [name for name in names if f"| `{name}` |" not in text or f"\n## {name}\n" not in text] == []
