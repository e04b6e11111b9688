"""Recordings are divided by shots, speech, faces and the mouth that fits the sound."""

from __future__ import annotations

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
from triptych.extractors.cutting.voice import RATE

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


def test_speech_of_one_moving_mouth_is_a_clip_that_need_not_name_its_face():
    found = propose(analysis(track()), CutSettings())
    assert reasons(found) == [CutReason.NO_SPEECH, None, CutReason.NO_SPEECH]
    assert found[1].start == pytest.approx(1.85, abs=0.05)
    assert found[1].face is None


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


SENTENCES = tuple((start, start + 1.5) for start in np.arange(1, 18, 1.7))


def test_a_shot_boundary_and_the_longest_length_divide_speech():
    edge = SENTENCES[3][1] + 0.1
    found = propose(
        analysis(track(), speech=SENTENCES, transitions=[(edge, edge)]), CutSettings(max_seconds=5)
    )
    clips = [one for one in found if one.keep]
    assert len(clips) > 3
    assert all(one.end - one.start <= 5 + 2 * 0.15 for one in clips)
    assert not any(one.start < edge < one.end for one in clips)
    assert any(one.end == pytest.approx(edge, abs=0.04) for one in clips)


def test_no_clip_ends_inside_a_word():
    pauses = [end + 0.1 for _, end in SENTENCES]
    words = [Span(at - 0.3, at + 0.3) for at in pauses[::2]]  # every other pause is inside of a word
    without, found = (
        [
            one
            for one in propose(analysis(track(), speech=SENTENCES), CutSettings(max_seconds=4), known)
            if one.keep
        ]
        for known in ((), words)
    )

    def inside(clips):
        return [one for one in clips if any(word.start < one.end < word.end - 1e-3 for word in words)]

    assert inside(without)
    assert inside(found) == []
    assert len(found) > 3


def test_every_reason_has_a_remedy():
    assert set(REMEDIES) == set(CutReason)


def test_shots_and_faces_come_back_from_the_rows_of_their_stage():
    faces = [track(), track(2.0, 9.0, x=0.7)]
    faces[1].mouth[0] = np.nan, 0.3, np.nan  # not seen shortly before
    shots = np.array([(3.0, 3.5), (7.04, 7.04)])
    recording = SimpleNamespace(size=(640, 360), notes=())
    rows = _features(shots, faces, recording, SECONDS)
    made = Analysis.of(None, rows)
    assert (made.frame_size, made.duration) == ((640, 360), SECONDS)
    np.testing.assert_allclose(made.transitions, shots, atol=1e-6)
    for read, wrote in zip(made.tracks, faces, strict=True):
        np.testing.assert_allclose(read.times, wrote.times, atol=1e-6)
        np.testing.assert_array_equal(read.boxes, wrote.boxes)
        np.testing.assert_array_equal(read.mouth, wrote.mouth)


def test_speech_over_a_cut_is_left_out_whole():
    found = propose(analysis(track(), speech=((2, 6), (8, 12))), CutSettings())
    assert sum(one.keep for one in found) == 2
    cut = propose(analysis(track(), speech=((2, 6), (8, 12)), transitions=[(4, 4)]), CutSettings())
    assert [one.reason for one in cut if one.start < 5 and one.end > 3] == [CutReason.SHOT_CHANGE]
    left = next(one for one in cut if one.reason == CutReason.SHOT_CHANGE)
    assert (left.start, left.end) == pytest.approx((2, 6), abs=0.1)
    assert sum(one.keep for one in cut) == 1


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
