"""Frames and sound on one clock: against FFmpeg's own filters, and against clips built to a known clock."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import wave
import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import soxr

from triptych.extractors.base import ExtractionError, Frame, Reason
from triptych.extractors.media.frames import on_grid, upright
from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings

SETTINGS = MediaSettings()
RATE = SETTINGS.sample_rate


def write_clip(
    path: Path,
    *,
    video: str | None = "mpeg4",
    audio: str | None = "pcm_s16le",
    sound: np.ndarray | None = None,
    images: dict[int, np.ndarray] | None = None,
    rate: int = 48000,
    sample_format: str = "s16",
    layout: str = "mono",
    fps: int = 30,
    matrix: list[int] | None = None,
    aspect: Fraction | None = None,
    stamps: dict[int, int] | None = None,
    format: str | None = None,
) -> Path:
    """Mux images (by frame number) and sound (channels, n), block b of 1024 samples stamped `stamps[b]`."""
    images = images if images is not None else {k: grey(60) for k in range(fps)}
    with av.open(str(path), "w", format=format) as container:
        streams: list[Any] = []
        if video:
            frames = container.add_stream(video, rate=fps)
            frames.height, frames.width = next(iter(images.values())).shape[:2]
            frames.pix_fmt = "yuv420p"
            frames.time_base = frames.codec_context.time_base = Fraction(1, fps)
            if matrix:
                frames.set_display_matrix(matrix)
            if aspect:
                frames.codec_context.sample_aspect_ratio = aspect
            streams.append(frames)
        if audio:
            voices = container.add_stream(audio, rate=rate, layout=layout)
            streams.append(voices)
        if video:
            for k, image in images.items():
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = k, Fraction(1, fps)
                container.mux(frames.encode(frame))
        if audio:
            for block in range(math.ceil(sound.shape[1] / 1024)):
                piece = sound[:, block * 1024 : (block + 1) * 1024]
                if "p" not in sample_format:
                    piece = piece.T.reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), sample_format, layout)
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = (stamps or {}).get(block, block * 1024)
                container.mux(voices.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


def grey(level: int, shape: tuple[int, int] = (64, 64)) -> np.ndarray:
    return np.full((*shape, 3), level, np.uint8)


def tone(seconds: float, rate: int, hz: float = 440.0) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.int16)[None]


def clips(test_data: Path) -> list[Path]:
    found = [p for p in (test_data / "clips").rglob("*") if p.is_file() and p.suffix != ".csv"]
    assert found
    return sorted(found)


def drained(sink: Any) -> Iterator[Any]:
    while True:
        try:
            yield sink.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def filtered_by_ffmpeg(path: Path) -> list[tuple[int, np.ndarray]]:
    """Return slots and frames of FFmpeg's own `fps=30`, on stamps counted from the container's start."""
    with av.open(f"file:{path}") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        offset = av_round(Fraction(container.start_time, 1_000_000) / stream.time_base)
        graph = av.filter.Graph()
        source = graph.add_buffer(template=stream)
        fps, to_rgb, sink = graph.add("fps", "30"), graph.add("format", "rgb24"), graph.add("buffersink")
        source.link_to(fps)
        fps.link_to(to_rgb)
        to_rgb.link_to(sink)
        graph.configure()
        slots = []
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            for frame in frames:
                frame.pts -= offset
                source.push(frame)
                slots += [(f.pts, f.to_ndarray()) for f in drained(sink)]
        source.push(None)
        return slots + [(f.pts, f.to_ndarray()) for f in drained(sink)]


def av_round(number: Fraction) -> int:
    return math.floor(number + Fraction(1, 2))


# The frame grid


def assert_grid_is_ffmpegs(path: Path) -> None:
    ours, theirs = list(MediaSource(path, SETTINGS).frames()), filtered_by_ffmpeg(path)
    assert [f.slot for f in ours] == [slot for slot, _ in theirs]
    assert [f.time for f in ours] == [slot / 30 for slot, _ in theirs]
    if "rot" in path.name or ours[0].image.shape != theirs[0][1].shape:
        return  # turned or stretched after the filter; other tests compare those
    for frame, (_, image) in list(zip(ours, theirs, strict=True))[::10]:
        assert np.abs(frame.image.astype(int) - image).mean() < 1.0, frame.slot


@pytest.mark.parametrize(
    "name",
    [
        "hard/vfr.mp4",
        "hard/fps12_5.mp4",
        "hard/fps23976.mp4",
        "hard/fps25.mp4",
        "hard/fps2997.mp4",
        "hard/fps60.mp4",
        "hard/face_noface.mov",
        "hard/original.wmv",
        "hard/flv.flv",
        "hard/vp9_opus.webm",
        "hard/truncated_faststart.mp4",
        "hard/very_short_0.1s.mp4",
        "Raw/video_retalking/0001.mp4",
    ],
)
def test_grid_is_what_ffmpegs_fps_filter_chooses(test_data, name):
    assert_grid_is_ffmpegs(test_data / "clips" / name)


@pytest.mark.slow
def test_grid_is_ffmpegs_on_every_clip(test_data):
    decodable = [
        p for p in clips(test_data) if p.name not in ("garbage.mp4", "text_named.mp4", "zero_bytes.mp4")
    ]
    for path in decodable:
        assert_grid_is_ffmpegs(path)
    assert len(decodable) > 60


def test_grid_of_known_spans():
    spans = [(2, 3, "a"), (4, 5, "b"), (4, 5, "c"), (5, 7, "d")]
    assert list(on_grid(spans)) == [(2, "a"), (3, "a"), (4, "c"), (5, "d"), (6, "d")]
    assert list(on_grid([])) == []
    assert list(on_grid([(0, 0, "shorter than half a slot")])) == []


def test_a_repeated_frame_is_one_read_only_array(test_data):
    frames = list(MediaSource(test_data / "clips/hard/fps12_5.mp4", SETTINGS).frames())
    assert len({id(f.image) for f in frames}) == 54
    assert len(frames) == 130
    with pytest.raises(ValueError, match="read-only"):
        frames[0].image[0, 0, 0] = 1


def test_other_frame_rate(test_data):
    frames = list(MediaSource(test_data / "clips/hard/fps60.mp4", MediaSettings(frame_rate=12.5)).frames())
    assert [f.time for f in frames] == [k / 12.5 for k in range(len(frames))]
    assert len(frames) == round(257 / 60 * 12.5)


# Geometry


def images(path: Path) -> list[np.ndarray]:
    return [f.image for f in MediaSource(path, SETTINGS).frames()]


def test_rotation_metadata_is_applied(test_data):
    hard = test_data / "clips/hard"
    for turned, plain, turn in (
        ("rot90_meta.mp4", "portrait_720x1280.mp4", lambda image: image),
        ("rot180_meta.mp4", "upside_down_no_meta.mp4", lambda image: image[::-1, ::-1]),
    ):
        ours, theirs = images(hard / turned), images(hard / plain)
        assert len(ours) == len(theirs)
        assert ours[0].shape == theirs[0].shape
        differences = [
            np.abs(a - turn(b).astype(int)).mean() for a, b in zip(ours[::40], theirs[::40], strict=True)
        ]
        assert max(differences) < 4


ONE = 1 << 16


@pytest.mark.parametrize(
    ("matrix", "bright_corner"),
    [
        ([ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30], (0, 0)),
        ([0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30], (0, -1)),  # a quarter turn clockwise
        ([0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30], (-1, 0)),
        ([-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30], (-1, -1)),
        ([-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30], (0, -1)),  # mirrored
        ([ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30], (-1, 0)),
        ([0, ONE, 0, ONE, 0, 0, 0, 0, 1 << 30], (0, 0)),  # transposed
    ],
)
def test_display_matrices_turn_and_mirror(tmp_path, matrix, bright_corner):
    image = grey(30, (64, 96))
    image[:20, :20] = 220
    turned = upright(image, np.array(matrix, np.int32))
    assert turned.shape == ((96, 64, 3) if matrix[0] == 0 else (64, 96, 3))
    assert turned[bright_corner][0] == 220
    assert (turned > 100).sum() == (image > 100).sum()
    path = write_clip(tmp_path / "a.mp4", images=dict.fromkeys(range(3), image), audio=None, matrix=matrix)
    assert np.abs(images(path)[0].astype(int) - turned).mean() < 3


def test_pixel_aspect_is_squared(test_data, tmp_path):
    assert images(test_data / "clips/hard/anamorphic_sar.mp4")[0].shape == (480, 512, 3)
    assert images(test_data / "clips/hard/odd_size_yuv444.mp4")[0].shape == (333, 333, 3)
    tall = write_clip(tmp_path / "a.mkv", audio=None, aspect=Fraction(1, 2))
    assert images(tall)[0].shape == (128, 64, 3)


def test_pixel_formats_give_the_same_face(test_data):
    hard = test_data / "clips/hard"
    ten_bit, plain = images(hard / "hevc_10bit.mp4"), images(hard / "vp9_opus.webm")
    assert np.abs(ten_bit[50] - plain[50].astype(int)).mean() < 8
    assert images(hard / "prores_pcm.mov")[0].dtype == np.uint8
    grey_image = images(hard / "grayscale.mp4")[0]
    assert np.abs(grey_image[..., 0].astype(int) - grey_image[..., 1]).max() <= 2


def test_size_change_within_the_stream_is_resized_to_the_first(tmp_path):
    parts = b""
    for number, (shape, level) in enumerate((((64, 96), 50), ((48, 48), 200))):
        part = write_clip(
            tmp_path / f"{number}.m2v",
            video="mpeg2video",
            audio=None,
            images={k: grey(level, shape) for k in range(30)},
            format="mpeg2video",
        )
        parts += part.read_bytes()
    (tmp_path / "both.m2v").write_bytes(parts)
    found = images(tmp_path / "both.m2v")
    assert {image.shape for image in found} == {(64, 96, 3)}
    assert found[0].mean() < 80
    assert found[-1].mean() > 170


# The clock


@pytest.mark.parametrize(
    ("name", "video", "audio", "rate", "sample_format", "tolerance"),
    [
        ("a.mp4", "libx264", "aac", 44100, "fltp", 2),
        ("a.mkv", "libx264", "aac", 44100, "fltp", 2),
        ("a.ts", "libx264", "aac", 44100, "fltp", 2),
        ("a.webm", "libvpx-vp9", "libopus", 48000, "flt", 2),
        ("a.mov", "mpeg4", "pcm_s16le", 48000, "s16", 1),
        ("a.flv", "libx264", "aac", 44100, "fltp", RATE // 1000 + 1),  # its stamps are whole milliseconds
    ],
)
def test_click_and_flash_of_one_moment_stay_together(
    tmp_path, name, video, audio, rate, sample_format, tolerance
):
    sound = np.zeros((1, 2 * rate), np.float32)
    sound[0, rate] = 0.9
    if sample_format == "s16":
        sound = (sound * 32767).astype(np.int16)
    flash = {k: grey(235 if k == 30 else 16) for k in range(60)}
    path = write_clip(
        tmp_path / name,
        video=video,
        audio=audio,
        sound=sound,
        images=flash,
        rate=rate,
        sample_format=sample_format,
    )
    source = MediaSource(path, SETTINGS)
    lit = [f.time for f in source.frames() if f.image.mean() > 120]
    click = int(np.abs(source.waveform()).argmax()) / RATE
    with av.open(str(path)) as container:  # the flash's exact moment; the grid rounds it to a slot
        start = container.start_time / 1e6
        exact = next(
            f.time - start for f in container.decode(video=0) if f.to_ndarray(format="gray").mean() > 100
        )
    assert len(lit) == 1
    assert abs(lit[0] - exact) <= 0.5 / 30 + 1e-9
    assert abs(click - exact) * RATE <= tolerance
    if name != "a.ts" and name != "a.flv":  # those two let the frames start late
        assert lit[0] == 1.0


def test_late_sound_is_padded(test_data):
    waveform = MediaSource(test_data / "clips/hard/face_noface.mov", SETTINGS).waveform()
    begin = round(2.430023 * RATE)
    assert not waveform[: begin - 100].any()
    assert np.abs(waveform[begin : begin + RATE // 4]).max() > 1e-3
    assert abs(len(waveform) / RATE - (2.430023 + 174882 / 44100)) < 1e-3


def test_late_frame_has_no_row_before_it(test_data):
    frames = list(MediaSource(test_data / "clips/Raw/video_retalking/0001.mp4", SETTINGS).frames())
    assert frames[0].slot == 1
    assert frames[0].time == 1 / 30


def test_hole_in_the_sound_is_silence(tmp_path):
    rate, hole = 48000, 24000
    sound = tone(2, rate)
    stamps = {b: b * 1024 + (hole if b >= 40 else 0) for b in range(94)}
    path = write_clip(tmp_path / "a.mkv", sound=sound, rate=rate, stamps=stamps)
    waveform = MediaSource(path, SETTINGS).waveform()
    edges = [40 * 1024 / rate, (40 * 1024 + hole) / rate]
    silent = waveform[int(edges[0] * RATE) + 40 : int(edges[1] * RATE) - 40]
    assert len(silent) > 0.45 * RATE
    assert not silent.any()
    after = waveform[int(edges[1] * RATE) + 200 : int(edges[1] * RATE) + 4000]
    assert np.abs(after).max() > 0.2
    assert abs(len(waveform) / RATE - 2.5) < 2e-3


def test_wandering_stamps_cut_nothing_in(tmp_path):
    rng = np.random.default_rng(1)
    sound = tone(1, 48000)
    stamps = {b: b * 1024 + int(rng.integers(0, 480)) for b in range(48)}
    even = write_clip(tmp_path / "even.mkv", sound=sound)
    wandering = write_clip(tmp_path / "wandering.mkv", sound=sound, stamps={**stamps, 0: 0})
    a, b = (MediaSource(p, SETTINGS).waveform() for p in (even, wandering))
    np.testing.assert_array_equal(a, b)


def test_stamp_past_the_containers_end_is_not_believed(tmp_path):
    path = write_clip(tmp_path / "a.mkv", video=None, sound=tone(12, 48000))
    expected = MediaSource(path, SETTINGS).waveform()
    clusters = path.read_bytes().split(b"\x1f\x43\xb6\x75")
    stamp = clusters[2].index(b"\xe7\x82") + 2  # the second cluster's time stamp, 2 bytes of milliseconds
    clusters[2] = clusters[2][:stamp] + b"\xff\xff" + clusters[2][stamp + 2 :]
    path.write_bytes(b"\x1f\x43\xb6\x75".join(clusters))
    np.testing.assert_array_equal(MediaSource(path, SETTINGS).waveform(), expected)


# The waveform


@pytest.mark.parametrize(
    ("codec", "sample_format", "dtype", "step"),
    [
        ("pcm_s16le", "s16", np.int16, 2**-15),
        ("pcm_u8", "u8", np.uint8, 2**-7),
        ("pcm_s32le", "s32", np.int32, 2**-24),
        ("pcm_f32le", "flt", np.float32, 2**-24),
        ("pcm_f64le", "dbl", np.float64, 2**-24),
    ],
)
def test_sample_formats_mean_the_same_sound(tmp_path, codec, sample_format, dtype, step):
    sine = 0.5 * np.sin(2 * np.pi * 300 * np.arange(RATE) / RATE)
    left = sine
    if dtype is np.uint8:
        stereo = np.stack([np.round(left * 128 + 128), np.full(RATE, 128)]).astype(dtype)
    elif np.issubdtype(dtype, np.integer):
        stereo = np.stack([np.round(left * (-float(np.iinfo(dtype).min))), np.zeros(RATE)]).astype(dtype)
    else:
        stereo = np.stack([left, np.zeros(RATE)]).astype(dtype)
    path = write_clip(
        tmp_path / "a.wav",
        video=None,
        audio=codec,
        sound=stereo,
        rate=RATE,
        sample_format=sample_format,
        layout="stereo",
    )
    waveform = MediaSource(path, SETTINGS).waveform()
    assert waveform.dtype == np.float32
    assert waveform.shape == (RATE,)
    np.testing.assert_allclose(waveform, sine / 2, atol=step)


def test_channels_are_averaged_before_resampling(test_data):
    path = test_data / "clips/hard/audio_51_48k.mp4"
    with av.open(str(path)) as container:
        channels = np.concatenate([f.to_ndarray() for f in container.decode(audio=0)], axis=1)
    assert channels.shape[0] == 6
    expected = soxr.resample(channels.mean(axis=0), 48000, RATE, quality="HQ")
    np.testing.assert_allclose(MediaSource(path, SETTINGS).waveform()[: len(expected)], expected, atol=1e-6)


def test_equals_librosa_on_the_same_pcm(test_data):
    import librosa

    for path in clips(test_data)[:8]:
        with av.open(str(path)) as container:
            rate = container.streams.audio[0].rate
            pcm = np.concatenate([f.to_ndarray() for f in container.decode(audio=0)], axis=1)
        expected = librosa.resample(librosa.to_mono(pcm), orig_sr=rate, target_sr=RATE, res_type="soxr_hq")
        np.testing.assert_array_equal(MediaSource(path, SETTINGS).waveform(), expected)


def test_speech_in_one_channel_is_halved(test_data):
    hard = test_data / "clips/hard"
    one = MediaSource(hard / "audio_one_channel_of_stereo.mp4", SETTINGS).waveform()
    both = MediaSource(hard / "black_start.mp4", SETTINGS).waveform()
    assert abs(one.std() / both.std() - 0.5) < 0.02


# Failures


def reason_of(call: Any) -> tuple[Reason, str]:
    with pytest.raises(ExtractionError) as caught:
        list(call())
    return caught.value.reason, caught.value.detail


@pytest.mark.parametrize("name", ["zero_bytes.mp4", "garbage.mp4", "text_named.mp4"])
def test_what_is_no_media_is_undecodable(test_data, name):
    source = MediaSource(test_data / "clips/hard" / name, SETTINGS)
    for call in (source.frames, source.waveform):
        reason, detail = reason_of(call)
        assert reason is Reason.UNDECODABLE
        assert name in detail
        assert ("the file is empty (0 bytes)" if name == "zero_bytes.mp4" else "Invalid data") in detail


def test_missing_file(tmp_path):
    for path in (tmp_path / "none.mp4", tmp_path):
        source = MediaSource(path, SETTINGS)
        assert reason_of(source.frames)[0] is Reason.FILE_MISSING
        assert reason_of(source.waveform)[0] is Reason.FILE_MISSING


def test_missing_streams(test_data, tmp_path):
    silent = MediaSource(test_data / "clips/hard/no_audio_stream.mp4", SETTINGS)
    assert reason_of(silent.waveform)[0] is Reason.NO_AUDIO_STREAM
    assert len(list(silent.frames())) == 150
    blind = MediaSource(write_clip(tmp_path / "a.wav", video=None, sound=tone(1, 48000)), SETTINGS)
    assert reason_of(blind.frames)[0] is Reason.NO_VIDEO_STREAM
    assert len(blind.waveform()) == RATE


def test_cover_art_is_no_video(tmp_path):
    sound = (tone(1, 44100) / 32768).astype(np.float32)
    mp3 = write_clip(
        tmp_path / "plain.mp3", video=None, audio="libmp3lame", sound=sound, rate=44100, sample_format="fltp"
    ).read_bytes()
    jpeg = cv2.imencode(".jpg", grey(90))[1].tobytes()
    body = b"\0image/jpeg\0\3\0" + jpeg
    frame = b"APIC" + len(body).to_bytes(4, "big") + b"\0\0" + body
    size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    path = tmp_path / "cover.mp3"
    path.write_bytes(b"ID3\3\0\0" + size + frame + mp3)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1  # the cover must not be taken for the video
    source = MediaSource(path, SETTINGS)
    assert reason_of(source.frames)[0] is Reason.NO_VIDEO_STREAM
    assert np.abs(source.waveform()).max() > 0.2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_samples(tmp_path, bad):
    sound = np.zeros((1, 48000), np.float32)
    sound[0, 777] = bad
    path = write_clip(tmp_path / "a.wav", video=None, audio="pcm_f32le", sound=sound, sample_format="flt")
    reason, detail = reason_of(MediaSource(path, SETTINGS).waveform)
    assert reason is Reason.NON_FINITE_AUDIO
    assert "a.wav" in detail


def test_sound_of_no_samples(tmp_path):
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as empty:
        empty.setparams((1, 2, 16000, 0, "NONE", ""))
    assert reason_of(MediaSource(path, SETTINGS).waveform)[0] is Reason.EMPTY_AUDIO


def test_truncated_file_gives_what_decodes_and_is_quiet(test_data, capfd):
    source = MediaSource(test_data / "clips/hard/truncated_faststart.mp4", SETTINGS)
    assert len({id(f.image) for f in source.frames()}) == 71
    assert 2.7 < len(source.waveform()) / RATE < 2.9
    assert capfd.readouterr() == ("", "")


def spoiled(path: Path, kind: str, target: Path, *, share: float) -> Path:
    """Copy a file with the packets of one stream overwritten: `share` of them, spread over the clip."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(**{kind: 0}) if p.size and p.pos is not None]
        for number, packet in enumerate(packets):
            if int(number * share) != int((number + 1) * share):
                data[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    target.write_bytes(data)
    return target


def test_one_broken_stream_leaves_the_other_alone(test_data, tmp_path, capfd):
    path = test_data / "clips/Raw/pyfeat/0004.mp4"
    whole = MediaSource(path, SETTINGS)
    no_frame = MediaSource(spoiled(path, "video", tmp_path / "v.mp4", share=1.0), SETTINGS)
    no_sound = MediaSource(spoiled(path, "audio", tmp_path / "a.mp4", share=1.0), SETTINGS)
    assert reason_of(no_frame.frames)[0] is Reason.UNDECODABLE
    np.testing.assert_array_equal(no_frame.waveform(), whole.waveform())
    assert reason_of(no_sound.waveform)[0] is Reason.UNDECODABLE
    assert len(list(no_sound.frames())) == len(list(whole.frames()))
    assert capfd.readouterr() == ("", "")


def test_broken_packets_are_passed_over(test_data, tmp_path):
    path = test_data / "clips/Raw/pyfeat/0004.mp4"
    whole = MediaSource(path, SETTINGS)
    few = MediaSource(spoiled(path, "audio", tmp_path / "a.mp4", share=0.1), SETTINGS)
    assert abs(len(few.waveform()) - len(whole.waveform())) < RATE // 5
    frames = MediaSource(spoiled(path, "video", tmp_path / "v.mp4", share=0.1), SETTINGS)
    assert len(list(frames.frames())) > 0.9 * len(list(whole.frames()))


@pytest.mark.parametrize(
    "name", ["-dash.mp4", "名字 带空格 (1).mp4", "12:30 a#b%20?.mp4", os.fsdecode(b"\xff\xfe.mp4")]
)
def test_names(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = write_clip(tmp_path / "plain.mov", sound=tone(1, 48000))
    made.rename(name)
    source = MediaSource(Path(name), SETTINGS)
    assert len(list(source.frames())) == 30
    assert len(source.waveform()) == RATE


def test_title_that_is_not_utf8(tmp_path):
    title = "采访".encode("gb18030")
    info = b"INFOINAM" + len(title).to_bytes(4, "little") + title
    path = write_clip(tmp_path / "a.wav", video=None, sound=tone(1, 48000))
    data = path.read_bytes() + b"LIST" + len(info).to_bytes(4, "little") + info
    path.write_bytes(data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:])
    with av.open(str(path), metadata_errors="replace") as container:
        assert "title" in container.metadata  # it is there to stumble over
    assert len(MediaSource(path, SETTINGS).waveform()) == RATE


# Threads, memory and file descriptors


def test_decodes_in_its_own_thread(test_data):
    def threads() -> int:
        return sum(1 for _ in Path("/proc/self/task").iterdir())

    before = threads()
    source = MediaSource(
        test_data / "clips/hard/portrait_720x1280.mp4", SETTINGS
    )  # nothing for cv2 to resize
    during = [threads() for _ in source.frames()]
    source.waveform()
    assert max(during) == before


def open_files() -> int:
    gc.collect()
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_file_is_closed_when_the_iterator_is_abandoned(test_data):
    before = open_files()
    for name in ("fps25.mp4", "garbage.mp4", "truncated_faststart.mp4", "no_audio_stream.mp4"):
        source = MediaSource(test_data / "clips/hard" / name, SETTINGS)
        for call in (lambda s=source: next(s.frames()), lambda s=source: list(s.frames()), source.waveform):
            with contextlib.suppress(ExtractionError):
                call()
    assert open_files() == before


def test_buffer_keeps_a_complete_pass_that_fits(test_data):
    path = test_data / "clips/hard/fps12_5.mp4"
    frame_bytes = 512 * 512 * 3
    fits = MediaSource(path, SETTINGS, buffer_bytes=54 * frame_bytes)  # 54 frames on 130 slots
    next(fits.frames())
    first, again = list(fits.frames()), list(fits.frames())
    assert all(a is b for a, b in zip(first, again, strict=True))
    too_small = MediaSource(path, SETTINGS, buffer_bytes=54 * frame_bytes - 1)
    decoded, twice = list(too_small.frames()), list(too_small.frames())
    assert decoded[0].image is not twice[0].image
    for a, b, c in zip(first, decoded, twice, strict=True):
        assert (a.slot, a.time) == (b.slot, b.time) == (c.slot, c.time)
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.image, c.image)


