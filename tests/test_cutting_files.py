"""Files of clips: copied from a key frame, or encoded with little loss; only what is missing is made."""

from __future__ import annotations

import shutil
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from triptych.pipeline.cutting import encoding
from triptych.pipeline.cutting.copying import copy_span
from triptych.pipeline.cutting.encoding import encode_span
from triptych.pipeline.cutting.files import ClipFile, made_files, make_file, make_files

RATE, SOUND_RATE, SECONDS = 25, 44100, 6
STEP = 3.4  # the frames become bright and the tone begins here [s]


def images(size):
    """Return smooth frames with a moving gradient, bright from `STEP` on."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 3, width), np.linspace(0, 2, height))
    for k in range(SECONDS * RATE):
        level = 150 if k >= round(STEP * RATE) else 40
        grey = level + 30 * np.sin(x + k / 10) * np.cos(y)
        yield np.repeat(grey[:, :, None], 3, 2).astype(np.uint8)


def tone():
    times = np.arange(SECONDS * SOUND_RATE) / SOUND_RATE
    return np.where(times >= STEP, 0.5 * np.sin(2 * np.pi * 440 * times), 0).astype(np.float32)


def record(path, codec="libx264", size=(96, 64), video=True, audio=True, sound_codec="aac", **options):
    """Write a recording with a key frame every second and two B-frames in a row."""
    with av.open(str(path), "w", **options) as container:
        if video:
            frames = container.add_stream(codec, RATE)
            frames.width, frames.height, frames.pix_fmt, frames.gop_size = *size, "yuv420p", RATE
            frames.thread_count = 1
            if codec == "libx264":
                frames.options = {"crf": "10", "bf": "2", "sc_threshold": "0", "preset": "veryfast"}
        if audio:
            sound = container.add_stream(sound_codec, SOUND_RATE, layout="mono")
        samples = tone()
        per = SOUND_RATE // RATE
        for k, image in enumerate(images(size)):
            if video:
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = k, Fraction(1, RATE)
                container.mux(frames.encode(frame))
            if audio:
                part = av.AudioFrame.from_ndarray(samples[None, k * per : (k + 1) * per], "fltp", "mono")
                part.sample_rate, part.pts, part.time_base = SOUND_RATE, k * per, Fraction(1, SOUND_RATE)
                container.mux(sound.encode(part))
        for stream in container.streams:
            container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    return {kind: record(folder / f"r.{kind}") for kind in ("mp4", "mkv", "ts")}


def decoded(path):
    """Return the times [s] and the frames of a file."""
    with av.open(str(path)) as container:
        found = [(float(frame.time), frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return np.array([time for time, _ in found]), np.stack([image for _, image in found])


def steps(path):
    """Return when a file's frames become bright, and when its tone begins [s]."""
    times, frames = decoded(path)
    flash = times[np.argmax(frames.mean((1, 2, 3)) > 100)]
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            loud = np.abs(frame.to_ndarray()[0]) > 0.1
            if loud.any():
                return flash, float(frame.time) + np.argmax(loud) / frame.sample_rate
    raise AssertionError("no tone")


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_a_copy_begins_at_a_key_frame_with_the_recordings_own_frames_in_step(recordings, kind, tmp_path):
    path = tmp_path / f"c.{kind}"
    begin = copy_span(recordings[kind], 2.3, 4.6, 1.8, path)
    assert begin == pytest.approx(2.0, abs=0.002)
    times, frames = decoded(path)
    _, whole = decoded(recordings[kind])
    assert 65 <= len(frames) <= 69  # up to 4.6 s, and at most the frames that the last one needs
    np.testing.assert_array_equal(frames, whole[50 : 50 + len(frames)])
    flash, tone_begins = steps(path)
    whole_flash, whole_tone = steps(recordings[kind])
    assert flash - times[0] == pytest.approx(STEP - begin, abs=0.005)
    assert tone_begins - flash == pytest.approx(whole_tone - whole_flash, abs=0.005)


def test_nothing_is_copied_without_a_key_frame_in_the_pause(recordings, tmp_path):
    assert copy_span(recordings["mp4"], 2.3, 4.6, 2.1, tmp_path / "c.mp4") is None


def test_a_rotated_recording_and_a_transport_stream_are_not_copied(recordings, tmp_path):
    assert copy_span(recordings["ts"], 2.3, 4.6, 0, tmp_path / "c.ts") is None
    content = recordings["mp4"].read_bytes()
    upright = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
    quarter = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], ">i4").tobytes()
    header = content.index(b"tkhd")  # of the frames: the first matrix is the whole file's
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(content[:header] + content[header:].replace(upright, quarter, 1))
    assert copy_span(turned, 2.3, 4.6, 0, tmp_path / "c.mp4") is None
    encode_span(turned, 2.0, 2.4, 14, tmp_path / "e.mp4")
    assert decoded(tmp_path / "e.mp4")[1].shape[1:3] == (96, 64)


