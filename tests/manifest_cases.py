"""Clips, files and strategies that the tests of manifests, sources and splits share."""

from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import Clip
from triptych.pipeline.manifest.loading import load_manifest

MANIFESTS = Path(__file__).parents[1] / "manifests"
NAN = math.nan

any_pace = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
LABEL = st.floats(-1, 1) | st.just(NAN)
# Of text that names clips, line breaks, control characters and codes of direction are no part.
PLAIN = st.characters(
    exclude_categories=["Cs", "Cc", "Zl", "Zp"],
    exclude_characters="".join(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)])),
)
ID = st.text(PLAIN, min_size=1).filter(lambda name: "/" not in name)
NAME = TEXT.filter(lambda name: name and "/" not in name and name not in (".", ".."))


def clip(
    id="v$_$1", path="v/1.mp4", text=None, split=None, labels=(NAN, NAN, NAN, NAN), root="/videos", **details
):
    return Clip(id, path, text, split, *labels, root=root, **details)


def touch(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()


def write(file: Path, content: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def problems_of(source: Path, **options) -> list[str]:
    with pytest.raises(InputError) as caught:
        load_manifest(source, **options)
    return list(caught.value.problems)


def problem_of(source: Path, **options) -> str:
    problems = problems_of(source, **options)
    assert len(problems) == 1, problems
    return problems[0]


def make_ch_sims(test_data: Path, folder: Path) -> Path:
    """The real table of CH-SIMS with an empty file for each video."""
    shutil.copy(test_data / "labels" / "ch_sims_label.csv", folder / "label.csv")
    with (folder / "label.csv").open(encoding="utf-8-sig", newline="") as stream:
        touch(folder, *(f"Raw/{row['video_id']}/{row['clip_id']}.mp4" for row in csv.DictReader(stream)))
    return folder