def test_past_the_buffer_nothing_is_cached(test_data, request):
    source = MediaSource(test_data / "clips/hard/fps25.mp4", SETTINGS, buffer_bytes=3 * 512 * 512 * 3)
    seen: list[weakref.ref[np.ndarray]] = []
    frame: Frame | None = None
    gc.disable()  # nothing may wait for it
    request.addfinalizer(gc.enable)
    gc.collect()
    for frame in source.frames():
        if not seen or seen[-1]() is not frame.image:
            seen.append(weakref.ref(frame.image))
        assert sum(ref() is not None for ref in seen) <= 4
        assert sum(type(thing) is av.VideoFrame for thing in gc.get_objects()) <= 8
    assert len(seen) == 107


def test_a_leap_of_the_time_stamps_is_not_filled_with_frames(tmp_path: Path) -> None:
    """One stamp of a million seconds would ask for thirty million rows."""
    path = tmp_path / "leap.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width = stream.height = 64
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number, np.uint8), format="rgb24")
            for packet in stream.encode(frame):
                if number == 9:
                    packet.pts = packet.dts = 30_000_000
                container.mux(packet)
    with pytest.raises(ExtractionError, match="time stamps reach") as caught:
        list(MediaSource(path, MediaSettings()).frames())
    assert caught.value.reason == Reason.TOO_LONG
