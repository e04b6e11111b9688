"""The command line: what it prints where, its exit codes, and that it starts light."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from triptych.pipeline import __version__
from triptych.pipeline.cli.main import cli, main
from triptych.pipeline.run.extraction import prepare, run

COMMANDS = (
    *("demo", "doctor", "experiment", "extract", "manifest", "predict", "recipes", "status", "train", "tune"),
    "verify",
)


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def triptych(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process; options in capitals are environment variables."""

    def call(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "argv", ["triptych", *map(str, arguments)])
            patched.setattr(signal, "signal", lambda *_: None)
            for name, value in environment.items():
                patched.setenv(name, value)
            capfd.readouterr()
            try:
                main()
                code = 0
            except SystemExit as end:
                code = end.code or 0
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, int(code), out, err)

    return call


def in_a_process(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "triptych.pipeline", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="session")
def clips(few_clips: Path, made_once) -> Path:
    """Two valid clips and an empty file, in a folder with transcripts."""

    def make(folder: Path) -> None:
        folder.mkdir()
        for name, file in zip("ab", sorted((few_clips / "Raw").rglob("*.mp4")), strict=False):
            shutil.copy(file, folder / f"{name}.mp4")
            (folder / f"{name}.txt").write_text("很好", encoding="utf-8")
        (folder / "empty.mp4").write_bytes(b"")

    return made_once("v", make)


