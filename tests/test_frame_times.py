"""Every frame is shown once, in order and in step with the sound: generated clips, and files that went wrong."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from frame_cases import CASES, Case
from numbered_clips import out_of_step, shifted, shown, write_numbered

from triptych.extractors.base import Frame
from triptych.extractors.media.clock import BestEffort
from triptych.extractors.media.joins import find_joins
from triptych.extractors.media.sound import late_note, sound_runs
from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings

RATE = MediaSettings().sample_rate
PARAMETERS = [
    pytest.param(case, id=case.name, marks=() if case.quick else pytest.mark.slow) for case in CASES
]


@pytest.mark.parametrize("case", PARAMETERS)
def test_frames_and_sound_are_those_of_the_clip(tmp_path, case: Case):
    source = MediaSource(case.make(tmp_path), MediaSettings())
    frames = list(source.frames())
    numbers = [number for _, number in shown(frames)]
    assert numbers == sorted(numbers)
    assert [b.slot - a.slot for a, b in pairwise(frames)] == [1] * (len(frames) - 1)
    if case.numbers is not None:
        assert tuple(dict.fromkeys(numbers)) == case.numbers
    if case.seconds != 0:
        waveform = source.waveform()
        delays = out_of_step(frames, waveform, RATE)
        assert len(delays) >= 5
        assert max(map(abs, delays)) <= case.step
        if case.seconds is not None:
            assert abs(len(waveform) / RATE - case.seconds) < 0.1
    notes = "; ".join((*source.notes.frames, *source.notes.sound))
    assert case.note in notes
    assert bool(case.note) == bool(notes)


def test_at_least_forty_clips_are_compared():
    assert len({case.name for case in CASES}) == len(CASES) >= 40


def test_hole_of_the_sound_is_silent_whatever_the_header_says(tmp_path):
    case = next(case for case in CASES if "hole" in case.name)
    waveform = MediaSource(case.make(tmp_path), MediaSettings()).waveform()
    assert not waveform[round(2.1 * RATE) : round(2.9 * RATE)].any()
    assert np.abs(waveform[round(3.2 * RATE) : round(3.4 * RATE)]).max() > 0.2


def shifts_of(stamps: list[tuple[int, float]]) -> dict[int, list[tuple[int, float]]]:
    """Find the shifts of a file whose packets have (stream, stamp [s]), each 1 s long."""
    streams = [SimpleNamespace(index=0), SimpleNamespace(index=1)]
    packets = [
        SimpleNamespace(stream=streams[k], pts=at, dts=at, duration=1, time_base=Fraction(1))
        for k, at in stamps
    ]
    found = find_joins(SimpleNamespace(demux=lambda *_: iter(packets)), *streams, Fraction(0))
    return {
        k: [(first, float(shift)) for first, shift in shifts] for k, shifts in found.shifts.items() if shifts
    }


@pytest.mark.parametrize(
    ("stamps", "shifts"),
    [
        ([(0, 0), (1, 0), (0, 1), (1, 1)], {}),
        ([(0, 0), (1, 100), (0, 1), (1, 101)], {1: [(0, -100)]}),  # sound with a clock of its own
        ([(0, 5), (1, 5), (0, 0), (1, 6), (1, 0), (0, 1)], {0: [(1, 7)], 1: [(2, 7)]}),  # longer sound
        ([(0, 5), (0, 0), (0, 1)], {0: [(1, 6)]}),
        ([(1, 5), (1, 50), (1, 51)], {1: [(1, -44)]}),
        ([(0, 0), (1, 0), (0, 1), (1, 1), (1, 0), (0, 2), (1, 1)], {1: [(2, 0)]}),  # sound alone falls back
        ([(0, 9), (1, 9), (0, 3), (1, 3), (0, 70), (1, 70)], {0: [(1, 7), (2, -59)], 1: [(1, 7), (2, -59)]}),
    ],
)
def test_shifts_of_known_stamps(stamps, shifts):
    assert shifts_of(stamps) == shifts


@pytest.mark.parametrize("pauses", ["video", "audio"])
def test_a_long_pause_of_one_stream_is_no_jump(tmp_path, pauses):
    """The other stream goes on, so that the clock has not changed."""
    early, late = shifted(1), shifted(12, (pauses,))

    def alter(packet):
        return early(late(packet) if packet.pts * packet.time_base >= 1 else packet)

    count, sound = (60, (0.0, 14.0)) if pauses == "video" else (420, (0.0, 2.0))
    path = write_numbered(
        tmp_path / "a.ts",
        count=count,
        sound=sound,
        video_options={"bf": "0"},
        options={"max_interleave_delta": "0"},
        alter=alter,
    )
    source = MediaSource(path, MediaSettings())
    frames, waveform = list(source.frames()), source.waveform()
    assert abs(frames[-1].time - 14) < 0.15
    assert abs(len(waveform) / RATE - 14) < 0.15
    still = ("no frame for 12.0 s from 1.0 s on: the last one stays",) if pauses == "video" else ()
    assert source.notes.frames == still
    assert source.notes.sound == ()


def test_sound_whose_stamps_go_back_continues_and_gets_a_note():
    block = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
    block.sample_rate = 8000
    stamped = [(Fraction(0), block), (Fraction(1), block), (Fraction(1, 2), block), (Fraction(3, 2), block)]
    runs = list(dict.fromkeys(run for run, _ in sound_runs(stamped)))
    assert [(run.start, run.end) for run in runs] == [(0, 4)]
    assert late_note(runs) == ("the time stamps of the sound go back: it is up to 1.5 s late",)
    assert late_note(runs[:0]) == ()


@pytest.mark.parametrize(
    ("stamps", "chosen"),
    [
        ([(0, 0), (1, 1), (2, 2)], [0, 1, 2]),
        ([(0, None), (2, None), (1, None)], [0, 2, 1]),
        ([(None, 0), (None, 1)], [0, 1]),
        ([(2, 0), (3, 1), (1, 2), (5, 3)], [2, 3, 2, 3]),  # the first is taken back by `stamped`
        ([(2, 2), (1, 1), (3, 3)], [2, 1, 3]),  # both are faulty
        ([(2, 0), (1, 1), (4, None)], [2, 1, None]),
        ([(None, None), (1, 1)], [None, 1]),
    ],
)
def test_best_effort_prefers_decoding_stamps_once_the_others_went_back(stamps, chosen):
    best = BestEffort()
    assert [best(pts, dts) for pts, dts in stamps] == chosen


# Files that went wrong


def read(test_data: Path, name: str) -> tuple[MediaSource, list[Frame], np.ndarray]:
    source = MediaSource(test_data / "inputs/media" / name, MediaSettings())
    return source, list(source.frames()), source.waveform()


def distinct(frames: list[Frame]) -> int:
    return len({id(frame.image) for frame in frames})


def level(waveform: np.ndarray, begin: float, end: float) -> float:
    return float(np.abs(waveform[round(begin * RATE) : round(end * RATE)]).max())


def test_h264_with_b_frames_in_avi(test_data):
    source, frames, _ = read(test_data, "h264_bf.avi")
    assert distinct(frames) == 299
    assert source.notes.frames == ()


@pytest.mark.parametrize("name", ["ts_disc_back.ts", "ts_disc_fwd35s.ts"])
def test_joined_recordings_are_one(test_data, name):
    source, frames, waveform = read(test_data, name)
    assert 298 <= distinct(frames) <= len(frames) <= 299
    assert abs(len(waveform) / RATE - 10) < 0.05
    note = ("the time stamps jump once, at 5.0 s: what follows continues there",)
    assert source.notes.frames == source.notes.sound == note


def test_joined_recordings_keep_frames_and_sound_in_step(test_data):
    """Both files hold the same recording; its second half is where it is in a file without a join."""
    _, frames, waveform = read(test_data, "ts_disc_back.ts")
    _, others, whole = read(test_data, "hole_shortdur.mkv")
    for late in (160, 220, 280):
        near = [
            np.abs(frames[late].image.astype(int) - other.image).mean()
            for other in others[late - 3 : late + 4]
        ]
        at = others[late - 3 + int(np.argmin(near))].time
        assert abs(at - frames[late].time) <= 2 / 30
    piece, search = waveform[8 * RATE : 9 * RATE], whole[round(7.9 * RATE) : round(9.1 * RATE)]
    delay = int(np.correlate(search, piece, "valid").argmax()) / RATE - 0.1
    assert abs(delay) < 0.06


def test_sound_is_of_the_programme_of_the_frames(test_data):
    _, frames, waveform = read(test_data, "two_programs.ts")
    assert distinct(frames) == 299
    spectrum = np.abs(np.fft.rfft(waveform[2 * RATE : 4 * RATE]))
    assert np.sort(spectrum)[-20:].sum() < 0.5 * spectrum.sum()  # speech, not the other programme's sine


def test_short_header_does_not_move_late_sound(test_data):
    _, _, waveform = read(test_data, "late_shortdur.flv")
    assert level(waveform, 0, 1.95) == 0
    assert level(waveform, 2.05, 2.5) > 0.1
    assert abs(len(waveform) / RATE - 12) < 0.05


def test_short_header_does_not_cut_sound_after_a_hole(test_data):
    _, _, waveform = read(test_data, "hole_shortdur.mkv")
    assert level(waveform, 4.15, 5.0) < 0.01
    assert level(waveform, 5.1, 5.5) > 0.1
    assert abs(len(waveform) / RATE - 10) < 0.05


def test_sound_that_overlaps_a_join_is_in_step_after_it(test_data):
    source, frames, waveform = read(test_data, "overlap.ts")
    assert abs(len(waveform) / RATE - frames[-1].time) < 0.1
    assert "jump once, at 2.9 s" in source.notes.sound[0]
