"""ONNX Runtime beside torch: the same tokens, the same numbers to 1e-5, and torch wherever ONNX Runtime cannot."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from triptych.extractors import model_cache
from triptych.extractors.model_cache import ExportError, cache_folder, exported, is_exported
from triptych.extractors.onnx_runtime import check_equal
from triptych.extractors.pretrained import model_identity, remembered_identity
from triptych.extractors.text import export
from triptych.extractors.text.encoder import TextEncoder
from triptych.extractors.text.stage import TextSettings

TEXTS = [
    "我不想嫁给李茶",
    "你这是嫁入豪门啊！有那么明显吗？" * 3,
    "Hello, WORLD! It's 3.14 naïve ﬁne",
    "混合 text，emoji 😀👩‍👩‍👧🏽 and ｆｕｌｌ　ｗｉｄｔｈ",
    "。",
    " ",
    "\u200b",
    "\ufffd\x00\u0301",
    "\ud7ff\ue000𠮷野家 𓀀 \U0010ffff",
    "é e\u0301 Å A\u030a ß ẞ İ ı ǅ",
    "العربية עברית हिन्दी ไทย 한국어 日本語カタカナ",
    "[CLS] [SEP] <s> </s> <mask> [MASK] ##ing ▁ Ġ",
    "line\none\r\ntwo\ttabs   spaces",
    "x" * 300,
    "我" * 700,
    "word and 词 " * 400,
    "1,234,567.89% @user #tag https://example.org/?q=1&b=2",
]
CORPUS = [text for text in TEXTS if text.strip()] * 4


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return wrapped(tokenizer)


def unigram_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=220, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"], unk_token="<unk>"
    )
    tokenizer.train_from_iterator([text for text in CORPUS if "𓀀" not in text], trainer)
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=ends
    )
    return wrapped(tokenizer)


def wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        sep_token="</s>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=512,
    )


def save(folder: Path, tokenizer: PreTrainedTokenizerFast, kind: type, config: type) -> Path:
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    settings = config(
        vocab_size=len(tokenizer),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=514,
        pad_token_id=1,
    )
    kind(settings).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("roberta"), byte_level_tokenizer(), RobertaModel, RobertaConfig)


@pytest.fixture(scope="module")
def xlm_roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("xlm"), unigram_tokenizer(), XLMRobertaModel, XLMRobertaConfig)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def settings_of(folder: Path, **changes: object) -> TextSettings:
    return TextSettings(model=str(folder)).model_copy(update=changes)


@pytest.mark.parametrize("model", ["small_bert", "roberta", "xlm_roberta"])
@pytest.mark.parametrize("max_tokens", [512, 11])
def test_onnx_and_torch_agree_on_tokens_and_values(
    model: str, max_tokens: int, request: pytest.FixtureRequest
) -> None:
    settings = settings_of(request.getfixturevalue(model), max_tokens=max_tokens)
    ours = TextEncoder(settings).extract(TEXTS)
    theirs = TextEncoder(settings.model_copy(update={"runtime": "torch"})).extract(TEXTS)
    assert any(features.notes for features in ours)
    for mine, its in zip(ours, theirs, strict=True):
        assert mine.notes == its.notes
        for name in ("tokens", "input_ids"):
            assert mine.extras[name].tolist() == its.extras[name].tolist()
            assert mine.extras[name].dtype == its.extras[name].dtype
        assert mine.values.shape == its.values.shape
        assert np.abs(mine.values - its.values).max() < 1e-5


def test_torch_runtime_is_transformers_bit_for_bit(small_bert: Path) -> None:
    text = "我不想嫁给李茶，你这是嫁入豪门啊！"
    tokenizer = AutoTokenizer.from_pretrained(small_bert)
    model = AutoModel.from_pretrained(small_bert).eval()
    with torch.inference_mode():
        plain = model(**tokenizer.pad({"input_ids": [tokenizer(text)["input_ids"]]}, return_tensors="pt"))
    [features] = TextEncoder(settings_of(small_bert, runtime="torch")).extract([text])
    assert features.values.tobytes() == plain.last_hidden_state[0].numpy().tobytes()


def test_equal_batches_give_equal_bits_in_any_process(small_bert: Path) -> None:
    encoder = TextEncoder(settings_of(small_bert))
    first, second = encoder.extract(TEXTS[:5]), TextEncoder(settings_of(small_bert)).extract(TEXTS[:5])
    assert all(
        one.values.tobytes() == other.values.tobytes() for one, other in zip(first, second, strict=True)
    )


def test_roberta_uses_only_the_positions_that_it_has(roberta: Path, tmp_path: Path) -> None:
    """Its first positions are padding's: a tokenizer that names no length must not run past the last."""
    for file in roberta.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = tmp_path / "tokenizer_config.json"
    named = json.loads(config.read_bytes())
    del named["model_max_length"]
    config.write_text(json.dumps(named))
    for runtime in ("onnx", "torch"):
        [features] = TextEncoder(settings_of(tmp_path, max_tokens=4096, runtime=runtime)).extract(["ꝏ" * 900])
        assert len(features) == 512


