"""Help pages, and what is printed for a wrong name: one line with the nearest valid one, exit code 2."""

from __future__ import annotations

import signal
import sys

import click
import pytest
from click.testing import CliRunner

from triptych.pipeline.cli.main import cli, main


def commands(group=cli, path=()):
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands())


@pytest.fixture
def failing(monkeypatch, capsys, tmp_path):
    """Run the command line in an empty folder; return its exit code and stderr."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["triptych", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, capsys.readouterr().err

    return run


def test_commands_are_grouped_by_purpose():
    out = CliRunner().invoke(cli, ["-h"], prog_name="triptych", terminal_width=80).output
    places = [out.index(f"\n{title}:") for title in ("features", "training", "exchange", "setup")]
    assert places == sorted(places)
    assert places[0] < out.index("\n  extract ") < places[1] < out.index("\n  train ") < places[2]
    assert "other:" not in out, "a command is in no section"
    assert "..." not in out.split("\n", 1)[1], "a summary does not fit"
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    "path", [path for path, one in ALL.items() if not isinstance(one, click.Group)], ids=" ".join
)
def test_help_fits_and_gives_examples_that_parse(path):
    out = CliRunner().invoke(cli, [*path, "-h"], prog_name="triptych", terminal_width=80).output
    assert out == CliRunner().invoke(cli, [*path, "--help"], prog_name="triptych", terminal_width=80).output
    assert max(map(len, out.splitlines())) <= 80
    assert f"TRIPTYCH_{'_'.join(path).upper().replace('-', '_')}_OPTION" in out
    command = ALL[path]
    assert command.examples or path[0] == "experiment"
    listed = {name for names in command.sections.values() for name in names}
    assert listed <= {parameter.name for parameter in command.params}
    for example in command.examples:
        words = [word.strip('"') for word in example.split(" > ")[0].split()]
        assert words[: len(path) + 1] == ["triptych", *path]
        command.make_context("triptych", words[len(path) + 1 :])


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["extrct"], "extract"),
        (["experiment", "tabel2"], "table2"),
        (["models", "pul"], "pull"),
        (["extract", "x", "--job", "1"], "--jobs"),
        (["extract", "x", "-o", "f", "--only", "audio,visoin"], "vision"),
        (["extract", "x", "-o", "f", "--device", "cud"], "cuda"),
        (["recipes", "papr"], "paper"),
        (["doctor", "--recipe", "author-code"], "authors-code"),
        (["models", "pull", "--set", "vison.backend=facemesh"], "vision"),
        (["models", "pull", "--set", "vision.backnd=facemesh"], "vision.backend"),
        (["train", "f", "--model", "mlfdnn", "-o", "r"], "mlf-dnn"),
        (["experiment", "table2", "f", "-o", "r", "--models", "lmf,mfm"], "mfn"),
        (["export", "f", "x", "--to", "msa"], "mmsa"),
    ],
)
def test_a_wrong_name_is_one_line_with_the_nearest_one(failing, words, meant):
    code, err = failing(*words)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert err.rstrip().endswith(f"Did you mean {meant}?")


@pytest.mark.parametrize("words", [["xyzxyz"], ["extract", "x", "--xyzxyz"], ["train", "f"], ["status"]])
def test_other_wrong_usage_is_one_line_too(failing, words):
    code, err = failing(*words)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert "Did you mean" not in err
