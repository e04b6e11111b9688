"""The text stage: one embedding per token, by a BERT-like model of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import Features
from triptych.extractors.model_cache import ExportError
from triptych.extractors.stage import text_columns
from triptych.extractors.text.batches import batches, padded
from triptych.extractors.text.stage import TextSettings

if TYPE_CHECKING:
    from triptych.extractors.text.onnx_model import OnnxModel
    from triptych.extractors.text.torch_model import TorchModel

# Padding included: what fits into a core's cache, and what fills a GPU.
CPU_BATCH_TOKENS, CUDA_BATCH_TOKENS = 256, 32768


class TextEncoder:
    """The last hidden state of every token, [CLS] and [SEP] included.

    The paper (section 4.1) takes them from pre-trained Chinese BERT-base: 768 numbers per token.

    Parameters
    ----------
    settings
        The model, its revision, the longest sequence and the runtime. Where ``onnx`` cannot run the model,
        torch runs it and every result has a note that says why.
    device
        The device, by torch's name; ONNX Runtime is used on ``cpu`` only.

    Raises
    ------
    BackendMissingError
        The model is neither a folder, nor in the cache, nor on the hub.
    """

    def __init__(self, settings: TextSettings, device: str = "cpu") -> None:
        self._model, self._notes = _load(settings, device)
        self._batch_tokens = CPU_BATCH_TOKENS if device == "cpu" else CUDA_BATCH_TOKENS
        self.max_tokens = min(settings.max_tokens, self._model.longest)

    def extract(self, texts: Sequence[str]) -> list[Features]:
        """Embed sentences, batched by length.

        Parameters
        ----------
        texts
            Any number of sentences, none empty.

        Returns
        -------
        list of Features
            One per sentence, in order: `values` of shape (tokens, hidden size), `times` NaN, extras
            ``tokens`` and ``input_ids``. A sentence over the limit is cut before its [SEP], with a note.
        """
        if not texts:
            return []
        encoded = self._model.token_ids(texts, self.max_tokens)
        results: dict[int, Features] = {}
        for batch in batches(encoded, self._batch_tokens):
            ids, mask = padded([encoded[index] for index in batch], self._model.padding_id)
            for index, hidden in zip(batch, self._model.hidden_states(ids, mask), strict=True):
                results[index] = self._features(texts[index], encoded[index], hidden)
        return [results[index] for index in range(len(texts))]

    def _features(self, text: str, ids: list[int], hidden: NDArray[np.float32]) -> Features:
        names, units = zip(*text_columns(hidden.shape[1]), strict=True)
        return Features(
            values=np.ascontiguousarray(hidden[: len(ids)], dtype=np.float32),
            columns=names,
            units=units,
            times=np.full(len(ids), np.nan),
            valid=np.ones(len(ids), dtype=bool),
            extras={
                "tokens": np.array(self._model.tokens(ids), dtype=object),
                "input_ids": np.array(ids, dtype=np.int32),
            },
            notes=self._cut_note(text, ids) + self._notes,
        )

    def _cut_note(self, text: str, ids: list[int]) -> tuple[str, ...]:
        if len(ids) < self.max_tokens:
            return ()
        whole = self._model.whole_length(text)
        return (f"cut from {whole} to {len(ids)} tokens",) if whole > len(ids) else ()


def _load(settings: TextSettings, device: str) -> tuple[OnnxModel | TorchModel, tuple[str, ...]]:
    """Load the model in the runtime asked for, or in torch with a note where that fails."""
    notes: tuple[str, ...] = ()
    if settings.runtime == "onnx" and device == "cpu":
        try:
            return _onnx_model(settings), ()
        except ExportError as error:
            notes = (f"computed by torch, not ONNX Runtime: {error}",)
    from triptych.extractors.text.torch_model import TorchModel

    return TorchModel(settings, device), notes


def _onnx_model(settings: TextSettings) -> OnnxModel:
    from triptych.extractors.text.export import ensure_exported

    folder = ensure_exported(settings)
    try:
        from triptych.extractors.text.onnx_model import OnnxModel

        return OnnxModel(folder)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file, a package that cannot be imported
        raise ExportError(f"the export in {folder} cannot be loaded: {error}") from error
