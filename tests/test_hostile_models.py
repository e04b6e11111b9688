"""Model folders with code of their own or with a pickle that runs code: refused, and nothing of them runs."""

from __future__ import annotations

import builtins
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from small_models import save_model

from triptych.extractors.appearance import AppearanceSettings, ImageEncoder
from triptych.extractors.base import BackendMissingError
from triptych.extractors.pretrained import resolve_model
from triptych.extractors.speech import SpeechEncoder, SpeechSettings
from triptych.extractors.text.encoder import TextEncoder
from triptych.extractors.text.stage import TextSettings

CODE = "from pathlib import Path\nPath({marker!r}).touch()\nclass Own: pass\n"
CLASSES = {
    "config.json": ("AutoConfig", "AutoModel"),
    "tokenizer_config.json": ("AutoTokenizer",),
    "preprocessor_config.json": ("AutoFeatureExtractor", "AutoImageProcessor"),
}


class Touch:
    """A pickle of it creates a file when it is read by a plain unpickler."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def load_text(folder, runtime="torch"):
    return TextEncoder(TextSettings(model=str(folder), revision="", runtime=runtime))


def load_speech(folder):
    return SpeechEncoder(SpeechSettings(model=str(folder), revision=""), 16000)


def load_appearance(folder):
    return ImageEncoder(AppearanceSettings(model=str(folder), revision=""), 30.0)


LOADERS = {"text": load_text, "speech": load_speech, "appearance": load_appearance}


@pytest.fixture(scope="module")
def models(tmp_path_factory, small_bert):
    base = tmp_path_factory.mktemp("models")
    return {
        "text": small_bert,
        "speech": save_model("hubert", base / "hubert"),
        "appearance": save_model("vit", base / "vit"),
    }


@pytest.fixture(autouse=True)
def no_question(monkeypatch):
    def asked(prompt=""):
        raise AssertionError(f"asked: {prompt}")

    monkeypatch.setattr(builtins, "input", asked)


def with_code(model: Path, folder: Path, file: str, marker: Path, **changes: object) -> Path:
    shutil.copytree(model, folder)
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    path = folder / file
    content = json.loads(path.read_bytes()) if path.exists() else {}
    content |= {"auto_map": dict.fromkeys(CLASSES[file], "own.Own"), **changes}
    path.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("changes", [{}, {"model_type": "own"}], ids=["known type", "own type"])
@pytest.mark.parametrize("file", CLASSES)
@pytest.mark.parametrize("stage", LOADERS)
def test_python_code_of_a_model_is_refused_and_never_runs(models, tmp_path, stage, file, changes):
    marker = tmp_path / "ran"
    folder = with_code(models[stage], tmp_path / "model", file, marker, **changes)
    for load in (LOADERS[stage], resolve(stage)):
        with pytest.raises(BackendMissingError, match=rf"{stage}.model = .*{file} names Python code"):
            load(folder)
    assert not marker.exists()


def resolve(stage):
    kinds = {"text": TextSettings, "speech": SpeechSettings, "appearance": AppearanceSettings}
    return lambda folder: resolve_model(kinds[stage](model=str(folder), revision=""))


def test_python_code_of_a_model_is_refused_with_onnx_too(models, tmp_path):
    marker = tmp_path / "ran"
    folder = with_code(models["text"], tmp_path / "model", "tokenizer_config.json", marker)
    with pytest.raises(BackendMissingError, match="names Python code"):
        load_text(folder, "onnx")
    assert not marker.exists()


@pytest.mark.parametrize("protocol", ["zip", "pickle"])
@pytest.mark.parametrize("stage", LOADERS)
def test_a_pickle_of_weights_that_would_run_code_is_refused(models, tmp_path, stage, protocol):
    marker, folder = tmp_path / "ran", tmp_path / "model"
    shutil.copytree(models[stage], folder)
    (folder / "model.safetensors").unlink()
    weights = folder / "pytorch_model.bin"
    content = {"weight": torch.zeros(2), "more": Touch(marker)}
    if protocol == "zip":
        torch.save(content, weights)
    else:
        weights.write_bytes(pickle.dumps(content))
    with pytest.raises(BackendMissingError, match="cannot be loaded"):
        LOADERS[stage](folder)
    assert not marker.exists()
    with weights.open("rb") as file:
        torch.load(file, weights_only=False) if protocol == "zip" else pickle.load(file)
    assert marker.exists(), "the file would have run code"


@pytest.mark.parametrize("config", ["[]", "3", '{"hidden_size": "x"}', "[" * 100_000, '{"model_type": []}'])
@pytest.mark.parametrize("stage", LOADERS)
def test_a_configuration_of_the_wrong_type_is_refused(models, tmp_path, stage, config):
    folder = tmp_path / "model"
    shutil.copytree(models[stage], folder)
    (folder / "config.json").write_text(config)
    with pytest.raises(BackendMissingError, match="cannot be loaded"):
        LOADERS[stage](folder)
