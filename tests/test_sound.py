"""Sound that misleads: channels that cancel each other, offsets, files of sound alone, clips beyond the limits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner
from numbered_clips import write_numbered

from triptych.extractors.audio.features import Audio
from triptych.extractors.audio.stage import AudioSettings
from triptych.extractors.base import ExtractionError, Reason
from triptych.extractors.media.source import MediaSource
from triptych.extractors.remedies import REMEDIES
from triptych.extractors.settings import MediaSettings
from triptych.pipeline.cli.main import cli
from triptych.pipeline.run.extraction import prepare, run, survey
from triptych.pipeline.storage.store import FeatureStore

RATE = 22050
SETTINGS = MediaSettings()


def write_sound(path: Path, channels: np.ndarray, codec: str, sample_format: str, rate: int = RATE) -> Path:
    """Write sound, shape (channels, n), full scale 1."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(channels)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout, format=sample_format)
        samples = np.ascontiguousarray(channels, dtype=np.float32)
        for start in range(0, samples.shape[1], 1024):
            block = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(samples[:, start : start + 1024]), format="fltp", layout=layout
            )
            block.sample_rate, block.pts = rate, start
            container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    return path


def tone(seconds: float = 1.0, hz: float = 220.0, rate: int = RATE) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)


def voiced(waveform: np.ndarray, kernels: str = "fast") -> np.ndarray:
    features = Audio(AudioSettings(kernels=kernels), RATE).extract(waveform.astype(np.float32))
    assert (features.values[~features.extras["voiced"], 0] == 0).all()
    return features.extras["voiced"]


# ---- channels that cancel each other


@pytest.mark.parametrize(
    ("codec", "sample_format"), [("pcm_s16le", "s16"), ("flac", "s16"), ("pcm_u8", "u8")]
)
def test_of_channels_that_cancel_the_louder_one_is_used(tmp_path, codec, sample_format):
    left = tone()
    source = MediaSource(
        write_sound(tmp_path / "a.mkv", np.stack([-0.97 * left, left]), codec, sample_format), SETTINGS
    )
    waveform = source.waveform()
    np.testing.assert_allclose(waveform[: len(left)], left, atol=0.01)
    assert source.notes.sound == ("the two channels cancel each other: channel 2 alone is used",)


@pytest.mark.parametrize(
    "channels",
    [
        np.stack([tone(), tone()]),
        np.stack([tone(), np.zeros(RATE)]),
        np.stack([tone(), tone(hz=330)]),
        np.stack([tone(), -0.8 * tone()]),
        np.zeros((2, RATE)),
        np.concatenate([np.zeros((5, RATE)), tone()[None]]),
    ],
    ids=["equal", "one side", "wide", "nearly cancelled", "silence", "one of six"],
)
def test_other_channels_are_averaged(tmp_path, channels):
    source = MediaSource(write_sound(tmp_path / "a.wav", channels, "pcm_s16le", "s16"), SETTINGS)
    np.testing.assert_allclose(source.waveform()[:RATE], channels.mean(axis=0), atol=1e-4)
    assert source.notes.sound == ()


def test_shared_clip_whose_channels_cancel_sounds_as_its_mono_twin(test_data):
    one, two = (
        MediaSource(test_data / "inputs" / "05-antiphase" / name, SETTINGS).waveform()
        for name in ("antiphase.mkv", "upright.mp4")
    )
    assert len(one) == len(two)
    assert np.corrcoef(one, two)[0, 1] > 0.999
    assert (voiced(one) == voiced(two)).mean() > 0.98


# ---- an offset


@pytest.mark.parametrize("kernels", ["fast", "librosa"])
@pytest.mark.parametrize("offset", [1e-3, -0.1, 1.0])
@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_an_offset_is_not_voiced(kernels, offset, noise):
    sound = offset * (1 + noise * np.random.default_rng(0).standard_normal(RATE))
    assert not voiced(sound, kernels).any()