def test_a_codec_that_the_format_does_not_hold_is_encoded(tmp_path):
    recording = record(tmp_path / "r.mp4", "mpeg4", sound_codec="pcm_alaw", format="mov")
    wanted = ClipFile("a", str(recording), "", 2.3, 4.6, 1.8, "clips/a", "copy", 14)
    made = make_file(tmp_path, wanted)
    assert (made.copied, made.path, made.start) == (False, "clips/a.mp4", 2.3)
    assert [path.name for path in (tmp_path / "clips").iterdir()] == ["a.mp4"]
    flash, tone_begins = steps(tmp_path / made.path)
    assert flash == pytest.approx(tone_begins, abs=0.045)


def test_an_encoded_clip_has_the_spans_length_and_frames_in_step(recordings, tmp_path):
    path = tmp_path / "e.mp4"
    encode_span(recordings["mp4"], 2.0, 4.4, 14, path)
    times, frames = decoded(path)
    assert len(frames) == 60
    assert np.diff(times) == pytest.approx(1 / RATE, abs=1e-4)
    expected = decoded(recordings["mp4"])[1][50:110]
    error = np.mean((frames.astype(float) - expected) ** 2)
    assert 10 * np.log10(255**2 / error) > 35
    flash, tone_begins = steps(path)
    assert flash == pytest.approx(STEP - 2, abs=0.021)
    assert tone_begins == pytest.approx(STEP - 2, abs=0.03)


def test_frames_of_odd_size_are_encoded(tmp_path):
    recording = record(tmp_path / "r.mkv", "ffv1", size=(95, 63), audio=False)
    encode_span(recording, 1.0, 1.4, 14, tmp_path / "e.mp4")
    assert decoded(tmp_path / "e.mp4")[1].shape == (10, 64, 96, 3)


@pytest.mark.parametrize("mode", ["copy", "encode"])
def test_sound_alone_is_cut(tmp_path, mode):
    recording = record(tmp_path / "r.mp4", video=False)
    made = make_file(tmp_path, ClipFile("a", str(recording), "", 3.0, 4.0, 2.9, "clips/a", mode, 14))
    assert made.copied == (mode == "copy")
    with av.open(str(tmp_path / made.path)) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(sound) / SOUND_RATE == pytest.approx(1.0, abs=0.08)
    assert np.argmax(np.abs(sound) > 0.1) / SOUND_RATE == pytest.approx(STEP - 3, abs=0.06)


def test_an_interrupted_file_is_removed(recordings, tmp_path, monkeypatch):
    def interrupted(container, *rest):
        raise KeyboardInterrupt

    monkeypatch.setattr(encoding, "_write_sound", interrupted)
    wanted = ClipFile("a", str(recordings["mp4"]), "", 2.0, 3.0, 2.0, "clips/a", "encode", 14)
    with pytest.raises(KeyboardInterrupt):
        make_file(tmp_path, wanted)
    assert list((tmp_path / "clips").iterdir()) == []


def test_files_that_are_there_are_not_made_again_and_old_ones_are_removed(recordings, tmp_path):
    recording = tmp_path / "r.mp4"
    shutil.copy(recordings["mp4"], recording)
    first = ClipFile("a", str(recording), "d", 2.0, 2.5, 2.0, "clips/a", "copy", 14)
    second = replace(first, clip_id="b", start=4.0, end=4.5, earliest=4.0, target="clips/b")
    made = []
    files, errors = make_files(tmp_path, [first, second], 0, made.append)
    assert (sorted(files), errors, made) == (["a", "b"], {}, ["a", "b"])
    foreign = tmp_path / "clips" / "notes.mp4"
    foreign.write_bytes(b"somebody's")
    with (tmp_path / "clips" / "made.jsonl").open("a") as record_of_files:
        record_of_files.write('{"torn')
    moved = tmp_path / "moved.mp4"
    recording.rename(moved)
    made.clear()
    make_files(
        tmp_path,
        [replace(first, recording=str(moved)), replace(second, recording=str(moved))],
        0,
        made.append,
    )
    assert made == []
    (tmp_path / files["a"].path).unlink()
    make_files(tmp_path, [replace(first, recording=str(moved))], 0, made.append)
    assert made == ["a"]
    assert {path.name for path in (tmp_path / "clips").iterdir()} == {"a.mp4", "notes.mp4", "made.jsonl"}
    assert list(made_files(tmp_path)) == ["a"]


def test_a_recording_that_is_gone_is_an_error_of_its_clip_alone(recordings, tmp_path):
    bad = ClipFile("a", str(tmp_path / "gone.mp4"), "", 2.0, 2.5, 2.0, "clips/a", "copy", 14)
    good = replace(bad, clip_id="b", recording=str(recordings["mp4"]), target="clips/b")
    files, errors = make_files(tmp_path, [bad, good], 0, lambda _: None)
    assert (list(files), list(errors)) == (["b"], ["a"])
