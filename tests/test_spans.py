"""Clips that are spans of a file: equal to the file cut there, reached by a key frame where the format allows it."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from triptych.extractors.base import ExtractionError, Reason
from triptych.extractors.faces.tracker import FaceTracker
from triptych.extractors.media.length import about_seconds
from triptych.extractors.media.section import Section
from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings
from triptych.pipeline.run.extraction import prepare, run
from triptych.pipeline.storage.index import content_digest, part_digest
from triptych.pipeline.storage.store import FeatureStore

SECONDS, RATE, SOUND_RATE = 9, 25, 44100
# ending: (muxer, codec of frames, codec of sound)
FORMATS = {
    ".mp4": ("mp4", "libx264", "aac"),
    ".mkv": ("matroska", "libx264", "mp3"),
    ".webm": ("webm", "libvpx", "libopus"),
    ".ts": ("mpegts", "libx264", "aac"),
    ".avi": ("avi", "mpeg4", "mp3"),
    ".flac": ("flac", None, "flac"),
    ".wav": ("wav", None, "pcm_s16le"),
}
SPANS = [(0.0, 1.0), (0.4, 2.0), (3.333, 4.1), (5.2, None), (7.9, 8.6), (8.5, 30.0)]


def make(path: Path) -> Path:
    """Write noise that is different in every frame, and a tone that rises."""
    muxer, video_codec, audio_codec = FORMATS[path.suffix]
    rng = np.random.default_rng(0)
    rate = 48000 if audio_codec == "libopus" else SOUND_RATE
    time = np.arange(SECONDS * rate) / rate
    sound = (0.3 * np.sin(2 * np.pi * (100 + 50 * time) * time)).astype(np.float32)
    with av.open(str(path), "w", format=muxer) as container:
        audio: Any = container.add_stream(audio_codec, rate, layout="mono")
        if video_codec:
            video: Any = container.add_stream(video_codec, RATE)
            video.width, video.height, video.pix_fmt, video.gop_size = 64, 48, "yuv420p", 20
            video.codec_context.thread_count = 1
            for number in range(SECONDS * RATE):
                blocks = rng.integers(0, 255, (6, 8, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
                frame = av.VideoFrame.from_ndarray(blocks, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, RATE)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        block = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        block.sample_rate, block.time_base, block.pts = rate, Fraction(1, rate), 0
        resampler = av.AudioResampler(audio.format, audio.layout, rate, audio.frame_size or 4096)
        for part in [*resampler.resample(block), *resampler.resample(None)]:
            container.mux(audio.encode(part))
        container.mux(audio.encode(None))
    return path


@pytest.fixture(scope="module", params=FORMATS)
def recording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("recordings") / f"a{request.param}")


def read(path: Path, span: tuple[float, float | None] | None, rate: float = 30.0) -> tuple[list[Any], Any]:
    source = MediaSource(path, MediaSettings(frame_rate=rate), span=span)
    frames = [] if FORMATS[path.suffix][1] is None else list(source.frames())
    return frames, source.waveform()


@pytest.mark.parametrize("span", SPANS)
def test_a_span_equals_the_file_decoded_from_its_start_and_cut(
    recording: Path, span: tuple[float, float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, sound = read(recording, span)
    monkeypatch.setattr(Section, "seek", lambda *_: None)
    expected_frames, expected_sound = read(recording, span)
    assert [frame.slot for frame in frames] == [frame.slot for frame in expected_frames]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(frames, expected_frames, strict=True))
    # AAC's decoder fills bands with noise, whose random numbers go on from what was decoded before.
    assert_equal(recording, sound, expected_sound, 2e-3 if recording.suffix == ".mp4" else 0)


def assert_equal(recording: Path, sound: Any, expected: Any, tolerance: float) -> None:
    """Compare waveforms; stamps of Matroska are whole milliseconds, so that a seek may shift sound by one."""
    most = 23 if recording.suffix in (".mkv", ".webm") else 0
    assert abs(len(sound) - len(expected)) <= most
    length = min(len(sound), len(expected))
    sound, expected = sound[:length], expected[:length]
    middle = slice(most, len(sound) - most)
    shifted = [np.roll(sound, lag)[middle] - expected[middle] for lag in range(-most, most + 1)]
    least = min(np.abs(each[500:-500]).max() for each in shifted)
    assert least <= (0.05 if most else tolerance)


def test_a_span_on_the_grid_has_the_frames_of_the_whole_file(recording: Path) -> None:
    frames, sound = read(recording, (2.0, 5.0), RATE)
    all_frames, whole = read(recording, None, RATE)
    assert len(frames) == (3 * RATE if all_frames else 0)
    first = {frame.slot: frame for frame in all_frames}
    assert all(np.array_equal(frame.image, first[frame.slot + 2 * RATE].image) for frame in frames)
    assert len(sound) == 3 * 22050
    # Resampling begins at the span's start: its ends differ, the middle does not.
    assert_equal(recording, sound, whole[2 * 22050 : 5 * 22050], 1e-3)


def test_seeking_reads_little_of_a_long_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, decoded = make(tmp_path / "a.mp4"), []
    from triptych.extractors.media import source as module

    inner = module.decoded

    def counted(*arguments: Any) -> Any:
        for frame in inner(*arguments):
            decoded.append(frame)
            yield frame

    monkeypatch.setattr(module, "decoded", counted)
    assert len(list(MediaSource(path, MediaSettings(), span=(8.0, 8.5)).frames())) == 15
    assert len(decoded) < 3 * RATE


def test_a_span_beyond_the_end_is_an_error_of_the_clip(recording: Path) -> None:
    with pytest.raises(ExtractionError) as caught:
        MediaSource(recording, MediaSettings(), span=(20.0, 21.0)).waveform()
    assert caught.value.reason == Reason.OUTSIDE_FILE
    source = MediaSource(recording, MediaSettings(), span=(8.0, 20.0))
    source.waveform()
    assert "of 12.0 s of the span" in source.notes.sound[0]


def test_time_limits_follow_the_span(tmp_path: Path) -> None:
    path = make(tmp_path / "a.wav")
    assert about_seconds(path, 1e4) == pytest.approx(SECONDS, abs=0.1)
    assert about_seconds(path, 1e4, (1.0, 3.0)) == pytest.approx(2.05, abs=0.01)
    assert about_seconds(path, 1e4, (4.0, None)) == pytest.approx(SECONDS - 4 + 0.2, abs=0.1)


def test_stages_read_the_spans_and_an_edited_span_redoes_itself_alone(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4")
    table = tmp_path / "clips.csv"
    rows = ["id,path,text,start,end", "r$_$1,a.mp4,,0,2", "r$_$2,a.mp4,,2.5,5", "r$_$3,a.mp4,,7,"]
    table.write_text("\n".join(rows))
    folder = tmp_path / "features"
    done = run(prepare(table, folder, only=["audio"]), jobs=0)
    assert len(done.plan.stages["audio"].done) == 3
    store = FeatureStore(folder)
    rate = 22050 / 512
    assert [len(store.read("audio", f"r$_${k}")) for k in (1, 2, 3)] == [
        1 + int(seconds * rate) for seconds in (2, 2.5, 2)
    ]
    table.write_text("\n".join([*rows[:2], "r$_$2,a.mp4,,2.5,4.5", rows[3]]))
    again = prepare(table, folder, only=["audio"])
    assert [work.clip.id for work in again.plan.work] == ["r$_$2"]
    whole = content_digest(path)
    assert part_digest(whole, "") == whole
    assert len({part_digest(whole, clip.part) for clip in again.manifest.clips} | {whole}) == 4


def test_the_named_face_is_tracked(test_data: Path) -> None:
    paths = [test_data / "clips/Raw/liveportrait/0010.mp4", test_data / "clips/Raw/liveportrait/0006.mp4"]
    first, second = (list(MediaSource(path, MediaSettings(frame_rate=5)).frames())[:8] for path in paths)
    both = [
        a._replace(
            image=np.pad(np.hstack([a.image[:480, :480], b.image[:480, :480]]), ((0, 480), (0, 0), (0, 0)))
        )
        for a, b in zip(first, second, strict=True)
    ]
    from triptych.extractors.faces.stage import FacesSettings

    tracker = FaceTracker(FacesSettings())
    for centre, side in (((0.25, 0.2), 0), ((0.75, 0.2), 1)):
        values = tracker.extract(both, centre).values
        middle = (values[:, 0] + values[:, 2]) / 2
        assert ((middle > 480) == side).all()
    noted = tracker.extract(both, (0.5, 0.99))
    assert "no face is at 0.5 0.99" in noted.notes[-1]
    assert not noted.valid[:5].any()
    assert noted.valid[5:].all()


def test_a_manifest_with_spans_is_refused_with_one_message(tmp_path: Path) -> None:
    from triptych.pipeline.errors import InputError
    from triptych.pipeline.manifest.loading import load_manifest

    (tmp_path / "a.mp4").touch()
    rows = [
        {"id": "1", "path": "a.mp4", "start": 3, "end": 2},
        {"id": "2", "path": "a.mp4", "start": -1},
        {"id": "3", "path": "a.mp4", "face": "0.5"},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError) as caught:
        load_manifest(tmp_path / "m.jsonl")
    assert [problem.partition(": ")[2].partition(";")[0] for problem in caught.value.problems] == [
        "start 3 is not before end 2",
        "start = -1: write seconds from the file's start, such as 83.25, or leave it empty",
        "face = '0.5': write the centre of the speaker's face as two shares of width and height, such as 0.3 0.4, or "
        "leave it empty",
    ]
