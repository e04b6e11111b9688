"""Truncated and corrupt clips, interlaced and HDR video, and files that are no clips: a note or a typed reason."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner
from numbered_clips import numbered, shifted, write_numbered

from triptych.extractors import registry
from triptych.extractors.base import ExtractionError, Features, Reason
from triptych.extractors.media.source import MediaSource
from triptych.extractors.registry import Registry, stages
from triptych.extractors.settings import MediaSettings
from triptych.extractors.stage import Input
from triptych.pipeline.cli.main import cli
from triptych.pipeline.cli.options import SOME_FAILED
from triptych.pipeline.run.extraction import prepare, run
from triptych.pipeline.run.group import load_stage
from triptych.pipeline.run.single import compute
from triptych.pipeline.stages.fingerprints import fingerprints
from triptych.pipeline.stages.recipe import Recipe
from triptych.pipeline.storage.index import content_digest
from triptych.pipeline.storage.ledger import LedgerLine, read_ledger

TRUNCATED = "inputs/03-truncated-video/truncated_faststart.mp4"


def reason_of(path: Path, **settings: object) -> list[Reason]:
    source = MediaSource(path, MediaSettings(**settings))
    reasons = []
    for call in (lambda: list(source.frames()), source.waveform):
        with pytest.raises(ExtractionError) as caught:
            call()
        assert path.name in caught.value.detail
        reasons.append(caught.value.reason)
    return reasons


def cut(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


def spoil(path: Path, kind: str, every: int) -> Path:
    """Overwrite every n-th packet of a stream, the first aside."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(**{kind: 0}) if p.size]
        for packet in packets[every::every]:
            data[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(data)
    return path


# Truncated and corrupt


def test_truncated_video_gets_a_note(test_data):
    source = MediaSource(test_data / TRUNCATED, MediaSettings())
    assert len({id(frame.image) for frame in source.frames()}) == 71
    source.waveform()
    assert source.notes.frames == ("1 of 72 frames corrupt", "2.8 of 5.0 s decoded")
    assert source.notes.sound == ("2.8 of 5.0 s decoded",)


def test_truncated_video_fails_where_the_recipe_says_so(test_data):
    assert reason_of(test_data / TRUNCATED, truncated="fail") == [Reason.TRUNCATED] * 2


def test_a_failing_clip_fails_at_every_reading(test_data):
    source = MediaSource(test_data / TRUNCATED, MediaSettings(truncated="fail"))
    for _ in range(2):
        with pytest.raises(ExtractionError, match=r"2\.8 of 5\.0 s decoded"):
            list(source.frames())


def test_notes_stay_when_the_frames_are_cached(tmp_path):
    path = cut(write_numbered(tmp_path / "a.mkv", audio=None), 0.5)
    source = MediaSource(path, MediaSettings())
    first = list(source.frames())
    notes = source.notes.frames
    assert [a.image is b.image for a, b in zip(first, source.frames(), strict=True)] == [True] * len(first)
    assert source.notes.frames == notes != ()


@pytest.mark.parametrize(
    ("kind", "noun"), [("video", "frames"), ("audio", "packets of sound")], ids=["frames", "sound"]
)
def test_corrupt_packets_are_counted(tmp_path, kind, noun):
    path = spoil(write_numbered(tmp_path / "a.mp4", video="mjpeg", pixels="yuvj420p"), kind, every=10)
    source = MediaSource(path, MediaSettings())
    list(source.frames())
    source.waveform()
    notes = {"video": source.notes.frames, "audio": source.notes.sound}
    (note,) = notes.pop(kind)
    count, rest = note.split(" of ", 1)
    assert 5 <= int(count) <= 25
    assert rest.endswith(f"{noun} corrupt")
    assert set(notes.values()) == {()}


def test_corrupt_h264_gets_a_note(tmp_path):
    path = spoil(write_numbered(tmp_path / "a.mp4", audio=None), "video", every=9)
    source = MediaSource(path, MediaSettings())
    list(source.frames())
    assert "frames corrupt" in source.notes.frames[0]


def test_data_lost_from_a_transport_stream_is_counted(tmp_path):
    path = write_numbered(tmp_path / "a.ts")
    data = path.read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    path.write_bytes(b"".join(packet for k, packet in enumerate(packets) if k < 60 or k % 40))
    source = MediaSource(path, MediaSettings())
    list(source.frames())
    source.waveform()
    assert source.notes.frames[0].endswith("frames corrupt")
    assert source.notes.sound[0].endswith("packets of sound corrupt")


def test_truncated_sound_file_gets_a_note(tmp_path):
    source = MediaSource(
        cut(write_numbered(tmp_path / "a.flac", video=None, audio="flac"), 0.6), MediaSettings()
    )
    source.waveform()
    assert source.notes.sound[-1] == "2.2 of 4.0 s decoded"


def test_shorter_sound_is_no_damage(tmp_path):
    for name in ("a.mkv", "a.mp4", "a.flv"):
        source = MediaSource(write_numbered(tmp_path / name, sound=(0.0, 2.0)), MediaSettings())
        list(source.frames())
        source.waveform()
        assert (source.notes.frames, source.notes.sound) == ((), ())


def test_ordinary_clips_have_no_note(test_data):
    clips = [*sorted((test_data / "clips/Raw").rglob("*.mp4"))[:4]]
    clips += [
        test_data / "clips/hard" / name for name in ("vfr.mp4", "original.wmv", "flv.flv", "audio_short.mp4")
    ]
    for path in clips:
        source = MediaSource(path, MediaSettings(truncated="fail"))
        list(source.frames())
        source.waveform()
        assert (source.notes.frames, source.notes.sound) == ((), ()), path.name


# What the ledger holds


@pytest.fixture
def both(monkeypatch) -> Iterator[None]:
    """Replace two stages by short ones: audio reads the sound, and faces the frames."""

    class Counts:
        def extract(self, clip) -> Features:
            rows = len(clip.waveform()) if clip.stage.name == "audio" else len(list(clip.frames()))
            width = 33 if clip.stage.name == "audio" else 18
            columns = clip.stage.columns(width)[0]
            names, units = zip(*columns, strict=True)
            times = np.arange(1.0)
            extras = {name: np.zeros(1, kind) for name, kind in clip.stage.extras.items() if kind != "str"}
            values = np.full((1, len(columns)), rows, np.float32)
            return Features(values, names, units, times, np.ones(1, bool), extras, ("of its own",))

    found = {
        name: replace(
            stages()[name], load=lambda *_: Counts(), resolve=lambda s: s, model_identity=lambda s: ""
        )
        for name in ("audio", "faces")
    }
    monkeypatch.setattr(registry, "registry", lambda: Registry({**stages_before, **found}))
    load_stage.cache_clear()
    yield
    load_stage.cache_clear()


stages_before = dict(stages())


def lines(folder: Path) -> dict[tuple[str, str], LedgerLine]:
    return {(line.clip_id, line.stage): line for line in read_ledger(folder).values()}


def test_notes_on_the_media_reach_the_ledger_of_each_stage(tmp_path, both):
    clips = tmp_path / "v"
    clips.mkdir()
    spoil(write_numbered(clips / "a.mp4", video="mjpeg", pixels="yuvj420p"), "video", every=10)
    cut(write_numbered(clips / "b.mkv"), 0.5)
    write_numbered(clips / "c.mkv")
    run(prepare(clips, tmp_path / "f", only=["audio", "faces"]), jobs=0)
    details = {key: line.detail for key, line in lines(tmp_path / "f").items()}
    assert "frames corrupt" in details["a", "faces"]
    assert details["a", "audio"] == "of its own"
    for stage in ("audio", "faces"):
        assert details["b", stage].startswith("of its own; ")
        assert details["b", stage].endswith(" of 4.0 s decoded")
        assert details["c", stage] == "of its own"


def test_strict_makes_damage_a_failure_and_its_absence_undoes_it(tmp_path):
    clips = tmp_path / "v"
    clips.mkdir()
    cut(write_numbered(clips / "a.mkv"), 0.5)
    write_numbered(clips / "b.mkv")
    folder = tmp_path / "f"
    assert not run(prepare(clips, folder, only=["audio"]), jobs=0).plan.stages["audio"].failed
    command = ["extract", str(clips), "-o", str(folder), "--only", "audio", "--jobs", "1", "--strict"]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == SOME_FAILED, result.output
    assert "truncated" in result.output
    found = lines(folder)
    assert found["a", "audio"].reason == Reason.TRUNCATED
    assert found["b", "audio"].outcome == "done"
    lenient = prepare(clips, folder, only=["audio"], assignments=["media.truncated=note"])
    assert lenient.plan.stages["audio"].done == ["a", "b"]


def test_compute_returns_the_notes(test_data):
    features = compute("audio", Recipe(), path=test_data / TRUNCATED)
    assert features.notes == ("2.8 of 5.0 s decoded",)


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ({"deinterlace": "off"}, {"faces", "vision", "appearance"}),
        (
            {"truncated": "fail"},
            {"audio", "faces", "vision", "appearance", "speech", "egemaps", "voice", "scenes", "asr"},
        ),
    ],
)
def test_media_settings_are_in_the_fingerprints_of_the_stages_that_they_change(change, stale):
    names = [name for name, stage in stages().items() if Input.TEXT not in stage.reads]
    fixed = dict.fromkeys(names, "")
    plain, changed = (
        {name: stage_settings(name, Recipe(media=MediaSettings(**media))) for name in fixed}
        for media in ({}, change)
    )
    assert {name for name in names if plain[name] != changed[name]} == stale & set(names)


