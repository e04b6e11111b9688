"""Forced alignment of a transcript by a CTC model of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import ExtractionError, Features, Reason, UnusableSettingError
from triptych.extractors.pretrained import load_pretrained
from triptych.extractors.words.rows import checked_tokens, resampled, word_rows
from triptych.extractors.words.spans import WILDCARD, align, frames_of, joined, spelled
from triptych.extractors.words.stage import WordsSettings

if TYPE_CHECKING:
    import torch

    from triptych.extractors.inputs import ClipInputs

CONTEXT = 1.0  # seconds before and after a window that the model reads too


class CtcAligner:
    """A CTC model that reads the waveform (wav2vec 2.0, HuBERT, WavLM, UniSpeech, data2vec-audio), loaded once.

    Parameters
    ----------
    settings
        The stage's settings, resolved.
    sample_rate
        Sample rate of the waveforms of all clips [Hz].
    device
        The device that torch computes on.

    Raises
    ------
    BackendMissingError
        The model cannot be loaded.
    UnusableSettingError
        The model does not read the waveform, or its vocabulary has no letters.
    """

    def __init__(self, settings: WordsSettings, sample_rate: int, device: str = "cpu") -> None:
        from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer

        self._prepare = load_pretrained(settings, AutoFeatureExtractor.from_pretrained)
        tokenizer = load_pretrained(settings, AutoTokenizer.from_pretrained)
        self._model = load_pretrained(settings, AutoModelForCTC.from_pretrained).eval().float().to(device)
        config = self._model.config
        if self._prepare.model_input_names[0] != "input_values" or not hasattr(config, "conv_stride"):
            raise UnusableSettingError(
                f"words.model = {settings.model}: model type {config.model_type} does not read the waveform. Name a "
                "CTC model of wav2vec 2.0, HuBERT, WavLM, UniSpeech or data2vec-audio"
            )
        self._settings, self._from, self._device = settings, sample_rate, device
        self._rate = int(self._prepare.sampling_rate)
        self._stride, self._field = 1, 1
        for kernel, step in zip(config.conv_kernel, config.conv_stride, strict=True):
            self._field += (kernel - 1) * self._stride
            self._stride *= step
        special = {tokenizer.word_delimiter_token, *tokenizer.all_special_tokens}
        ids = tokenizer.get_vocab()
        self._letters = {text: number for text, number in ids.items() if text not in special}
        delimiter = ids.get(tokenizer.word_delimiter_token)
        self._silent = sorted({config.pad_token_id} | ({delimiter} - {None}))
        if not self._letters:
            raise UnusableSettingError(f"words.model = {settings.model}: its vocabulary has no letters")

    def extract(self, clip: ClipInputs) -> Features:
        """Align one clip; see `align`."""
        return self.align(clip.text, clip.waveform())

    def align(self, transcript: str, waveform: NDArray[np.float32]) -> Features:
        """Align a transcript to a mono waveform, shape (n,), at the sample rate given at loading.

        Returns
        -------
        Features
            One row for each token, in order.

        Raises
        ------
        ExtractionError
            The transcript has no token or more symbols than the sound has frames, or the sound is empty or not finite.
        """
        tokens = checked_tokens(transcript)
        sound = resampled(waveform, self._from, self._rate)
        spelling = spelled(tokens, self._letters)
        columns = sorted(set(spelling.symbols.tolist()) - {WILDCARD})
        scores = self._scores(np.pad(sound, (0, max(self._field - len(sound), 0))), columns)
        spans = align(scores, columns, spelling)
        if spans is None:
            raise ExtractionError(
                Reason.NOT_ALIGNED,
                f"the transcript needs {frames_of(spelling)} frames, and the sound has {len(scores)}",
            )
        # A frame stands for the stride around the centre of the samples that it is computed from.
        offset = (self._field - self._stride) / 2
        limit = len(sound) / self._rate
        start, end = (
            np.clip((frame * self._stride + offset) / self._rate, 0, limit)
            for frame in (spans.first, spans.after)
        )
        start, end = joined(start, end, self._settings.join)
        return word_rows(tokens, start, end, spans.score, spelling.known)

    def _scores(self, sound: NDArray[np.float32], columns: list[int]) -> NDArray[np.float32]:
        """Compute the scores that `spans.align` reads, in windows of frames on one grid."""
        prepared = self._prepare(sound, sampling_rate=self._rate, return_tensors="np")["input_values"][0]
        total = (len(prepared) - self._field) // self._stride + 1
        most = max(round(self._settings.window * self._rate) // self._stride, 1)
        around = round(CONTEXT * self._rate) // self._stride if total > most else 0
        parts = []
        for first in range(0, total, most):
            after = min(first + most, total)
            left, right = max(first - around, 0), min(after + around, total)
            end = (right - 1) * self._stride + self._field if right < total else len(prepared)
            parts.append(
                self._piece(prepared[left * self._stride : end], columns)[first - left : after - left]
            )
        return np.concatenate(parts)

    def _piece(self, samples: NDArray[np.float32], columns: list[int]) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            logits: torch.Tensor = self._model(torch.from_numpy(samples[None]).to(self._device)).logits[0]
            log_p = torch.log_softmax(logits.float(), dim=-1)
            silence = torch.logsumexp(log_p[:, self._silent], dim=1)
            letter = log_p[:, sorted(self._letters.values())].max(dim=1).values
            chosen = torch.cat([silence[:, None], letter[:, None], log_p[:, columns]], dim=1)
        scores: NDArray[np.float32] = chosen.cpu().numpy()
        return scores
