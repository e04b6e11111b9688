"""Lines of progress of trainings, and the options of every command that trains."""

from __future__ import annotations

import pytest

from triptych.pipeline.cli.main import cli
from triptych.pipeline.terminal import training
from triptych.pipeline.terminal.training import SeedProgress


def test_each_seed_of_the_demonstration_is_a_line(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    progress = SeedProgress(3)
    for seed in (12, 1, 123):
        now[0] += 10
        progress(seed)
    assert capsys.readouterr().err.splitlines() == [
        "1/3 cross-validated: seed 12, after 10 s, about 20 s left",
        "2/3 cross-validated: seed 1, after 20 s, about 10 s left",
        "3/3 cross-validated: seed 123, after 30 s",
    ]


@pytest.mark.parametrize(
    "name", ["train", "tune", "predict", "demo", "table2", "table4", "table5", "figure4"]
)
def test_every_command_that_trains_has_a_device(name):
    commands = {**cli.commands, **cli.commands["experiment"].commands}
    [device] = [option for option in commands[name].params if option.name == "device"]
    assert list(device.type.choices) == ["cpu", "cuda"]