WORKER = """
import sys
from pathlib import Path
from triptych.extractors.faces.stage import FacesSettings
from triptych.extractors.text.stage import TextSettings
from triptych.extractors.text.encoder import TextEncoder
from triptych.extractors.faces.tracker import FaceTracker

[features] = TextEncoder(TextSettings(model=sys.argv[1])).extract(["我不想"])
FaceTracker(FacesSettings())
print(features.notes, [name for name in ("torch", "transformers", "onnx", "huggingface_hub") if name in sys.modules])
"""


def test_with_cached_exports_no_torch_is_imported(small_bert: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(small_bert)]
    for _ in range(2):  # the first may have to export
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "() []"


def test_prepare_exports_in_another_process(small_bert: Path, own_cache: Path) -> None:
    settings = settings_of(small_bert)
    export.prepare(settings.model_copy(update={"runtime": "torch"}))
    export.prepare(settings, "cuda")
    assert not own_cache.exists() or not list(own_cache.glob("models/text-*/model.onnx"))
    export.prepare(settings)
    [file] = own_cache.glob("models/text-*/model.onnx")
    made = file.stat().st_mtime_ns
    assert TextEncoder(settings).extract(["我"])[0].notes == ()
    assert file.stat().st_mtime_ns == made


def test_a_failing_prepare_raises_nothing(tmp_path: Path, own_cache: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    export.prepare(settings_of(tmp_path))
    assert not list(own_cache.glob("models/text-*/*"))


def slow_export(root: str, answers) -> None:
    os.environ["TRIPTYCH_CACHE"] = root

    def make(folder: Path) -> None:
        import time

        with (Path(root) / "made").open("a") as made:
            made.write("x")
        time.sleep(0.5)
        (folder / "model.onnx").write_bytes(b"network")

    answers.put((exported("text", {"model": "x"}, make) / "model.onnx").read_bytes())


def test_processes_that_ask_at_once_export_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    processes = [context.Process(target=slow_export, args=(str(tmp_path), answers)) for _ in range(3)]
    for process in processes:
        process.start()
    assert [answers.get(timeout=60) for _ in processes] == [b"network"] * 3
    for process in processes:
        process.join()
    assert (tmp_path / "made").read_text() == "x"


def test_a_cut_short_export_is_made_again(own_cache: Path) -> None:
    calls = []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "model.onnx").write_bytes(b"network")

    file = exported("text", {"model": "x"}, make) / "model.onnx"
    assert is_exported("text", {"model": "x"})
    file.write_bytes(b"net")
    assert not is_exported("text", {"model": "x"})
    assert exported("text", {"model": "x"}, make) / "model.onnx" == file
    assert file.read_bytes() == b"network"
    file.unlink()
    exported("text", {"model": "x"}, make)
    assert len(calls) == 3


def test_an_interrupted_export_leaves_nothing_in_use(own_cache: Path) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exported("text", {"model": "x"}, interrupted)
    assert [path for path in (own_cache / "models").iterdir() if path.is_dir()] == []
    stale = own_cache / "models" / f".{model_cache._name('text', {'model': 'x'})}-killed"
    stale.mkdir()
    exported("text", {"model": "x"}, lambda folder: None)
    assert not stale.exists()


def test_a_failed_export_is_remembered_with_its_reason(own_cache: Path) -> None:
    calls = []

    def refused(folder: Path) -> None:
        calls.append(folder)
        (folder / "model.onnx").write_bytes(b"half")
        raise ExportError("uses an operator that ONNX has not")

    for _ in range(2):
        with pytest.raises(ExportError, match="an operator that ONNX has not"):
            exported("text", {"model": "x"}, refused)
    assert len(calls) == 1
    assert not list(own_cache.glob("models/*/model.onnx"))


