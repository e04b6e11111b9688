"""Recognisers of transformers: Whisper, and CTC models that read the waveform."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.asr.attention_times import token_frames
from triptych.extractors.asr.heard import Heard, Recogniser, is_wide
from triptych.extractors.asr.stage import AsrSettings
from triptych.extractors.base import UnusableSettingError
from triptych.extractors.pretrained import load_pretrained, quiet_transformers

if TYPE_CHECKING:
    import torch


def load_recogniser(settings: AsrSettings, device: str) -> Recogniser:
    """Load a model by the kind that its configuration names.

    Raises
    ------
    BackendMissingError
        It cannot be loaded.
    UnusableSettingError
        It is neither Whisper nor a CTC model, or Whisper does not write the language.
    """
    from transformers import AutoConfig

    config = load_pretrained(settings, AutoConfig.from_pretrained)
    if config.model_type == "whisper":
        return WhisperRecogniser(settings, device)
    # An encoder without a head for letters has the same configuration, and would be given random letters.
    made_for_ctc = any(name.endswith("ForCTC") for name in config.architectures or ())
    if made_for_ctc and hasattr(config, "conv_stride"):
        return CtcRecogniser(settings, device)
    raise UnusableSettingError(
        f"asr.model = {settings.model}: model type {config.model_type} is no recogniser that is supported. Name a "
        "Whisper model, or a CTC model of wav2vec 2.0, HuBERT, WavLM, UniSpeech or data2vec-audio"
    )


class WhisperRecogniser:
    """Whisper of any size. Words have times where the model names its alignment heads, otherwise a phrase has."""

    def __init__(self, settings: AsrSettings, device: str) -> None:
        from transformers import AutoFeatureExtractor, AutoModelForSpeechSeq2Seq, AutoTokenizer

        self._prepare = load_pretrained(settings, AutoFeatureExtractor.from_pretrained)
        self._tokenizer = load_pretrained(settings, AutoTokenizer.from_pretrained)
        self._model = (
            load_pretrained(settings, AutoModelForSpeechSeq2Seq.from_pretrained).eval().float().to(device)
        )
        self._device = device
        self.rate = int(self._prepare.sampling_rate)
        self.longest = float(self._prepare.chunk_length)
        own = self._model.generation_config
        self._heads = [(int(layer), int(head)) for layer, head in getattr(own, "alignment_heads", None) or ()]
        self._special, self._end = set(self._tokenizer.all_special_ids), self._tokenizer.eos_token_id
        no_stamps = getattr(own, "no_timestamps_token_id", None)
        self._stamps = (
            len(self._tokenizer) if no_stamps is None else int(no_stamps)
        )  # tokens from here are times
        self._stride = 2 * self._prepare.hop_length  # samples of an encoder frame
        multilingual = bool(getattr(own, "lang_to_id", None))
        if settings.language and not multilingual:
            raise UnusableSettingError(
                f"asr.language = {settings.language}: {settings.model} writes one language; leave it empty"
            )
        if settings.language and f"<|{settings.language}|>" not in own.lang_to_id:
            known = ", ".join(sorted(name.strip("<|>") for name in own.lang_to_id))
            raise UnusableSettingError(f"asr.language = {settings.language}: unknown; choose from {known}")
        self._options: dict[str, Any] = {"task": "transcribe"} if multilingual else {}
        if settings.language:
            self._options["language"] = settings.language

    def recognise(self, sounds: Sequence[NDArray[np.float32]]) -> list[list[Heard]]:
        """Return the words of each sound of at most 30 s.

        Tokens are chosen in a batch. Times and confidences are computed for each sound alone, so that they do not
        depend on the other sounds.
        """
        import torch

        prepared = self._prepare(
            list(sounds), sampling_rate=self.rate, return_tensors="pt", return_attention_mask=True
        )
        mel = prepared.input_features.to(self._device)
        with torch.inference_mode(), quiet_transformers():
            made = self._model.generate(
                mel,
                attention_mask=prepared.attention_mask.to(self._device),
                return_dict_in_generate=True,
                num_beams=1,
                do_sample=False,
                **self._options,
            )
            rows = zip(made["sequences"].tolist(), mel, sounds, strict=True)
            return [self._heard(ids, one, len(sound)) for ids, one, sound in rows]

    def _heard(self, ids: list[int], mel: torch.Tensor, samples: int) -> list[Heard]:
        """Return the words of one sequence of tokens, which begins with the prompt."""
        import torch

        prompt = list(takewhile(self._special.__contains__, ids))
        end = next((at for at in range(len(prompt), len(ids)) if ids[at] == self._end), len(ids))
        text = [
            token for token in ids[len(prompt) : end] if token not in self._special and token < self._stamps
        ]
        if not text:
            return []
        with self._attention():
            made = self._model(
                encoder_outputs=self._model.get_encoder()(mel[None]),
                decoder_input_ids=torch.tensor([[*prompt, *text]], device=self._device),
                output_attentions=bool(self._heads),
            )
        steps = slice(len(prompt) - 1, None)  # the last step of the prompt chooses the first token
        likely = torch.softmax(made.logits[0, steps].float(), -1)[range(len(text)), text].cpu().numpy()
        length = samples / self.rate
        if not self._heads:
            return self._words(text, likely, None, length)
        frames = max(-(-samples // self._stride), 1)
        weights = [made.cross_attentions[layer][0, head, steps, :frames] for layer, head in self._heads]
        first = token_frames(torch.stack(weights).float().cpu().numpy()) * self._stride / self.rate
        return self._words(text, likely, list(pairwise(first.tolist())), length)

    @contextmanager
    def _attention(self) -> Iterator[None]:
        """Let the model return its attention, which the fast implementations cannot."""
        before = self._model.config._attn_implementation
        if self._heads:
            self._model.set_attn_implementation("eager")
        try:
            yield
        finally:
            self._model.set_attn_implementation(before)

    def _words(
        self,
        ids: list[int],
        likely: NDArray[np.float32],
        times: list[tuple[float, float]] | None,
        length: float,
    ) -> list[Heard]:
        """Join tokens into words: a Chinese character, or what follows a blank."""
        if times is None:
            text = self._tokenizer.decode(ids).strip()
            return [Heard(text, 0.0, length, float(likely.mean()))] if text else []
        words: list[tuple[str, list[int]]] = []
        part: list[int] = []
        for k in range(len(ids)):
            part.append(k)
            text = self._tokenizer.decode([ids[j] for j in part])
            if "�" in text and k + 1 < len(ids):
                continue  # a character of several tokens
            joins = bool(words) and not text.startswith(" ") and not is_wide(text[:1] or " ")
            if joins and not is_wide(words[-1][0].strip()[-1:] or " "):
                words[-1] = (words[-1][0] + text, words[-1][1] + part)
            else:
                words.append((text, part))
            part = []
        return [
            Heard(
                text.strip(),
                min(times[part[0]][0], length),
                min(max(times[part[-1]][1], times[part[0]][0]), length),
                float(likely[part].mean()),
            )
            for text, part in words
            if text.strip()
        ]


class CtcRecogniser:
    """A CTC model that reads the waveform; its words are the most likely symbols of each frame."""

    longest = 30.0

    def __init__(self, settings: AsrSettings, device: str) -> None:
        from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer

        if settings.language:
            raise UnusableSettingError(
                f"asr.language = {settings.language}: {settings.model} writes the language that it was trained on; "
                "leave it empty"
            )
        self._prepare = load_pretrained(settings, AutoFeatureExtractor.from_pretrained)
        tokenizer = load_pretrained(settings, AutoTokenizer.from_pretrained)
        self._model = load_pretrained(settings, AutoModelForCTC.from_pretrained).eval().float().to(device)
        self._device = device
        self.rate = int(self._prepare.sampling_rate)
        self._stride, self._field = 1, 1
        for kernel, step in zip(self._model.config.conv_kernel, self._model.config.conv_stride, strict=True):
            self._field += (kernel - 1) * self._stride
            self._stride *= step
        self._blank = self._model.config.pad_token_id
        delimiter = getattr(tokenizer, "word_delimiter_token", None)
        self._delimiter = tokenizer.get_vocab().get(delimiter)
        special = {delimiter, *tokenizer.all_special_tokens}
        self._symbols = {
            number: text for text, number in tokenizer.get_vocab().items() if text not in special
        }

    def recognise(self, sounds: Sequence[NDArray[np.float32]]) -> list[list[Heard]]:
        """Return the words of each sound; each is computed alone, so that padding changes nothing."""
        return [self._recognised(sound) for sound in sounds]

    def _recognised(self, sound: NDArray[np.float32]) -> list[Heard]:
        import torch

        length = len(sound) / self.rate
        sound = np.pad(sound, (0, max(self._field - len(sound), 0)))
        values = self._prepare(sound, sampling_rate=self.rate, return_tensors="pt").input_values
        with torch.inference_mode():
            likely, best = torch.softmax(self._model(values.to(self._device)).logits[0].float(), -1).max(-1)
        return self._words(best.cpu().numpy(), likely.cpu().numpy(), length)

    def _words(self, best: NDArray[np.int64], likely: NDArray[np.float32], length: float) -> list[Heard]:
        edges = [0, *(np.flatnonzero(np.diff(best)) + 1).tolist(), len(best)]
        words: list[tuple[str, int, int]] = []
        open_word = False
        for first, after in pairwise(edges):
            symbol = self._symbols.get(int(best[first]), "")
            if int(best[first]) == self._delimiter:
                open_word = False
            if not symbol:
                continue
            wide = is_wide(symbol[0])
            if open_word and not wide:
                text, begin, _ = words[-1]
                words[-1] = (text + symbol, begin, after)
            else:
                words.append((symbol, first, after))
            open_word = not wide
        return [
            Heard(
                text, self._time(first, length), self._time(after, length), float(likely[first:after].mean())
            )
            for text, first, after in words
        ]

    def _time(self, frame: int, length: float) -> float:
        """Return where a frame begins [s]: it stands for the stride around the centre of its samples."""
        return min(max((frame * self._stride + (self._field - self._stride) / 2) / self.rate, 0.0), length)
