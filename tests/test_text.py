"""Token embeddings: the same numbers batched or alone, limits respected, missing models explained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, DistilBertConfig, DistilBertModel

from triptych.extractors.base import BackendMissingError
from triptych.extractors.pretrained import model_identity, resolve_model
from triptych.extractors.text.encoder import TextEncoder
from triptych.extractors.text.stage import TextSettings

SENTENCES = ["我不想嫁给李茶", "你这是嫁入豪门啊！" * 3, "。", "有那么明显吗？", "hello 我", "我" * 30]


@pytest.fixture(scope="module")
def encoder(small_bert: Path) -> TextEncoder:
    return TextEncoder(TextSettings(model=str(small_bert)))


def test_batched_equals_alone_and_plain_transformers(encoder: TextEncoder, small_bert: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(small_bert)
    model = AutoModel.from_pretrained(small_bert).eval()
    for text, batched in zip(SENTENCES, encoder.extract(SENTENCES), strict=True):
        with torch.inference_mode():
            plain = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()
        alone = encoder.extract([text])[0]
        assert np.abs(batched.values - alone.values).max() < 1e-5
        assert np.abs(batched.values - plain).max() < 1e-5
        assert batched.values.shape == (len(tokenizer(text)["input_ids"]), 768)


def test_tokens_and_ids_belong_to_the_rows(encoder: TextEncoder, small_bert: Path) -> None:
    features = encoder.extract(["我不想"])[0]
    assert list(features.extras["tokens"]) == ["[CLS]", "我", "不", "想", "[SEP]"]
    tokenizer = AutoTokenizer.from_pretrained(small_bert)
    assert tokenizer.convert_ids_to_tokens(features.extras["input_ids"].tolist()) == list(
        features.extras["tokens"]
    )
    assert np.isnan(features.times).all()
    assert features.valid.all()


def test_a_long_sentence_is_cut_before_sep_with_a_note(small_bert: Path) -> None:
    encoder = TextEncoder(TextSettings(model=str(small_bert), max_tokens=10))
    long, exact = encoder.extract(["我" * 50, "我" * 8])
    assert len(long) == 10
    assert long.extras["tokens"][-1] == "[SEP]"
    assert long.notes == ("cut from 52 to 10 tokens",)
    assert exact.notes == ()


def test_no_sentence_is_longer_than_the_models_positions(encoder: TextEncoder) -> None:
    assert len(encoder.extract(["我" * 600])[0]) == encoder.max_tokens <= 512


def test_a_missing_model_error_explains_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for settings in (TextSettings(), TextSettings(model="nobody/nothing", revision="")):
        with pytest.raises(BackendMissingError, match=r"hf download .*HF_HOME.*--set text\.model=FOLDER"):
            resolve_model(settings)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendMissingError, match=r"no config\.json"):
        resolve_model(TextSettings(model=str(tmp_path)))


def test_identity_depends_on_the_content_and_not_the_folder(small_bert: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for file in small_bert.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    original, copied = (model_identity(TextSettings(model=str(folder))) for folder in (small_bert, copy))
    assert original == copied
    config = copy / "config.json"
    config.write_bytes(config.read_bytes() + b" ")
    assert model_identity(TextSettings(model=str(copy))) != original


def test_a_model_that_is_not_bert_is_supported(small_bert: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(small_bert)
    tokenizer.save_pretrained(tmp_path)
    config = DistilBertConfig(vocab_size=len(tokenizer), dim=24, hidden_dim=32, n_layers=1, n_heads=2)
    model = DistilBertModel(config).eval()
    model.save_pretrained(tmp_path)
    encoder = TextEncoder(TextSettings(model=str(tmp_path), max_tokens=10))
    for text, features in zip(SENTENCES, encoder.extract(SENTENCES), strict=True):
        whole = tokenizer(text)["input_ids"]
        ids = tokenizer(text, truncation=True, max_length=10, return_tensors="pt")
        with torch.inference_mode():
            plain = model(ids["input_ids"]).last_hidden_state[0].numpy()
        assert np.abs(features.values - plain).max() < 1e-5
        assert features.notes == ((f"cut from {len(whole)} to 10 tokens",) if len(whole) > 10 else ())


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_broken_model_is_refused(small_bert: Path, tmp_path: Path, file: str) -> None:
    for path in small_bert.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / file).write_bytes(b"nonsense")
    with pytest.raises(BackendMissingError, match=r"cannot be loaded"):
        TextEncoder(TextSettings(model=str(tmp_path)))
