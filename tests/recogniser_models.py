"""A small Whisper with random weights, for tests."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

RATE = 16000
SPECIAL = [
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|zh|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>",
    "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
]  # fmt: skip


def save_whisper(folder: Path, *, timed: bool = True, longest: int = 24, seed: int = 0) -> Path:
    """Save a multilingual Whisper of two layers; its letters are bytes."""
    letters = list(bytes_to_unicode().values())
    first = len(letters)
    number = {name: first + at for at, name in enumerate(SPECIAL)}
    end = number["<|endoftext|>"]
    torch.manual_seed(seed)
    config = WhisperConfig(
        d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=48, decoder_ffn_dim=48, vocab_size=first + len(SPECIAL) + 1501, num_mel_bins=80,
        pad_token_id=end, bos_token_id=end, eos_token_id=end, init_std=0.5, max_target_positions=64,
        decoder_start_token_id=number["<|startoftranscript|>"], suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    written = {letters.index(letter) for letter in "abcdefĠ"} | {end}  # no time stamps, no special tokens
    with torch.no_grad():
        model.proj_out.weight[[at for at in range(config.vocab_size) if at not in written]] = 0
    own = GenerationConfig(
        pad_token_id=end, bos_token_id=end, eos_token_id=end, max_length=longest, is_multilingual=True,
        decoder_start_token_id=number["<|startoftranscript|>"], no_timestamps_token_id=number["<|notimestamps|>"],
        lang_to_id={"<|en|>": number["<|en|>"], "<|zh|>": number["<|zh|>"]},
        task_to_id={"transcribe": number["<|transcribe|>"], "translate": number["<|translate|>"]},
        return_timestamps=False, max_initial_timestamp_index=50,
    )  # fmt: skip
    if timed:
        own.alignment_heads = [[0, 0], [1, 1]]
    model.generation_config = own
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    tokenizer = WhisperTokenizer(
        vocab={**{letter: at for at, letter in enumerate(letters)}, **number}, merges=[]
    )
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL[1:]})
    tokenizer.save_pretrained(folder)
    return folder
