"""The stage `speech`: hidden states of a pretrained audio encoder, one row every 20 ms.

Any encoder of transformers that reads the waveform (wav2vec 2.0, HuBERT, WavLM, UniSpeech, data2vec) or log-mel
frames of 30 s (Whisper's encoder). The default is HuBERT base trained on 10,000 hours of Mandarin (WenetSpeech).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from triptych.extractors.base import ExtractionError, Features, Reason, UnusableSettingError
from triptych.extractors.pretrained import (
    download,
    keep_model,
    load_pretrained,
    model_identity,
    resolve_model,
)
from triptych.extractors.settings import MediaSettings, ModelName, PretrainedSettings, Revision
from triptych.extractors.stage import Input, Stage, numbered

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from triptych.extractors.inputs import ClipInputs


class SpeechSettings(PretrainedSettings):
    """The audio encoder."""

    section: ClassVar[str] = "speech"

    model: ModelName = "TencentGameMate/chinese-hubert-base"
    revision: Revision = "fce0375452b1dd6c080ac3248d423d4d037bc831"
    layer: Annotated[
        int, Field(ge=-64, le=64, description="Hidden states of this layer; 0 is its input, -1 the last one.")
    ] = -1
    window: Annotated[
        float, Field(ge=1, le=300, description="Seconds encoded at once; longer clips in several windows.")
    ] = 30.0


class SpeechEncoder:
    """An audio encoder, loaded once.

    Parameters
    ----------
    settings
        The stage's settings, resolved.
    sample_rate
        Sample rate of the waveforms of all clips [Hz]; they are resampled to the encoder's own rate.
    device
        The device that torch computes on.

    Raises
    ------
    BackendMissingError
        The model cannot be loaded.
    UnusableSettingError
        The model is not an audio encoder, or the layer does not exist.
    """

    def __init__(self, settings: SpeechSettings, sample_rate: int, device: str = "cpu") -> None:
        from transformers import AutoFeatureExtractor, AutoModel

        self._prepare = load_pretrained(settings, AutoFeatureExtractor.from_pretrained)
        model = load_pretrained(settings, AutoModel.from_pretrained).eval().float()
        self._model = (model.get_encoder() if model.config.is_encoder_decoder else model).to(device)
        self._device, self._rate, self._settings = device, sample_rate, settings
        self.sample_rate: int = getattr(self._prepare, "sampling_rate", 0)
        self._input = self._prepare.model_input_names[0]
        self._stride, self._field = self._geometry(model.config)
        self._check_layer(model.config)

    @property
    def row_rate(self) -> float:
        """Rows per second [Hz]."""
        return self.sample_rate / self._stride

    def extract(self, clip: ClipInputs) -> Features:
        """Encode one clip.

        Returns
        -------
        Features
            Shape (T, hidden size): row k is centred on the samples that the encoder computes it from.
        """
        return self.encode(clip.waveform())

    def encode(self, waveform: NDArray[np.float32]) -> Features:
        """Encode a mono waveform, shape (n,), n >= 1, at the sample rate given at loading."""
        import numpy as np
        import soxr

        if not len(waveform):
            raise ExtractionError(Reason.EMPTY_AUDIO, "the waveform has no sample")
        if not np.isfinite(waveform).all():
            raise ExtractionError(Reason.NON_FINITE_AUDIO, "the waveform holds NaN or infinity")
        sound = soxr.resample(waveform, self._rate, self.sample_rate, quality="soxr_hq").astype(np.float32)
        sound = np.pad(sound, (0, max(self._field - len(sound), 0)))
        values = self._encode_raw(sound) if self._input == "input_values" else self._encode_mel(sound)
        names, units = zip(*numbered("h", values.shape[1]), strict=True)
        centre = (self._field - 1) / 2
        return Features(
            values=np.ascontiguousarray(values, np.float32),
            columns=names,
            units=units,
            times=(np.arange(len(values)) * self._stride + centre) / self.sample_rate,
            valid=np.ones(len(values), dtype=np.bool_),
        )

    def _encode_raw(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        """Encode samples in windows; they overlap by a receptive field minus a stride, to keep rows on one grid."""
        import numpy as np

        prepared = self._prepare(sound, sampling_rate=self.sample_rate, return_tensors="np")[self._input][0]
        total = (len(prepared) - self._field) // self._stride + 1
        most = max(round(self._settings.window * self.sample_rate) // self._stride, 1)
        parts = []
        for first in range(0, total, most):
            rows = min(most, total - first)
            begin = first * self._stride
            end = begin + (rows - 1) * self._stride + self._field
            # The last window includes the samples after its last row, since group normalisation reads all samples.
            piece = prepared[begin : end if first + rows < total else len(prepared)]
            parts.append(self._hidden(piece[None])[:rows])
        return np.concatenate(parts)

    def _encode_mel(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        """Encode log-mel frames in pieces of the fixed length that the encoder was trained on."""
        import numpy as np

        length = self._prepare.chunk_length * self.sample_rate
        parts = []
        for begin in range(0, len(sound), length):
            piece = sound[begin : begin + length]
            mel = self._prepare(piece, sampling_rate=self.sample_rate, return_tensors="np")[self._input]
            parts.append(self._hidden(mel)[: -(-len(piece) // self._stride)])
        return np.concatenate(parts)

    def _hidden(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            tensor = torch.from_numpy(inputs).to(self._device)
            states = self._model(tensor, output_hidden_states=True).hidden_states
        rows: NDArray[np.float32] = states[self._settings.layer][0].float().cpu().numpy()
        return rows

    def _geometry(self, config: Any) -> tuple[int, int]:
        """Return the samples between rows, and the samples that one row depends on before attention."""
        if self._input == "input_values" and hasattr(config, "conv_stride"):
            stride, field = 1, 1
            for kernel, step in zip(config.conv_kernel, config.conv_stride, strict=True):
                field += (kernel - 1) * stride
                stride *= step
            return stride, field
        if self._input == "input_features" and hasattr(self._prepare, "chunk_length"):
            stride = self._prepare.hop_length * 2  # Whisper's second convolution halves the log-mel frames
            return stride, stride
        raise UnusableSettingError(
            f"speech.model = {self._settings.model}: model type {config.model_type} is no audio encoder that is "
            "supported. Name a wav2vec 2.0, HuBERT, WavLM, UniSpeech, data2vec-audio or Whisper model"
        )

    def _check_layer(self, config: Any) -> None:
        layers = getattr(config, "encoder_layers", None) or config.num_hidden_layers
        if not -layers - 1 <= self._settings.layer <= layers:
            raise UnusableSettingError(
                f"speech.layer = {self._settings.layer}: this model has layers 0 to {layers} (or -1 to {-layers - 1})"
            )


def _load(settings: SpeechSettings, media: MediaSettings, device: str) -> SpeechEncoder:
    return SpeechEncoder(settings, media.sample_rate, device)


STAGE = Stage(
    name="speech",
    row="20 ms of sound (the encoder's stride)",
    settings=SpeechSettings,
    reads=(Input.WAVEFORM,),
    columns=lambda width: [numbered("h", width)],
    row_rate=lambda settings, media: math.nan,  # known once the model is loaded: `SpeechEncoder.row_rate`
    load=_load,
    packages=("av", "soxr", "torch", "transformers"),
    model_identity=model_identity,
    identified=frozenset({"model", "revision"}),
    resolve=resolve_model,
    keep_resolved=keep_model,
    download=lambda settings: download(settings, lambda found: _load(found, MediaSettings(), "cpu")),
)
