"""Words that the project replaced by standard terms do not return to its code, messages and documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Files and folders that are clean. Add a room here once it is.
CLEAN = (
    "README.md",
    "docs",
    "manifests",
    "pipeline/cli/exchange.py",
    "pipeline/demo",
    "pipeline/environment/doctor.py",
    "pipeline/exchange",
    "pipeline/manifest",
    "pipeline/terminal",
    "tests/test_architecture.py",
    "tests/test_ledger.py",
    "tests/test_manifest.py",
    "tests/test_manifest_schema.py",
    "tests/test_pickles.py",
    "tests/test_sources.py",
    "tests/test_splits.py",
)
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
ALLOWED = ("error.mistakes", "program.misnamed", "--anew")  # names of other rooms' functions and options
BANNED = re.compile("|".join(rf"(?<![A-Za-z])(?:{word})(?![a-z])" for word in INSTEAD), re.IGNORECASE)


def banned_words(text: str) -> list[str]:
    for name in ALLOWED:
        text = text.replace(name, "")
    return [
        f"{number}: {match.group()}"
        for number, line in enumerate(text.splitlines(), 1)
        for match in BANNED.finditer(line)
    ]


@pytest.mark.parametrize("name", CLEAN)
def test_clean_folders_use_the_standard_terms(name):
    path = ROOT / name
    files = [path] if path.is_file() else sorted(path.rglob("*.py")) + sorted(path.rglob("*.md"))
    assert files
    found = {str(file.relative_to(ROOT)): banned_words(file.read_text(encoding="utf-8")) for file in files}
    assert {file: words for file, words in found.items() if words} == {}


@pytest.mark.parametrize("text", ["the picture", "_told = 1", "is_lacking", "Judged by", "No such file"])
def test_banned_words_are_found_in_text_and_names(text):
    assert banned_words(text)


@pytest.mark.parametrize("text", ["intelligent", "upheld", "tellurium", "error.mistakes", "slack"])
def test_other_words_are_not_banned(text):
    assert not banned_words(text)