def test_help_is_light_and_complete() -> None:
    code = (
        "import sys; sys.argv = ['triptych', '--help']\n"
        "from triptych.pipeline.cli.main import main\n"
        "try: main()\n"
        "finally: print(sorted({'numpy', 'torch', 'h5py', 'cv2', 'joblib'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.strip() == "[]", "the command line imports a heavy library before it is needed"
    assert all(re.search(rf"^  {name}\b", done.stdout, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = CliRunner().invoke(cli, [command, "-h"], prog_name="triptych")
    assert done.exit_code == 0
    assert done.output.startswith("Usage: triptych " + command)


def test_version() -> None:
    assert __version__ in in_a_process("--version").stdout


def test_extract_status_verify(clips: Path, tmp_path: Path, triptych: Run) -> None:
    features = tmp_path / "f"
    dry = triptych("extract", clips, "-o", features, "--only", "audio", "--dry-run")
    assert dry.returncode == 0
    assert re.search(r"^audio +3 +3 +0 +0 +0 +0 +0 +0$", dry.stdout, re.MULTILINE)
    assert not features.exists()

    made = triptych("extract", clips, "-o", features, "--only", "audio", "--json", TRIPTYCH_EXTRACT_JOBS="1")
    assert made.returncode == 3, made.stderr
    *events, result = map(json.loads, made.stdout.splitlines())
    assert [one["clip"] for one in events if one["event"] == "clip_finished"].count("empty") == 1
    assert result["stages"]["audio"] == {"made": 2, "done": 2, "absent": 0, "failed": 1, "missing": 0}
    assert result["failures"] == [
        {
            "clip": "empty",
            "stage": "audio",
            "reason": "undecodable",
            "detail": result["failures"][0]["detail"],
        }
    ]
    assert result["failures"][0]["detail"].endswith("empty.mp4: the file is empty (0 bytes)")

    again = triptych("extract", clips, "-o", features, "--only", "audio")
    assert again.returncode == 3
    assert "nothing to do" in again.stdout
    assert re.search(r"^audio +0 +2 +0 +1 +0 +0$", again.stdout, re.MULTILINE)
    assert re.search(r"^undecodable: 1 clip failed\. Check that", again.stdout, re.MULTILINE)
    assert re.search(r"^empty +audio +.*empty.mp4", again.stdout, re.MULTILINE)

    status = json.loads(triptych("status", features, "--json").stdout)
    assert status["clips"] == 3
    assert status["stages"]["audio"]["done"] == 2
    assert status["stages"]["vision"]["missing"] == 3

    assert triptych("verify", features).returncode == 0
    shard = next((features / "audio").glob("*.h5"))
    content = bytearray(shard.read_bytes())
    content[700] ^= 255
    shard.write_bytes(content)
    verified = triptych("verify", features)
    assert verified.returncode == 4
    assert shard.name in verified.stdout


def test_data_goes_to_stdout_and_the_rest_to_stderr(clips: Path, tmp_path: Path, triptych: Run) -> None:
    done = triptych("manifest", clips)
    assert done.stdout.splitlines()[0].startswith("id,path,text")
    assert len(done.stdout.splitlines()) == 4
    written = triptych("manifest", clips, "-o", tmp_path / "m.csv", "--split", "1:1:1")
    assert written.stdout == ""
    assert "3 clips" in written.stderr
    assert {"train", "valid", "test"} <= set((tmp_path / "m.csv").read_text().replace("\n", ",").split(","))
    unchanged, assigned = (
        triptych("manifest", tmp_path / "m.csv", "--split", "1:0:0", *more).stdout
        for more in ([], ["--anew"])
    )
    assert (unchanged.count(",train,"), assigned.count(",train,")) == (1, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["extract", "nowhere", "-o", "f"], r"nowhere"),
        (["extract", "{clips}", "-o", "f", "--set", "vision.backnd=x"], r"vision\.backnd: unknown setting"),
        (["extract", "{clips}", "-o", "f", "--recipe", "papr"], r"papr"),
        (
            ["extract", "{clips}", "-o", "f", "--only", "sound"],
            r"unknown stage 'sound'; choose from text, audio",
        ),
        (["extract", "{clips}"], r"Missing option '-o'"),
        (["status", "{clips}"], r"not a feature folder"),
        (["verify", "nowhere"], r"folder not found"),
        (["verify", "{clips}"], r"not a feature folder"),
        (["train", "{clips}", "--model", "lf-dnn", "-o", "run"], r"recipe\.json"),
        (["train", "f", "--model", "mlf-dnn", "--seeds", "1,x", "-o", "run"], r"different whole numbers"),
        (["manifest", "{clips}", "--split", "6:2"], r"6:2"),
        (["manifest", "{clips}", "--anew"], r"--split 6:2:2 --anew"),
        (["manifest", "{clips}", "--by", "video"], r"--split 6:2:2 --by video"),
        (["train", "f", "--model", "lmf", "-o", "r", "--seeds", str(2**64)], r"from 0 to 2\^32"),
    ],
)
def test_wrong_input_has_a_message_and_exits_2(
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    triptych: Run,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = triptych(*(argument.format(clips=clips) for argument in arguments))
    assert done.returncode == 2, done.stderr
    assert re.search(message, done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_model_exits_1_before_any_work(clips: Path, tmp_path: Path) -> None:
    done = in_a_process(
        "extract",
        clips,
        "-o",
        tmp_path / "f",
        "--only",
        "text",
        HF_HUB_OFFLINE="1",
        HF_HOME=str(tmp_path / "hf"),
    )
    assert done.returncode == 1
    assert "hf download google-bert/bert-base-chinese --revision" in done.stderr
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_ends_cleanly_and_resumes(
    clips: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "triptych.pipeline",
            "extract",
            str(clips),
            "-o",
            str(tmp_path / "f"),
            "--only",
            "audio",
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "f" / "recipe.json").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    assert not list((tmp_path / "f").rglob("*.tmp"))
    resumed = run(prepare(clips, tmp_path / "f", only=["audio"]), jobs=0)
    assert len(resumed.plan.stages["audio"].done) == 2


def test_doctor_finds_this_machine_usable(triptych: Run, small_bert: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "own.toml"
    recipe.write_text(f'[text]\nmodel = "{small_bert}"\n')
    done = triptych("doctor", "--json", "--recipe", recipe)
    found = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0, found
    assert found["packages"]["state"] == found["face detector"]["state"] == "ok"


@pytest.mark.parametrize("offline", [True, False])
def test_doctor_names_a_language_model_that_cannot_be_had(
    triptych: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}"
    )
    done = triptych("doctor", "--json")
    (found,) = [one for one in json.loads(done.stdout) if one["what"] == "language model"]
    assert (done.returncode, found["state"]) == (1, "missing")
    assert "--only audio,faces,vision" in found["detail"]


def test_recipes_print_toml_that_extract_accepts(tmp_path: Path, triptych: Run) -> None:
    printed = triptych("recipes", "authors-code").stdout
    assert "[vision]" in printed
    (tmp_path / "mine.toml").write_text(printed, encoding="utf-8")
    assert triptych("recipes", tmp_path / "mine.toml").stdout == printed
    assert triptych("recipes").stdout.startswith("paper: the defaults")