def test_an_unwritable_cache_is_replaced_by_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_bert: Path
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the cache folder would be")
    monkeypatch.setenv("TRIPTYCH_CACHE", str(blocked))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert TextEncoder(settings_of(small_bert)).extract(["我"])[0].notes == ()
    [folder] = tmp_path.glob("triptych-*")
    assert list(folder.glob("models/text-*/model.onnx"))
    assert folder.stat().st_mode & 0o077 == 0


def test_a_temporary_folder_that_others_can_write_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_bert: Path
) -> None:
    (tmp_path / "blocked").write_text("")
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "blocked"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / f"triptych-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    [features] = TextEncoder(settings_of(small_bert)).extract(["我"])
    assert "does not belong to this user alone" in features.notes[0]
    assert list(folder.iterdir()) == []


def test_a_full_disk_during_the_export_gives_torch_and_a_note(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, small_bert: Path
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "export", full)
    [features] = TextEncoder(settings_of(small_bert)).extract(["我"])
    assert features.notes == (
        "computed by torch, not ONNX Runtime: no folder for exported models can be written "
        "([Errno 28] No space left on device)",
    )
    monkeypatch.undo()
    monkeypatch.setenv("TRIPTYCH_CACHE", str(own_cache))
    assert TextEncoder(settings_of(small_bert)).extract(["我"])[0].notes == ()


def test_an_export_that_differs_from_torch_is_not_used(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, small_bert: Path
) -> None:
    real = export.OnnxModel.hidden_states
    monkeypatch.setattr(
        export.OnnxModel, "hidden_states", lambda self, ids, mask: real(self, ids, mask) + np.float32(1e-3)
    )
    [features] = TextEncoder(settings_of(small_bert)).extract(["我不想"])
    assert features.notes[0].startswith(
        "computed by torch, not ONNX Runtime: the export differs from torch by"
    )
    [torch_features] = TextEncoder(settings_of(small_bert, runtime="torch")).extract(["我不想"])
    assert features.values.tobytes() == torch_features.values.tobytes()


def test_other_tokens_than_those_of_transformers_are_not_used(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, small_bert: Path
) -> None:
    real = export.OnnxModel.token_ids
    monkeypatch.setattr(
        export.OnnxModel, "token_ids", lambda self, texts, most: [ids[:-1] for ids in real(self, texts, most)]
    )
    [features] = TextEncoder(settings_of(small_bert)).extract(["我不想"])
    assert "splits texts otherwise" in features.notes[0]
    assert len(features) == 5


def test_a_tokenizer_without_fast_backend_runs_on_torch(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, small_bert: Path
) -> None:
    monkeypatch.setattr(PreTrainedTokenizerFast, "backend_tokenizer", None)
    [features] = TextEncoder(settings_of(small_bert)).extract(["我不想"])
    assert "is not a tokenizer of the tokenizers library" in features.notes[0]
    assert len(features) == 5


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_package_gives_torch_and_a_note(
    missing: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch, small_bert: Path
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    [features] = TextEncoder(settings_of(small_bert)).extract(["我不想"])
    assert missing in features.notes[0]


def test_a_damaged_export_gives_torch_and_a_note(own_cache: Path, small_bert: Path) -> None:
    TextEncoder(settings_of(small_bert))
    [file] = own_cache.glob("models/text-*/model.onnx")
    file.write_bytes(bytes(file.stat().st_size))
    [features] = TextEncoder(settings_of(small_bert)).extract(["我不想"])
    assert "cannot be loaded" in features.notes[0]


def test_results_that_are_not_finite_count_as_different() -> None:
    check_equal([np.ones(2, np.float32)], [np.float32([1, 1 + 9e-6])])
    for wrong in ([np.nan, 1], [1, 1.0001], [1, np.inf]):
        with pytest.raises(ExportError, match="differs"):
            check_equal([np.float32(wrong)], [np.ones(2, np.float32)])
    with pytest.raises(ExportError, match="shape"):
        check_equal([np.ones((1, 2), np.float32)], [np.ones(2, np.float32)])


def test_an_identity_is_read_again_when_a_file_changes(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    settings = settings_of(model)
    assert remembered_identity(settings) == model_identity(settings)
    with monkeypatch.context() as patched:
        patched.setattr("triptych.extractors.pretrained.model_identity", lambda settings: "read again")
        assert remembered_identity(settings) == model_identity(settings)
    (model / "config.json").write_text("[]")
    assert remembered_identity(settings) == model_identity(settings)


def test_the_cache_follows_its_environment_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("TRIPTYCH_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "triptych"
    for ignored in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_folder() == tmp_path / ".cache" / "triptych"
