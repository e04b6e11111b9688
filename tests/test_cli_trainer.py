"""The commands that train and predict: what they print, and what they refuse before torch is imported."""

import json
import re
import signal
import subprocess
import sys

import pytest

from triptych.pipeline.cli.main import main
from triptych.pipeline.manifest.loading import load_manifest


@pytest.fixture
def triptych(monkeypatch, capsys):
    """Run the command line in this process: its exit code, stdout and stderr."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.setenv(name, "1")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["triptych", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as left:
            code = left.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_train_and_predict_print_and_refuse(demo_features, tmp_path, triptych):
    run = tmp_path / "run"
    code, out, err = triptych(
        "train", demo_features, "--model", "mlf-dnn", "--seeds", "1,12", "-j", 1, "-o", run
    )
    assert code == 0, err
    assert re.search(r"^M +Corr( +-?\d\.\d{3}){4}$", out, re.MULTILINE)
    assert {path.name for path in run.iterdir()} == {
        "seed-1.pt",
        "seed-12.pt",
        "run.json",
        "results.json",
        "results.csv",
        "results.html",
    }
    clips = load_manifest(demo_features / "manifest.csv").clips
    video, text = clips[0].file, clips[0].text or ""
    code, raw, err = triptych("predict", run, video, "--transcript", text, "--jobs", "1", "--json")
    assert code == 0, err
    _, saved, _ = triptych("predict", run, demo_features, "--json")
    [alone], among = ([json.loads(line) for line in out.splitlines()] for out in (raw, saved))
    [same] = [one for one in among if one["clip"] == clips[0].id]
    assert alone["values"] == pytest.approx(same["values"], abs=1e-4)
    assert (alone["missing"], alone["classes"]) == ([], same["classes"])
    broken = tmp_path / "broken" / video.name
    broken.parent.mkdir()
    broken.write_bytes(video.read_bytes()[:2000])
    code, out, err = triptych("predict", run, broken, "--transcript", text, "--jobs", "1", "--json")
    assert code == 3, err
    failed = json.loads(out)
    assert failed["missing"] == ["audio", "vision"]
    assert failed["failures"]["audio"]["reason"] == "undecodable"
    code, _, err = triptych("predict", run, video, "--set", "audio.mfcc_htk=true")
    assert code == 2
    assert "audio features have fingerprint" in err
    (run / "seed-12.pt").unlink()
    code, _, err = triptych("predict", run, demo_features)
    assert code == 2
    assert "seed-12.pt missing" in err


@pytest.mark.parametrize(
    "words",
    [
        ["train", "nowhere", "--model", "lmf", "-o", "run"],
        ["tune", "nowhere", "--model", "lmf", "-o", "out"],
        ["experiment", "table2", "nowhere", "-o", "out"],
        ["experiment", "figure4", "nowhere", "-o", "out"],
        ["predict", "nowhere", "clip.mp4"],
        ["predict", "{run}", "nowhere"],
    ],
)
def test_a_wrong_folder_is_refused_before_torch_is_imported(words, tmp_path):
    """In one process of its own, since this one has imported torch."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "seed-1.pt").write_bytes(b"")
    features = {"recipe": {}, "fingerprints": {}}
    record = {"model": "lmf", "settings": {}, "seeds": [1], "features": features, "streams": {}}
    (run / "run.json").write_text(json.dumps(record))
    code = (
        "import sys; from triptych.pipeline.cli.main import main\n"
        "try: main()\n"
        "finally: print('imported:', *({'torch', 'transformers', 'sklearn'} & set(sys.modules)), file=sys.stderr)"
    )
    words = [word.format(run=run) for word in words]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    *errors, imported = done.stderr.splitlines()
    assert imported == "imported:"
    assert len(errors) == 1
    assert re.match("error: .*nowhere", errors[0])


def test_settings_of_another_system_are_refused(demo_store, tmp_path, triptych):
    settings = tmp_path / "lmf.json"
    settings.write_text("{")
    arguments = ["train", demo_store, "--model", "lf-dnn", "--settings", settings, "-o", tmp_path / "run"]
    code, _, err = triptych(*arguments)
    assert (code, "lmf.json: cannot be read" in err) == (2, True)
    from triptych.pipeline.trainer.systems import SYSTEMS

    settings.write_text(SYSTEMS["lmf"].model_dump_json())
    code, _, err = triptych(*arguments)
    assert (code, "settings of another system than lf-dnn" in err) == (2, True)


@pytest.fixture
def demo_store(tmp_path):
    """A folder that passes for a feature folder, without features."""
    folder = tmp_path / "features"
    folder.mkdir()
    (folder / "recipe.json").write_text('{"recipe": {}, "fingerprints": {}}')
    (folder / "manifest.csv").write_text("id,path,text\n")
    return folder


def test_streams_are_passed_to_the_store(demo_store, tmp_path, triptych, monkeypatch):
    """Without features every command stops at the stages that its options name."""
    from triptych.pipeline.storage.store import FeatureStore

    asked = []
    monkeypatch.setattr(FeatureStore, "ids", lambda self, stage: asked.append(stage) or ())
    named = ["--text", "t", "--audio", "a", "--vision", "v"]
    for words in (
        ["train", demo_store, "--model", "lmf"],
        ["tune", demo_store, "--model", "lmf"],
        *(["experiment", name, demo_store] for name in ("table2", "table4", "table5", "figure4")),
    ):
        asked.clear()
        code, _, err = triptych(*words, *named, "-o", tmp_path / "out")
        assert code == 2
        assert asked == ["t", "a", "v"]
        assert "no a features in this folder" in err


def test_an_unknown_stage_is_a_clear_error(demo_store, tmp_path, triptych):
    code, _, err = triptych("train", demo_store, "--model", "lmf", "--audio", "sound", "-o", tmp_path / "out")
    assert code == 2
    assert re.search("error: stage 'sound'.*name the stages to read with --text, --audio and --vision", err)


@pytest.mark.parametrize("command", ["train", "tune"])
def test_help_names_systems_seeds_streams_and_device(command, triptych):
    _, out, _ = triptych(command, "-h")
    plain = " ".join(out.split())
    assert "ef-lstm|mfn|mult|lf-dnn|mlf-dnn|tfn|mtfn|lmf|mlmf" in plain
    assert "Seeds to train with, one training each" in plain
    assert "The stage to read as the audio stream." in plain
    assert "--device [cpu|cuda]" in plain
