"""`triptych init`: what it finds, what it writes, and that the command it prints works."""

from __future__ import annotations

import shlex
import tomllib
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner

from triptych.extractors.registry import stages
from triptych.pipeline.cli.main import cli
from triptych.pipeline.environment.doctor import Finding
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.stages.recipe import Recipe, build_recipe, load_recipe
from triptych.pipeline.start import survey
from triptych.pipeline.start.files import next_command, recipe_text
from triptych.pipeline.start.media import look_at, sample
from triptych.pipeline.storage.store import FeatureStore


def write_wave(path: Path, seconds: float = 0.6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 8000 * np.sin(2 * np.pi * 200 * np.arange(int(8000 * seconds)) / 8000)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples.astype("<i2").tobytes())


def write_video(path: Path, rate: int = 30, side: int = 128, frames: int = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate)
        stream.width = stream.height = side
        for _ in range(frames):
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.zeros((side, side, 3), np.uint8), "rgb24"))
            )
        container.mux(stream.encode(None))


def init(*arguments):
    return CliRunner().invoke(cli, ["init", *map(str, arguments)])


def test_printed_command_works_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_wave(tmp_path / "my clips" / "a.wav")
    write_wave(tmp_path / "my clips" / "b b.wav")
    done = init("my clips", "-o", "a start")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    command = shlex.split(lines[lines.index("next:") + 1])
    assert command[0] == "triptych"
    monkeypatch.setenv("TRIPTYCH_EXTRACT_JOBS", "1")
    extracted = CliRunner().invoke(cli, command[1:])
    assert extracted.exit_code == 0, extracted.output
    store = FeatureStore(Path(command[command.index("-o") + 1]))
    assert store.ids("audio") == ("a", "b b")


def test_nothing_is_overwritten(tmp_path):
    write_wave(tmp_path / "clips" / "a.wav")
    out = tmp_path / "out"
    out.mkdir()
    (out / "clips.csv").write_text("mine")
    done = init(tmp_path / "clips", "-o", out)
    assert isinstance(done.exception, InputError)
    assert "clips.csv: exists already" in str(done.exception)
    assert (out / "clips.csv").read_text() == "mine"
    assert not (out / "recipe.toml").exists()


def test_output_folder_of_the_command_does_not_exist(tmp_path):
    (tmp_path / "features").mkdir()
    command = next_command(tmp_path / "recipe.toml", tmp_path / "clips.csv")
    assert command.endswith("features-2")


def test_written_recipe_has_every_setting_with_its_default(tmp_path):
    text = recipe_text(("audio", "text"), {"vision": "no clip\nhas frames"})
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    written = load_recipe(str(path))
    assert written["stages"] == ["audio", "text"]
    assert build_recipe(written) == Recipe().model_copy(update={"stages": ("audio", "text")})
    settings = [line for line in text.splitlines() if line.startswith("# ") and " = " in line]
    uncommented = "\n".join(
        line.removeprefix("# ") if line in settings else line for line in text.splitlines()
    )
    everything = tomllib.loads(uncommented)
    assert set(everything) == {"stages", "media", *stages()}
    assert build_recipe(everything) == build_recipe(written)
    assert "# Left out: vision, as no clip has frames" in text
    assert "Highest F0 searched [Hz]. (from 20 to 8000)" in text


def test_findings_are_printed(tmp_path):
    write_wave(tmp_path / "clips" / "a.wav", 0.2)
    write_video(tmp_path / "clips" / "b.mp4")
    (tmp_path / "clips" / "b.txt").write_text("hello")
    (tmp_path / "clips" / "c.mp4").write_bytes(b"nothing" * 100)
    done = init(tmp_path / "clips", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    for text in (
        "in 1 of 3: 128 x 128 (1); 30 frames a second",
        "transcripts  1 of 3",
        "cannot be read (undecodable)",
        "shorter than 0.5 s",
        "no frames",
        "language model",
        "facemesh",
        "openface",
    ):
        assert text in done.output
    assert [clip.text for clip in load_manifest(tmp_path / "out" / "clips.csv").clips] == [
        None,
        "hello",
        None,
    ]


def findings(**states):
    return {
        name.replace("_", " "): Finding(name, state, "the first run fetches it")
        for name, state in states.items()
    }


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({"language_model": "ok", "openface": "optional", "facemesh": "optional"}, set()),
        ({"language_model": "missing", "openface": "ok", "facemesh": "optional"}, {"text"}),
        ({"language_model": "optional", "openface": "missing", "facemesh": "ok"}, {"vision"}),
    ],
)
def test_stages_that_need_missing_models_are_left_out(tmp_path, states, expected):
    write_video(tmp_path / "a.mp4")
    write_wave(tmp_path / "b.wav")
    looks = (look_at(tmp_path / "a.mp4"), look_at(tmp_path / "b.wav"))
    usable, left_out = survey._stages(True, looks, findings(**states, face_detector="ok"))
    assert set(left_out) == expected
    assert set(usable) == {"text", "audio", "faces", "vision"} - expected


def test_stages_follow_what_the_clips_have(tmp_path):
    write_video(tmp_path / "a.mp4", rate=10, side=96, frames=3)
    look = look_at(tmp_path / "a.mp4")
    assert set(look.unusual) == {
        "no sound",
        "shorter than 0.5 s",
        "frames smaller than 120 pixels",
        "fewer than 15 frames a second",
    }
    _, left_out = survey._stages(
        False, (look,), findings(openface="optional", facemesh="ok", face_detector="ok")
    )
    assert left_out == {"text": "no clip has a transcript", "audio": "no clip has sound"}


def test_headers_of_many_files_are_sampled_evenly():
    paths = [Path(str(number)) for number in range(1000)]
    chosen = sample(paths, 10)
    assert [path.name for path in chosen] == [str(number) for number in range(0, 1000, 100)]
    assert sample(paths[:5], 10) == paths[:5]


def test_empty_folder_is_an_error(tmp_path):
    done = init(tmp_path, "-o", tmp_path / "out")
    assert isinstance(done.exception, InputError)
    assert not (tmp_path / "out").exists()
