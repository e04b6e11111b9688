"""Small models with random weights, in the files that `from_pretrained` reads."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    HubertConfig,
    HubertModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
_CONVOLUTIONS = {"conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}


def save_model(kind: str, folder: Path, seed: int = 0) -> Path:
    """Save a model of a kind and the configuration of its inputs."""
    torch.manual_seed(seed)
    model, prepare = _MAKERS[kind]()
    model.save_pretrained(folder)
    prepare.save_pretrained(folder)
    return folder


def _raw(config_type, model_type, **settings):
    def make():
        return model_type(config_type(**_SMALL, **_CONVOLUTIONS, **settings)), Wav2Vec2FeatureExtractor(
            do_normalize=True
        )

    return make


def _whisper():
    config = WhisperConfig(
        d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=48, decoder_ffn_dim=48, vocab_size=64, num_mel_bins=80, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    return WhisperModel(config), WhisperFeatureExtractor(feature_size=80)


def _vit():
    size = {"height": 32, "width": 32}
    return ViTModel(ViTConfig(image_size=32, patch_size=8, **_SMALL)), ViTImageProcessor(size=size)


def _dinov2():
    config = Dinov2Config(
        image_size=28, patch_size=14, mlp_ratio=2, **{k: _SMALL[k] for k in list(_SMALL)[:3]}
    )
    return Dinov2Model(config), ViTImageProcessor(size={"height": 28, "width": 28})


def _clip():
    vision = {"image_size": 32, "patch_size": 8, **_SMALL}
    text = {"vocab_size": 64, "max_position_embeddings": 8, **_SMALL}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    crop = {"height": 32, "width": 32}
    return CLIPModel(config), CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=crop)


_MAKERS = {
    "hubert": _raw(HubertConfig, HubertModel),
    "wav2vec2": _raw(Wav2Vec2Config, Wav2Vec2Model),
    "wavlm": _raw(WavLMConfig, WavLMModel, feat_extract_norm="layer"),
    "whisper": _whisper,
    "vit": _vit,
    "dinov2": _dinov2,
    "clip": _clip,
}
