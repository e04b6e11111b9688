"""Recordings are divided by shots, speech, faces and the mouth that fits the sound."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from triptych.extractors.cutting.analysis import Analysis
from triptych.extractors.cutting.energy import ENERGY_RATE, speech_energy
from triptych.extractors.cutting.proposals import REMEDIES, CutReason, Span, propose
from triptych.extractors.cutting.scenes import _features
from triptych.extractors.cutting.settings import CutSettings, ScenesSettings
from triptych.extractors.cutting.shots import ShotFinder
from triptych.extractors.cutting.tracks import Track
from triptych.extractors.cutting.voice import RATE, model_file, speech_probabilities, speech_segments
from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings

SECONDS = 20.0


def envelope(times):
    return 1 + np.sin(times * 17) * np.sin(times * 5.3)


def track(start=0.0, end=SECONDS, size=0.4, moving=True, x=0.3):
    times = np.arange(start, end, 1 / 15)
    signal = envelope(times) if moving else 3 - envelope(times)  # open in pauses, closed in speech
    mouth = np.stack([signal, signal, np.full(len(times), 0.5)], 1).astype(np.float32)
    box = np.array([x - size / 2, 0.5 - size / 2, x + size / 2, 0.5 + size / 2], np.float32)
    return Track(times, np.repeat(box[None], len(times), 0), np.ones(len(times), np.float32), mouth)


def analysis(*tracks, speech=((2.0, 8.0),), transitions=()):
    probability = np.zeros(int(SECONDS * RATE), np.float32)
    for start, end in speech:
        probability[round(start * RATE) : round(end * RATE)] = 1
    times = (np.arange(int(SECONDS * ENERGY_RATE)) + 0.5) / ENERGY_RATE
    shots = np.array(transitions, float).reshape(-1, 2)
    return Analysis(SECONDS, (400, 400), probability, envelope(times).astype(np.float32), shots, tracks)


def reasons(found):
    return [None if one.keep else one.reason for one in found]


def test_speech_of_one_moving_mouth_is_a_clip_with_its_face():
    found = propose(analysis(track()), CutSettings())
    assert reasons(found) == [CutReason.NO_SPEECH, None, CutReason.NO_SPEECH]
    assert found[1].start == pytest.approx(1.85, abs=0.05)
    assert found[1].face is None  # no other face is seen


@pytest.mark.parametrize(
    ("tracks", "reason"),
    [
        ((), CutReason.NO_FACE),
        ((track(size=0.05),), CutReason.FACE_TOO_SMALL),
        ((track(end=5),), CutReason.FACE_LEAVES),
        ((track(moving=False),), CutReason.OFF_SCREEN_VOICE),
        ((track(), track(x=0.7)), CutReason.TWO_FACES),
    ],
)
def test_each_reason(tracks, reason):
    assert propose(analysis(*tracks), CutSettings())[1].reason == reason


def test_the_face_that_fits_the_sound_is_chosen():
    found = propose(analysis(track(moving=False), track(x=0.7)), CutSettings())[1]
    assert found.keep
    assert found.face == pytest.approx((0.7, 0.5), abs=0.01)


def test_speech_that_goes_on_over_a_cut_is_left_out_and_not_divided_there():
    made = analysis(track(), speech=((1, 5), (6, 9), (9.8, 14)), transitions=[(7, 7), (14.5, 15)])
    found = propose(made, CutSettings())
    spoken = [one for one in found if one.reason != CutReason.NO_SPEECH]
    assert reasons(spoken) == [None, CutReason.SHOT_CHANGE, None]
    assert (spoken[1].start, spoken[1].end) == pytest.approx((6, 9), abs=0.04)


def test_speech_that_is_too_long_is_divided_at_its_longest_pauses():
    speech = ((1, 3), (3.2, 5), (5.4, 7), (7.15, 9))
    found = propose(analysis(track(), speech=speech), CutSettings(max_seconds=4.5))
    clips = [one for one in found if one.keep]
    assert [(round(one.start, 1), round(one.end, 1)) for one in clips] == [(0.8, 5.1), (5.3, 9.1)]
    without = propose(analysis(track(), speech=((1, 19),)), CutSettings())
    assert CutReason.TOO_LONG in reasons(without)


def test_no_clip_begins_or_ends_inside_a_word():
    edges = np.arange(1, 19.1, 0.9)
    words = [Span(a, b - 0.02) for a, b in pairwise(edges)]
    found = propose(analysis(track(), speech=((1, 18.98),)), CutSettings(max_seconds=4), words)
    clips = [one for one in found if one.keep]
    assert len(clips) >= 5
    for edge in (edge for one in clips for edge in (one.start, one.end)):
        assert not any(word.start + 0.02 < edge < word.end - 0.02 for word in words)


def test_every_reason_has_a_remedy():
    assert set(REMEDIES) == set(CutReason)


def test_rows_of_the_stages_give_the_analysis_back():
    made = analysis(track(), track(x=0.7, start=1.0), transitions=[(3, 3.5)])
    recording = SimpleNamespace(size=(400, 400), notes=())
    scenes = _features(made.transitions, list(made.tracks), recording, SECONDS)
    energy = np.pad(made.energy, (0, 2 * len(made.speech) - len(made.energy))).reshape(-1, 2)
    voice = SimpleNamespace(values=np.column_stack([made.speech, energy]))
    read = Analysis.of(voice, scenes)
    np.testing.assert_array_equal(read.tracks[1].mouth, made.tracks[1].mouth)
    np.testing.assert_allclose(read.tracks[1].times, made.tracks[1].times, atol=1e-6)
    np.testing.assert_allclose(read.transitions, made.transitions, atol=1e-6)
    assert (read.frame_size, read.duration) == ((400, 400), SECONDS)
    assert Analysis.of(None, None).duration == 0


def test_probabilities_of_speech_are_those_of_silero(few_clips):
    from silero_vad.sequence_vad import SileroVADSequence

    sound = MediaSource(next(few_clips.rglob("*.mp4")), MediaSettings(sample_rate=16000)).waveform()
    own = speech_probabilities(sound)
    np.testing.assert_array_equal(own, SileroVADSequence(str(model_file())).audio_forward(sound))
    assert speech_segments(own)
    assert not speech_segments(speech_probabilities(np.zeros(32000, np.float32)))


def test_energy_is_of_the_bands_of_speech():
    times = np.arange(16000) / 16000
    energies = [
        speech_energy(np.sin(2 * np.pi * pitch * times).astype(np.float32))[10:].mean()
        for pitch in (50, 1000, 7000)
    ]
    assert energies[1] == pytest.approx(0.5**0.5, rel=0.05)
    assert max(energies[0], energies[2]) < 0.2


def test_cuts_and_dissolves_are_found_and_flashes_are_not():
    random = np.random.default_rng(0)
    one, two, three = random.integers(0, 200, (3, 27, 48, 3))
    shares = np.linspace(0, 1, 15)[:, None, None, None]
    frames = [*[one] * 50, *[two] * 60, *(two * (1 - shares) + three * shares), *[three] * 60]
    frames[20] = frames[21] = np.full_like(one, 250)
    finder = ShotFinder(ScenesSettings().cut_threshold)
    for index, frame in enumerate(frames):
        finder.add(index / 25, np.asarray(frame).astype(np.uint8))
    found = finder.transitions()
    assert found[0].tolist() == [2.0, 2.0]
    assert len(found) == 2
    assert found[1] == pytest.approx([110 / 25, 125 / 25], abs=0.15)