def stage_settings(name: str, recipe: Recipe) -> dict[str, object]:
    return {setting: getattr(recipe.media, setting) for setting in stages()[name].media_settings}


def test_the_version_of_decoding_is_in_fingerprints_of_media_stages(monkeypatch):
    before = fingerprints(Recipe(), ["audio"])
    monkeypatch.setattr("triptych.pipeline.stages.fingerprints.MEDIA_VERSION", 1000)
    assert fingerprints(Recipe(), ["audio"]) != before


# Interlaced and HDR


def combs(image: np.ndarray) -> float:
    """Return how much the odd rows differ from the even ones around them."""
    grey = image[..., 1].astype(float)
    return float(np.abs(grey[1:-1] - (grey[:-2] + grey[2:]) / 2).mean())


def interlaced(path: Path) -> Path:
    """A bar moves by six pixels between the two fields of a frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"x264-params": "tff=1", "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        for number in range(12):
            image = np.full((64, 128, 3), 40, np.uint8)
            for field in (0, 1):
                left = 8 + 6 * (2 * number + field) % 100
                image[field::2, left : left + 20] = 210
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_interlaced_video_is_deinterlaced(tmp_path):
    path = interlaced(tmp_path / "a.mkv")
    woven, smooth = (
        MediaSource(path, MediaSettings(frame_rate=25, deinterlace=how)) for how in ("off", "auto")
    )
    before, after = list(woven.frames()), list(smooth.frames())
    assert [f.time for f in before] == [f.time for f in after]
    assert len({id(f.image) for f in after}) == 12
    assert np.mean([combs(f.image) for f in after]) < 0.2 * np.mean([combs(f.image) for f in before])
    assert [abs(a.image.mean() - b.image.mean()) < 3 for a, b in zip(before, after, strict=True)] == [
        True
    ] * 12
    assert "interlaced" in woven.notes.frames[0]
    assert smooth.notes.frames == ()


def test_deinterlacing_leaves_progressive_video_alone(tmp_path):
    path = write_numbered(tmp_path / "a.mkv", audio=None, count=10)
    images = [
        [f.image for f in MediaSource(path, MediaSettings(deinterlace=how)).frames()]
        for how in ("off", "auto")
    ]
    np.testing.assert_array_equal(*images)


def test_deinterlacing_follows_a_change_of_the_size(tmp_path):
    parts = [
        write_numbered(
            tmp_path / f"{number}.ts",
            audio=None,
            count=10,
            video_options={"x264-params": "tff=1"},
            alter=shifted(at),
        )
        for number, at in ((0, 0), (1, 0.5))
    ]
    wide = interlaced(tmp_path / "2.ts")
    path = tmp_path / "all.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in (*parts, wide)))
    frames = list(MediaSource(path, MediaSettings()).frames())
    assert {frame.image.shape for frame in frames} == {numbered(0).shape}
    assert len({id(frame.image) for frame in frames}) >= 30


@pytest.mark.parametrize(("transfer", "curve"), [("smpte2084", "PQ"), ("arib-std-b67", "HLG")])
def test_hdr_gets_a_note(tmp_path, transfer, curve):
    params = f"log-level=none:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
    path = write_numbered(
        tmp_path / "a.mkv",
        video="libx265",
        audio=None,
        count=5,
        pixels="yuv420p10le",
        video_options={"x265-params": params},
    )
    source = MediaSource(path, MediaSettings())
    list(source.frames())
    assert f"HDR video ({curve})" in source.notes.frames[0]


# Files that are no clips


PLAYLISTS = {
    "script.mp4": "ffconcat version 1.0\nfile other.mp4\n",
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nother.mp4\n#EXT-X-ENDLIST\n",
    "session.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_playlists_and_scripts_are_not_followed(tmp_path, name):
    write_numbered(tmp_path / "other.mp4", count=10)
    path = tmp_path / name
    path.write_text(PLAYLISTS[name])
    assert reason_of(path) == [Reason.NOT_MEDIA] * 2


def test_a_concat_script_of_the_shared_inputs_is_refused(test_data):
    assert reason_of(test_data / "inputs/media/concat.mp4") == [Reason.NOT_MEDIA] * 2


def test_special_files_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket.mp4"))
        for name in ("fifo.mp4", "device.mp4", "socket.mp4"):
            assert reason_of(tmp_path / name) == [Reason.NOT_A_FILE] * 2
            with pytest.raises(OSError, match="not a regular file"):
                content_digest(tmp_path / name)
    assert reason_of(tmp_path / "gone.mp4") == [Reason.FILE_MISSING] * 2


def test_special_files_cost_only_their_own_clip(tmp_path):
    clips = tmp_path / "v"
    clips.mkdir()
    os.mkfifo(clips / "fifo.mp4")
    (clips / "gone.mp4").symlink_to(clips / "nowhere.mp4")
    (clips / "script.mp4").write_text(PLAYLISTS["script.mp4"])
    write_numbered(clips / "good.mp4", count=30)
    result = run(prepare(clips, tmp_path / "f", only=["audio"]), jobs=0)
    assert result.plan.stages["audio"].done == ["good"]
    reasons = {clip: line.reason for (clip, _), line in lines(tmp_path / "f").items() if line.reason}
    assert reasons == {
        "fifo": Reason.NOT_A_FILE,
        "gone": Reason.FILE_MISSING,
        "script": Reason.NOT_MEDIA,
    }