def test_a_tone_on_an_offset_is_voiced_and_the_pause_after_it_is_not():
    sound = 0.5 + np.concatenate([tone(), np.zeros(2 * RATE)])
    found = voiced(sound)
    assert found[4:38].all()
    assert not found[48:].any()


def test_silence_and_sound_without_an_offset_are_as_pyin_has_them():
    sound = np.concatenate([np.zeros(RATE // 2), tone(), np.zeros(RATE // 2)])
    np.testing.assert_array_equal(voiced(sound), voiced(sound, "librosa"))


# ---- files of sound alone


SOUNDS = {
    "a.wav": ("pcm_s16le", "s16"),
    "b.flac": ("flac", "s16"),
    "c.mp3": ("libmp3lame", "fltp"),
    "d.m4a": ("aac", "fltp"),
    "e.ogg": ("flac", "s16"),
}


def test_audio_files_are_clips_without_frames(tmp_path):
    clips, features = tmp_path / "clips", tmp_path / "features"
    clips.mkdir()
    for name, (codec, sample_format) in SOUNDS.items():
        write_sound(clips / name, np.stack([tone(), tone()]), codec, sample_format, rate=44100)
    shutil.copy(clips / "b.flac", clips / "broken.flac")
    (clips / "broken.flac").write_bytes((clips / "b.flac").read_bytes()[:20])
    names = ["a", "b", "c", "d", "e"]
    result = run(prepare(clips, features, only=["audio", "faces"]), jobs=0)
    assert result.plan.stages["audio"].done == names
    assert result.plan.stages["faces"].absent == names
    assert list(result.plan.stages["faces"].failed) == ["broken"]
    assert FeatureStore(features).read("audio", "d").extras["voiced"][5:30].all()

    (clips / "broken.flac").unlink()
    again = CliRunner().invoke(cli, ["extract", str(clips), "-o", str(features), "--only", "audio,faces"])
    assert again.exit_code == 0, again.output
    assert "no frames, so no faces: a, b, c, d, e" in again.output
    assert survey(features).plan.stages["faces"].absent == names
    assert prepare(clips, features, only=["faces"], retry_failed=True).plan.work == ()
    lines = [
        json.loads(line) for path in (features / "ledger").iterdir() for line in path.read_text().splitlines()
    ]
    reasons = {(line["clip_id"], line["reason"]) for line in lines if line["outcome"] == "absent"}
    assert reasons == {(name, "no_video_stream") for name in names}


# ---- limits


def test_a_clip_beyond_the_limits_fails_with_its_own_reason(tmp_path):
    write_numbered(tmp_path / "clip.mkv", count=90)
    shape = next(MediaSource(tmp_path / "clip.mkv", SETTINGS).frames()).image.shape
    settings = MediaSettings(max_seconds=2.0)
    for read in (lambda s: list(s.frames()), lambda s: s.waveform()):
        with pytest.raises(ExtractionError, match=r"media\.max_seconds is 2") as caught:
            read(MediaSource(tmp_path / "clip.mkv", settings))
        assert caught.value.reason is Reason.TOO_LONG
    pixels = shape[0] * shape[1]
    with pytest.raises(ExtractionError, match=f"media.max_pixels is {pixels - 1}") as caught:
        next(MediaSource(tmp_path / "clip.mkv", MediaSettings(max_pixels=pixels - 1)).frames())
    assert caught.value.reason is Reason.TOO_LARGE
    assert f"frames of {shape[1]} x {shape[0]} = {pixels} pixels" in caught.value.detail
    assert len(list(MediaSource(tmp_path / "clip.mkv", MediaSettings(max_pixels=pixels)).frames())) == 90
    for reason, setting in ((Reason.TOO_LONG, "media.max_seconds"), (Reason.TOO_LARGE, "media.max_pixels")):
        assert f"--set {setting}=" in REMEDIES[reason]
        assert "--retry-failed" in REMEDIES[reason]
