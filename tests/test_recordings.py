"""README's five commands from a recording to a trained model, with small models and pocketsphinx."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from triptych.pipeline.manifest.loading import load_manifest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "bench"))

COMMANDS = ("cut", "transcribe", "manifest", "extract", "train")


def readme_commands() -> list[list[str]]:
    """README's block that begins with `triptych cut`, as words without comments."""
    block = next(
        block
        for block in re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
        if block.startswith("$ triptych cut")
    )
    return [shlex.split(line.removeprefix("$ "), comments=True) for line in block.splitlines()]


def run(words: list[str], folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "triptych.pipeline", *words[1:]], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def label(path: Path) -> None:
    """Fill in the column label, as a person does."""
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    for number, row in enumerate(rows):
        row["label"] = str((number % 11 - 5) / 5)
    with path.open("w", encoding="utf-8", newline="") as lines:
        table = csv.DictWriter(lines, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


@pytest.mark.slow
def test_five_commands_lead_from_a_recording_to_a_trained_model(
    test_data: Path, small_bert: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pocketsphinx")
    from recordings import KINDS, load_clips, make_recording

    (tmp_path / "recordings").mkdir()
    # More speakers than in the benches, so that there are enough clips for three splits.
    kinds = {**KINDS, "speaker": 1.5}
    truth = make_recording(
        load_clips(test_data / "clips/Raw/video_retalking"), tmp_path / "recordings/talk.mp4", 45, 3, kinds
    )
    more = {
        "cut": ["-j", "2"],
        "transcribe": ["--backend", "pocketsphinx", "-j", "2"],
        "manifest": [],
        "extract": [
            *("--set", f"text.model={small_bert}", "--set", "text.revision="),
            *("--set", "vision.backend=facemesh"),
            *("--set", f"vision.model={test_data / 'models/face_landmarker.task'}"),
            *("--set", "words.backend=pocketsphinx", "-j", "2"),
        ],
        "train": ["--seeds", "1", "--set", "max_epochs=2", "-j", "1"],
    }
    commands = readme_commands()
    assert tuple(words[1] for words in commands) == COMMANDS
    for words in commands:
        if "--language" in words:  # of Whisper; pocketsphinx knows English alone
            at = words.index("--language")
            words = words[:at] + words[at + 2 :]
        run([*words, *more[words[1]]], tmp_path)
        if words[1] == "transcribe":
            label(tmp_path / "dataset/manifest.csv")
    clips = load_manifest(tmp_path / "clips.csv").clips
    speakers = [piece for piece in truth if piece.face]
    assert len(clips) >= len(speakers) / 2
    assert {clip.text_source for clip in clips if clip.text} == {"asr:pocketsphinx@" + _version()}
    results = json.loads((tmp_path / "runs/mfn/results.json").read_text())
    assert results["metrics"]


def _version() -> str:
    from importlib.metadata import version

    return version("pocketsphinx")
