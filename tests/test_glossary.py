"""Words that the project replaced by standard terms do not return to its code, messages and documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLEAN = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "pyproject.toml",
    "docker",
    "docs",
    "examples",
    "extractors",
    "manifests",
    "pipeline",
    "tests",
    "triptych",
)
ENDINGS = {".md", ".py", ".toml"}
INSTEAD = {
    r"pictures?": "frame, image, crop or figure",
    r"told|tell|tells|telling": "report, log or print",
    r"lacks?|lacking": "missing, has no",
    r"judge[ds]?|judging": "evaluate",
    r"learnt": "trained, fitted",
    r"begun|began": "started",
    r"deaths?": "exit, failure",
    r"suspects?": "candidate",
    r"mistakes?": "error, problem",
    r"misnamed": "invalid",
    r"mend(s|ed)?": "correct",
    r"no such": "not found",
    r"(is|are|was|be) (not )?to be had": "available",
    r"(stands|lies|lie|stand) there": "exists",
    r"the whole way": "all steps",
    r"held|kept": "stored, cached",
    r"anew": "again",
    r"beforehand": "before",
}
# Texts that may hold a banned word, each with its reason.
ALLOWED = {
    "--anew": "a command-line option",
    "anew: bool": "its parameter, whose name is also that of TRIPTYCH_MANIFEST_ANEW",
    "if anew": "the same parameter",
    "picture_too_small": "a reason's name before 0.2, in CHANGELOG.md",
    "file.tell(": "Python's method",
    "study.tell(": "optuna's method",
}
BANNED = re.compile("|".join(rf"(?<![A-Za-z])(?:{word})(?![a-z])" for word in INSTEAD), re.IGNORECASE)


def banned_words(text: str) -> list[str]:
    for name in ALLOWED:
        text = text.replace(name, "")
    return [
        f"{number}: {match.group()}"
        for number, line in enumerate(text.splitlines(), 1)
        for match in BANNED.finditer(line)
    ]


def checked_files(name: str) -> list[Path]:
    path = ROOT / name
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.suffix in ENDINGS]
    return sorted(file for file in files if file != Path(__file__))  # this file lists the banned words


@pytest.mark.parametrize("name", CLEAN)
def test_clean_folders_use_the_standard_terms(name):
    files = checked_files(name)
    assert files
    found = {str(file.relative_to(ROOT)): banned_words(file.read_text(encoding="utf-8")) for file in files}
    assert {file: words for file, words in found.items() if words} == {}


def test_no_python_package_is_left_out():
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders <= set(CLEAN)


@pytest.mark.parametrize("text", ALLOWED)
def test_every_allowed_text_occurs(text):
    assert any(text in file.read_text(encoding="utf-8") for name in CLEAN for file in checked_files(name))


@pytest.mark.parametrize("text", ["the picture", "_told = 1", "is_lacking", "Judged by", "No such file"])
def test_banned_words_are_found_in_text_and_names(text):
    assert banned_words(text)


@pytest.mark.parametrize("text", ["intelligent", "upheld", "tellurium", "--anew", "slack"])
def test_other_words_are_not_banned(text):
    assert not banned_words(text)
