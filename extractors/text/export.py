"""Export of a language model for ONNX Runtime, compared with transformers before it is used.

As a program (``python -m triptych.extractors.text.export SETTINGS``, JSON) it makes one export.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from triptych.extractors.base import BackendMissingError
from triptych.extractors.model_cache import ExportError, exported, is_exported, package_versions, run_exporter
from triptych.extractors.onnx_runtime import OPSET, PROGRAMS, check_equal, export
from triptych.extractors.pretrained import remembered_identity
from triptych.extractors.text.batches import padded
from triptych.extractors.text.onnx_model import FACTS, NETWORK, TOKENIZER, OnnxModel
from triptych.extractors.text.stage import TextSettings

if TYPE_CHECKING:
    from triptych.extractors.text.torch_model import TorchModel

KIND, VERSION = "text", "2"  # the version changes with what this module writes
# Each kind of text on which tokenizers differ, with different lengths so that a batch has padding.
PROBES = (
    "我不想嫁给李茶。",
    "Hello, WORLD! It's 3.14 naïve ﬁne",
    "混合 text，emoji 😀👩‍👩‍👧 and ｆｕｌｌ　ｗｉｄｔｈ",
    " \t\u200b\u00ad\u0301e\u0301\ufffd",
    "[CLS] <s> [MASK] </s> <mask> ##ing",
    "。",
)


def ensure_exported(settings: TextSettings) -> Path:
    """Return the folder of the model's export; if it is missing, make it, which imports torch.

    Raises
    ------
    ExportError
        The model cannot be exported, or the export's numbers are not the model's.
    BackendMissingError
        The model cannot be loaded.
    """
    identity = remembered_identity(settings)
    if identity is None:  # a branch of a hub model: once it is downloaded, its commit is known
        from triptych.extractors.text.torch_model import TorchModel

        TorchModel(settings)
        identity = remembered_identity(settings)
    return exported(KIND, _key(str(identity)), lambda folder: export_model(settings, folder))


def prepare(settings: TextSettings, device: str = "cpu") -> None:
    """Make the model's export in a separate process, before worker processes need it."""
    if settings.runtime != "onnx" or device != "cpu":
        return
    identity = remembered_identity(settings)
    if identity is not None and is_exported(KIND, _key(identity)):
        return
    run_exporter("triptych.extractors.text.export", settings.model_dump_json())


def export_model(settings: TextSettings, folder: Path) -> None:
    """Load a model by transformers and write its export into an empty folder."""
    import torch

    from triptych.extractors.text.torch_model import TorchModel

    reference = TorchModel(settings)
    backend = getattr(reference.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ExportError(
            f"{type(reference.tokenizer).__name__} is not a tokenizer of the tokenizers library"
        )
    backend.save(str(folder / TOKENIZER))
    facts = {
        "longest": reference.longest,
        "padding_id": reference.padding_id,
        "truncation_side": reference.tokenizer.truncation_side,
        "split_special_tokens": bool(reference.tokenizer.split_special_tokens),
    }
    (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")
    ids, mask = padded(reference.token_ids(PROBES[:2], reference.longest), reference.padding_id)
    axes = {0: "sentences", 1: "tokens"}
    export(
        _last_hidden_state(reference.model),
        {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)},
        {"hidden": axes},
        axes,
        folder / NETWORK,
    )
    _check(folder, reference)


def _last_hidden_state(model: Any) -> Any:
    """Wrap a model of transformers in a module of two inputs and one output."""
    import torch

    class LastHiddenState(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden: torch.Tensor = self.model(
                input_ids=input_ids, attention_mask=attention_mask
            ).last_hidden_state
            return hidden

    return LastHiddenState()


def _check(folder: Path, reference: TorchModel) -> None:
    """Compare tokens and hidden states of the export with those of transformers."""
    try:
        ours = OnnxModel(folder)
    except Exception as error:  # ONNX Runtime's and tokenizers' own errors
        raise ExportError(f"the export cannot be loaded: {error}") from error
    longest = min(reference.longest, 512)
    probes = [*PROBES, "".join(PROBES) * 64]
    ids = reference.token_ids(probes, longest)
    same = (
        ours.token_ids(probes, longest) == ids
        and [ours.tokens(each) for each in ids] == [reference.tokens(each) for each in ids]
        and [ours.whole_length(text) for text in probes] == [reference.whole_length(text) for text in probes]
    )
    if not same:
        raise ExportError(
            f"tokenizers alone splits texts otherwise than {type(reference.tokenizer).__name__}"
        )
    for batch in (ids[:-1], ids[-1:], ids[:1]):
        token_ids, mask = padded(batch, reference.padding_id)
        real = mask.astype(bool)
        theirs = reference.hidden_states(token_ids, mask)[real]
        check_equal([ours.hidden_states(token_ids, mask)[real]], [np.asarray(theirs)])


def _key(identity: str) -> dict[str, str]:
    programs = package_versions(*PROGRAMS, "transformers", "tokenizers")
    return {"model": identity, "code": VERSION, "opset": str(OPSET), **programs}


if __name__ == "__main__":
    try:
        ensure_exported(TextSettings.model_validate_json(sys.argv[1]))
    except (ExportError, BackendMissingError) as problem:
        sys.exit(str(problem))
