"""The pages that follow from the code are up to date, and every link of the documentation leads somewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from triptych.extractors.base import Reason
from triptych.extractors.registry import stages
from triptych.extractors.vision.columns import VISION_COLUMNS

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "docker/README.md", ROOT / "manifests/README.md"]
)


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["columns.md", "troubleshooting.md"])
def test_pages_from_the_code_are_up_to_date(generate: ModuleType, page: str) -> None:
    written = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert written == generate.PAGES[page](), "run `make docs-pages`"


def test_every_column_of_vision_has_a_line(generate: ModuleType) -> None:
    page = generate.columns_page()
    section = page.partition("\n## vision")[2].partition("\n## ")[0]
    numbers = re.findall(r"^\| `[^|]+ \| (\d+) \|", section, re.MULTILINE)
    units = re.findall(r"`AU\d\d_[rc]`", section)
    assert sum(map(int, numbers)) + len(units) == len(VISION_COLUMNS) == 709
    assert {f"`{name}`" for name, _ in VISION_COLUMNS if name.startswith("AU")} == set(units)


def test_a_stage_without_descriptions_is_noticed(
    generate: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {*generate.MEANINGS, "vision"} <= set(stages())
    monkeypatch.delitem(generate.MEANINGS["faces"], "score")
    with pytest.raises(ValueError, match="empty"):
        generate.columns_page()


def test_every_reason_and_exit_code_has_a_line(generate: ModuleType) -> None:
    page = generate.troubleshooting_page()
    assert all(page.count(f"| `{reason}` |") == 1 for reason in Reason)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d, ]+) \| ([^|]+) \|$", readme, re.MULTILINE)
    assert rows == [(code, meaning) for code, meaning, _ in generate.CODES]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts form them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_of_the_repository(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Strict: a broken link, an unknown anchor, a page outside the navigation or an unknown Python name is an error."""
    pytest.importorskip("mkdocs", reason="needs the dependency group docs")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    reference = (tmp_path / "site" / "python-api.html").read_text(encoding="utf-8")
    for name in (
        "extract",
        "open",
        "compute",
        "train",
        "predict",
        "FeatureStore",
        "FeatureDataset",
        "Stage",
        "Reason",
    ):
        assert f'id="triptych.{name}"' in reference
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link rel="stylesheet")[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text()
        )
        assert not loaded, f"{page.name} loads files of other servers"
