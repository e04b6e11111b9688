"""A synthetic voice of known pitch: glottal pulses filtered by moving formants."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.signal import butter, sosfilt

Floats = NDArray[np.float64]

RATE = 44100  # samples per second of the waveform and all curves along it
_BLOCK = 220  # samples with constant formants, 5 ms
_SILENCE = 0.15  # seconds before the first and after the last word
_SHORTEST = 2.0  # seconds

# Centres of the first four formants of an adult's vowels, Hz, and the mouth's opening for each vowel.
_VOWELS = (
    ((800, 1250, 2600, 3500), 1.0),  # a
    ((480, 1950, 2600, 3500), 0.55),  # e
    ((310, 2250, 2900, 3600), 0.35),  # i
    ((540, 900, 2500, 3400), 0.7),  # o
    ((350, 800, 2400, 3400), 0.4),  # u
)
_BANDWIDTHS = (80.0, 100.0, 140.0, 200.0)
# Pitch at the beginning, middle and end of a syllable by tone (level, rising, dipping, falling), relative to the
# mean, in units of the speaker's range.
_TONES = ((0.5, 0.5, 0.4), (-0.2, 0.0, 0.5), (-0.2, -0.5, -0.1), (0.5, 0.2, -0.3))


@dataclass(frozen=True)
class Manner:
    """How a sentence is spoken.

    Attributes
    ----------
    pitch
        Mean F0, Hz.
    range
        Semitones from the mean to the highest tone.
    level
        Root mean square of the loudest syllable; full scale is 1.
    rate
        Syllables per second.
    brightness
        Factor on all formants; above 1 the vowels sound brighter.
    """

    pitch: float
    range: float
    level: float
    rate: float
    brightness: float


@dataclass(frozen=True)
class Speech:
    """A spoken sentence and its ground truth.

    Attributes
    ----------
    waveform
        float64 at 44,100 Hz, shape (n,), within [-1, 1].
    f0
        Pitch at each sample in Hz, 0 where unvoiced; shape (n,).
    mouth
        Opening of the mouth at each sample, 0 to 1; shape (n,).
    """

    waveform: Floats
    f0: Floats
    mouth: Floats


@dataclass(frozen=True)
class _Syllable:
    start: float
    end: float
    word: int
    vowel: int
    tone: int

    def moment(self, part: float) -> float:
        return self.start + part * (self.end - self.start)


def choose_manner(sentiment: float, rng: np.random.Generator) -> Manner:
    """Draw a manner: with more positive sentiment the voice is higher, more varied, louder, faster, brighter."""
    return Manner(
        pitch=165 * 2 ** (0.45 * sentiment + rng.normal(0, 0.06)),
        range=2.3 + 1.0 * sentiment,
        level=0.07 * 10 ** (0.3 * sentiment + rng.normal(0, 0.04)),
        rate=5.6 + 0.5 * sentiment + rng.normal(0, 0.1),
        brightness=1 + 0.06 * sentiment + rng.normal(0, 0.01),
    )


def speak(syllables: int, manner: Manner, rng: np.random.Generator) -> Speech:
    """Speak this number of syllables, in words of two to four, with a pause or a breath between the words.

    The waveform's length is a whole number of frames at 30 Hz.
    """
    spoken = _timing(syllables, manner.rate, rng)
    length = max(spoken[-1].end + _SILENCE, _SHORTEST)
    time = np.arange(int(np.ceil(length * 30)) * RATE // 30) / RATE
    words = [(word[0].start, word[-1].end) for word in _by_word(spoken)]
    f0 = _pitch(spoken, words, time, manner)
    loudness = _loudness(spoken, words, time, rng)
    vowels = _vocal_tract(_glottal(f0, rng) * loudness, _formants(spoken, time, manner.brightness))
    vowels *= manner.level / np.sqrt(np.mean(vowels[f0 > 0] ** 2))
    waveform = vowels + _breath(words, time, manner.level, rng)
    return Speech(np.clip(waveform, -0.99, 0.99), f0, _mouth(spoken, time))


def _timing(syllables: int, rate: float, rng: np.random.Generator) -> list[_Syllable]:
    spoken: list[_Syllable] = []
    now, word = _SILENCE, 0
    while len(spoken) < syllables:
        left = syllables - len(spoken)
        size = left if left <= 4 else int(rng.integers(3, min(4, left - 2) + 1))
        for _ in range(size):
            end = now + rng.uniform(0.88, 1.12) / rate
            spoken.append(
                _Syllable(now, end, word, int(rng.integers(len(_VOWELS))), int(rng.integers(len(_TONES))))
            )
            now = end
        now += rng.uniform(0.10, 0.15)
        word += 1
    return spoken


def _by_word(spoken: list[_Syllable]) -> list[list[_Syllable]]:
    return [[each for each in spoken if each.word == word] for word in range(spoken[-1].word + 1)]


def _pitch(spoken: list[_Syllable], words: list[tuple[float, float]], time: Floats, manner: Manner) -> Floats:
    """F0 of each sample: the tones of the syllables, falling a little towards the end of the sentence."""
    knots = [each.moment(part) for each in spoken for part in (0.2, 0.5, 0.85)]
    tones = [tone for each in spoken for tone in _TONES[each.tone]]
    semitones = manner.range * (np.array(tones) - 0.3 * np.array(knots) / knots[-1])
    along = PchipInterpolator(knots, semitones)(np.clip(time, knots[0], knots[-1]))
    return np.asarray(np.where(_inside(words, time), manner.pitch * 2 ** (along / 12), 0.0))


def _inside(spans: list[tuple[float, float]], time: Floats) -> NDArray[np.bool_]:
    inside = np.zeros(len(time), bool)
    for start, end in spans:
        inside |= (time >= start) & (time < end)
    return inside


def _loudness(
    spoken: list[_Syllable], words: list[tuple[float, float]], time: Floats, rng: np.random.Generator
) -> Floats:
    """Loudness rises and falls with each syllable, and fades in and out with each word."""
    knots = [each.moment(part) for each in spoken for part in (0.0, 0.45, 1.0 - 1e-6)]
    levels = [level for _ in spoken for level in (0.5, rng.uniform(0.85, 1.15), 0.5)]
    ramps = [np.clip(np.minimum((time - start) / 0.04, (end - time) / 0.04), 0, 1) for start, end in words]
    return np.asarray(np.interp(time, knots, levels) * np.max(ramps, axis=0))


def _formants(spoken: list[_Syllable], time: Floats, brightness: float) -> Floats:
    """Formant centres in Hz by block, shape (blocks, 4): constant in a vowel's middle, gliding in between."""
    middles = time[_BLOCK // 2 :: _BLOCK]
    knots = [each.moment(part) for each in spoken for part in (0.3, 0.7)]
    vowels = np.repeat([_VOWELS[each.vowel][0] for each in spoken], 2, axis=0)
    return brightness * np.stack([np.interp(middles, knots, centre) for centre in vowels.T], axis=1)


def _mouth(spoken: list[_Syllable], time: Floats) -> Floats:
    """The mouth opens with each syllable, as wide as its vowel, and closes between words."""
    opening = np.zeros(len(time))
    for each in spoken:
        phase = np.clip((time - each.moment(-0.1)) / (each.moment(1.1) - each.moment(-0.1)), 0, 1)
        np.maximum(opening, _VOWELS[each.vowel][1] * np.sin(np.pi * phase), out=opening)
    return opening


def _glottal(f0: Floats, rng: np.random.Generator) -> Floats:
    """Rosenberg pulses, one for each period, limited to the harmonics below the Nyquist frequency."""
    phase = (np.arange(4096) + 0.5) / 4096
    rising, falling = 0.42, 0.16
    flow = np.where(
        phase < rising,
        0.5 - 0.5 * np.cos(np.pi * phase / rising),
        np.where(phase < rising + falling, np.cos(np.pi / 2 * (phase - rising) / falling), 0.0),
    )
    harmonics = np.fft.rfft(np.diff(flow, prepend=0.0))
    harmonics[int(0.45 * RATE / f0.max()) + 1 :] = 0
    harmonics[0] = 0
    pulse = np.fft.irfft(harmonics)
    jitter = np.repeat(rng.normal(0, 0.004, len(f0) // 441 + 1), 441)[: len(f0)]
    turns = np.cumsum(f0 * (1 + jitter)) / RATE
    return np.asarray(np.interp(turns % 1, phase, pulse / np.abs(pulse).max(), period=1) * (f0 > 0))


def _vocal_tract(source: Floats, formants: Floats) -> Floats:
    """Filter the source with four resonances in series, updated every 5 ms."""
    radius = np.exp(-np.pi * np.array(_BANDWIDTHS) / RATE)
    rotation = -2 * radius * np.cos(2 * np.pi * formants / RATE)
    sections = np.zeros((len(formants), 4, 6))
    sections[..., 0] = 1 + rotation + radius**2
    sections[..., 3], sections[..., 4], sections[..., 5] = 1, rotation, radius**2
    state = np.zeros((4, 2))
    spoken = np.empty_like(source)
    for block, section in enumerate(sections):
        samples = slice(block * _BLOCK, None if block == len(sections) - 1 else (block + 1) * _BLOCK)
        spoken[samples], state = sosfilt(section, source[samples], zi=state)
    return spoken


def _breath(words: list[tuple[float, float]], time: Floats, level: float, rng: np.random.Generator) -> Floats:
    """Room noise throughout, and a breath in about half of the pauses between words."""
    noise = rng.normal(0, 1, len(time))
    pauses = [(end, start) for (_, end), (start, _) in pairwise(words) if rng.random() < 0.5]
    swell = np.zeros(len(time))
    for start, end in pauses:
        swell += np.sin(np.pi * np.clip((time - start) / (end - start), 0, 1))
    hiss = sosfilt(butter(4, (3000, 9000), "bandpass", fs=RATE, output="sos"), noise)
    return np.asarray(0.0006 * noise + 0.25 * level * swell * hiss)
