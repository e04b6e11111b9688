"""docs/cluster.md and the SLURM script: what they name exists, and the script calls what it says."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from triptych.pipeline.cli.main import cli

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "examples" / "extract.sbatch"


def test_the_script_is_valid() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_CPUS_PER_TASK": "4"}, "3/8"),
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "1", "PARTS": "8"}, "3/8"),
    ],
)
def test_the_script_extracts_the_part_of_its_task(tmp_path: Path, given: dict[str, str], part: str) -> None:
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    environment = {**given, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    words = ["bash", str(SCRIPT), "my clips", "features", "--only", "audio"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    cores = given.get("SLURM_CPUS_PER_TASK", "1")
    assert done.stdout.splitlines() == [
        f"--cpus-per-task={cores}", "triptych", "extract", "my clips", "-o", "features",
        "--partition", part, "--jobs", cores, "--only", "audio",
    ]  # fmt: skip


def test_the_page_names_real_options_and_files() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    known = {option for parameter in cli.commands["extract"].params for option in parameter.opts}
    used = {
        word
        for line in page.splitlines()
        if "triptych extract" in line
        for word in re.findall(r"(?<!\S)--[a-z-]+", line.partition("triptych extract")[2])
    }
    assert "--partition" in used
    assert "--scheduler" in used
    assert used <= known
    for link in re.findall(r"\]\((\.\./[^)]+)\)", page):
        assert (ROOT / "docs" / link).is_file(), link
    assert "(docs/cluster.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
