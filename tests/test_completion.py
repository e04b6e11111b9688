"""What a shell is offered, through click's own completion."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from click.shell_completion import BashComplete

from triptych.pipeline.cli.main import cli


def offered(*words):
    *arguments, incomplete = words
    complete = BashComplete(cli, {}, "triptych", "_TRIPTYCH_COMPLETE")
    return [item.value for item in complete.get_completions(list(arguments), incomplete)]


def of(*words, own):
    """All that is offered, of which `own` must be part."""
    found = offered(*words)
    assert own in found, found
    return found


def test_commands_and_options():
    assert offered("ver") == ["verify"]
    assert offered("experiment", "table") == ["table1", "table2", "table3", "table4", "table5"]
    assert offered("extract", "--retry") == ["--retry-failed"]


@pytest.mark.parametrize("command", [["extract"], ["doctor"], ["models", "pull"]])
def test_recipes_by_name_or_file(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").touch()
    (tmp_path / "own.txt").touch()
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "deep.toml").touch()
    assert offered(*command, "--recipe", "") == ["paper", "authors-code", "own.toml"]
    assert offered(*command, "--recipe", "au") == ["authors-code"]
    assert offered(*command, "--recipe", "more/") == ["more/deep.toml"]
    assert offered("recipes", "o") == ["own.toml"]


@pytest.mark.parametrize("command", [["extract"], ["predict"], ["models", "pull"]])
def test_settings_and_their_values(command):
    assert offered(*command, "--set", "vision.back") == ["vision.backend="]
    assert "vision.backend=facemesh" in of(
        *command, "--set", "vision.backend=", own="vision.backend=openface"
    )
    assert offered(*command, "--set", "audio.mfcc_htk=t") == ["audio.mfcc_htk=true"]
    assert "media.frame_rate=" in of(*command, "--set", "", own="text.model=")


def test_stages_one_after_the_other():
    assert offered("extract", "--only", "au") == ["audio"]
    assert offered("extract", "--only", "audio,vi") == ["audio,vision"]
    assert "audio,audio" not in of("extract", "--only", "audio,", own="audio,text")
    assert offered("train", "--audio", "sp") == offered("export", "--audio", "sp") == ["speech"]


def test_systems_and_training_settings():
    assert offered("train", "--model", "mf") == ["mfn"]
    assert offered("experiment", "table2", "--models", "lmf,m") == [
        "lmf,mfn",
        "lmf,mult",
        "lmf,mlf-dnn",
        "lmf,mtfn",
        "lmf,mlmf",
    ]
    assert offered("train", "--set", "learning") == ["learning_rate="]
    assert offered("train", "--set", "padding=m") == ["padding=masked"]
    assert offered("tune", "--device", "") == ["cpu", "cuda"]


@pytest.mark.parametrize(
    ("shell", "expected"), [("bash", "plain,mfn\n"), ("zsh", "plain\nmfn\n_\n"), ("fish", "mfn")]
)
def test_completion_by_the_program_imports_nothing_heavy(shell, expected):
    code = (
        "import sys; from triptych.pipeline.cli.main import main\n"
        "try: main()\n"
        "finally: print(sorted({'numpy', 'torch', 'h5py', 'sklearn'} & set(sys.modules)), file=sys.stderr)"
    )
    environment = {**os.environ, "_TRIPTYCH_COMPLETE": f"{shell}_complete"}
    environment |= {
        "COMP_WORDS": "triptych train f --model mf",
        "COMP_CWORD": "mf" if shell == "fish" else "4",
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stderr == "[]\n"
    assert expected in done.stdout
