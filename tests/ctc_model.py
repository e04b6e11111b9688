"""A CTC model made for tests: it hears tones, one frequency for each symbol, so that the true alignment is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

RATE = 16000
STRIDE, FIELD = 320, 400  # of wav2vec 2.0 [samples]
LETTERS = "你好世界abcde"
VOCABULARY = {
    "<pad>": 0,
    "<s>": 1,
    "</s>": 2,
    "<unk>": 3,
    "|": 4,
    **{c: 5 + i for i, c in enumerate(LETTERS)},
}


def frequency(symbol: int) -> float:
    return 300.0 * 1.25 ** (symbol - 5)


def spoken(text: str, seed: int = 0, lead: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a waveform, and start and end [s] of each letter of `LETTERS` in `text`; others are silent."""
    random = np.random.default_rng(seed)
    pieces, starts, ends = [np.zeros(round(lead * RATE))], [], []
    position = len(pieces[0])
    for letter in text:
        count = round(random.uniform(0.08, 0.2) * RATE)
        tone = np.zeros(count)
        if letter in LETTERS:
            tone = 0.3 * np.sin(2 * np.pi * frequency(VOCABULARY[letter]) * np.arange(count) / RATE)
            starts.append(position / RATE)
            ends.append((position + count) / RATE)
        pause = np.zeros(round(random.choice([0.04, 0.06, 0.3]) * RATE))
        pieces += [tone, pause]
        position += count + len(pause)
    sound = np.concatenate(pieces)
    sound += random.normal(0, 0.003, len(sound))
    return sound.astype(np.float32), np.array(starts), np.array(ends)


def save_ctc_model(folder: Path, steps: int = 80) -> Path:
    """Train the model on the frames of random tones, and save it with its tokenizer."""
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=48, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, conv_dim=(32,) * 7,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, vocab_size=len(VOCABULARY), pad_token_id=0,
        hidden_dropout=0.0, attention_dropout=0.0, feat_proj_dropout=0.0, activation_dropout=0.0, layerdrop=0.0,
        mask_time_prob=0.0, final_dropout=0.0, do_stable_layer_norm=True, feat_extract_norm="layer",
    )  # fmt: skip
    model = Wav2Vec2ForCTC(config).train()
    prepare = Wav2Vec2FeatureExtractor(do_normalize=True)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    random = np.random.default_rng(0)
    for step in range(steps):
        text = "".join(random.permutation(list(LETTERS)))
        sound, starts, ends = spoken(text, seed=1000 + step, lead=random.uniform(0.1, 0.4))
        inputs = prepare(sound, sampling_rate=RATE, return_tensors="pt")["input_values"]
        logits = model(inputs).logits[0]
        centre = (np.arange(len(logits)) * STRIDE + FIELD / 2) / RATE
        target = np.zeros(len(logits), np.int64)
        for letter, start, end in zip(text, starts, ends, strict=True):
            target[(centre >= start) & (centre < end)] = VOCABULARY[letter]
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(target))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval().save_pretrained(folder)
    prepare.save_pretrained(folder)
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps(VOCABULARY, ensure_ascii=False), encoding="utf-8")
    Wav2Vec2CTCTokenizer(str(vocabulary)).save_pretrained(folder)
    return folder
