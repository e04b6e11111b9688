"""The overlay video, decoded again: codecs, length, sound, order of its boxes, and what is drawn where."""

from __future__ import annotations

import shutil
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner
from feature_folder import make_folder

import triptych
from triptych.extractors.base import Features
from triptych.pipeline.cli.main import cli
from triptych.pipeline.errors import InputError
from triptych.pipeline.report import overlay
from triptych.pipeline.report.canvas import Canvas, ClipCurves, Curve
from triptych.pipeline.report.drawing import BOX, DIM, PANEL, WARNING, Pen, Rect, curve_points
from triptych.pipeline.report.fonts import VARIABLE, Glyphs, find_font, label_font
from triptych.pipeline.report.frames import ClipMarks, MarkedFrame, Marks, marked_frames
from triptych.pipeline.report.overlay import write_overlay
from triptych.pipeline.storage.store import FeatureStore

CHINESE = "今天的晚饭真好吃"


def boxes(path: Path) -> list[bytes]:
    """The names of an MP4 file's top-level boxes, in order."""
    data, names, at = path.read_bytes(), [], 0
    while at < len(data):
        names.append(data[at + 4 : at + 8])
        at += int.from_bytes(data[at : at + 4], "big")
    return names


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def near(image: np.ndarray, colour, tolerance: int = 60) -> np.ndarray:
    return (np.abs(image.astype(int) - colour) < tolerance).all(axis=-1)


@pytest.fixture(scope="module")
def tone_clip(tmp_path_factory) -> Path:
    """A grey clip of 12 frames at 25 Hz and sound of 1 s, which starts 0.2 s before the first frame."""
    path = tmp_path_factory.mktemp("clips") / "tone.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", 25, options={"crf": "20"})
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        sound = container.add_stream("aac", 22050, layout="mono")
        for number in range(12):
            frame = av.VideoFrame.from_ndarray(np.full((96, 128, 3), 120, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number + 5, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        wave = (0.3 * np.sin(2 * np.pi * 200 * np.arange(22050) / 22050)).astype(np.float32)
        samples = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        samples.sample_rate, samples.time_base, samples.pts = 22050, Fraction(1, 22050), 0
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
    return path


@pytest.fixture(scope="module")
def tone_store(tone_clip, tmp_path_factory) -> FeatureStore:
    folder = tmp_path_factory.mktemp("tone") / "features"
    triptych.extract(tone_clip, folder, only="audio", jobs=0)
    return FeatureStore(folder)


def test_overlay_of_a_demo_clip_plays_in_a_browser(demo_features, tmp_path):
    store = FeatureStore(demo_features)
    clip = store.manifest.clips[0]
    path = tmp_path / "clip.mp4"
    written = write_overlay(store, clip, path)
    names = boxes(path)
    assert names.index(b"moov") < names.index(b"mdat")
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (audio.codec_context.name, video.average_rate) == ("aac", 30)
        assert float(audio.duration * audio.time_base) == pytest.approx(written.seconds, abs=0.1)
        assert float(container.duration / av.time_base) == pytest.approx(written.seconds, abs=0.1)
    images = decoded(path)
    assert len(images) == written.frames == len(store.read("faces", clip.id))
    assert list(tmp_path.iterdir()) == [path]  # nothing unfinished stays
    frame = next(frame for frame in marked_frames(store, clip) if frame.slot == 20)
    scale = 480 / frame.image.shape[0]
    left, top, right, bottom = ((frame.marks.box + 0.5) * scale - 0.5 + 16).round().astype(int)
    drawn = near(images[20], BOX)
    for edge in (
        drawn[top - 2 : top + 3, left:right].any(axis=0),
        drawn[bottom - 2 : bottom + 3, left:right].any(axis=0),
        drawn[top:bottom, left - 2 : left + 3].any(axis=1),
        drawn[top:bottom, right - 2 : right + 3].any(axis=1),
    ):
        assert edge.mean() > 0.9
    assert drawn[top + 8 : bottom - 8, left + 8 : right - 8].mean() < 0.01


def test_time_mark_moves_and_slots_without_a_frame_show_none(tone_store, tmp_path):
    clip = tone_store.manifest.clips[0]
    written = write_overlay(tone_store, clip, tmp_path / "tone.mp4")
    images = decoded(tmp_path / "tone.mp4")
    assert written.frames == len(images)
    assert written.seconds == pytest.approx(1.0, abs=0.06)  # the sound's length, with the encoder's padding
    centre = [image[256, 216].astype(int).mean() for image in images]  # of the frame's area
    shown = [abs(level - 120) < 12 for level in centre]
    assert shown.index(True) == 6  # 0.2 s
    assert shown.count(True) == round(12 / 25 * 30)
    # The mark is the brightest column at the top of the curves, above their names.
    marks = [int(image[508:511].astype(int).sum(axis=(0, 2)).argmax()) for image in images]
    assert all(later >= earlier for earlier, later in pairwise(marks[1:]))
    assert marks[-1] > marks[1] + 300
    assert any("face track" in note and "vision rows" in note for note in written.notes)


def test_overlay_agrees_with_the_sound(tone_store, tmp_path):
    """The tone starts at the container's start: neither the encoder's priming nor a late start moves it."""
    clip = tone_store.manifest.clips[0]
    write_overlay(tone_store, clip, tmp_path / "tone.mp4")
    before = triptych.compute("audio", path=clip.file)
    after = triptych.compute("audio", path=tmp_path / "tone.mp4")
    rows = min(len(before), len(after))
    mfcc = before.columns.index("mfcc_0")
    assert np.abs(before.values[2 : rows - 4, mfcc] - after.values[2 : rows - 4, mfcc]).mean() < 12


def test_clip_without_sound_and_rows_is_drawn(tmp_path, tone_clip):
    silent = tmp_path / "clips" / "silent.mp4"
    silent.parent.mkdir()
    with av.open(str(tone_clip)) as source, av.open(str(silent), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    triptych.extract(silent, tmp_path / "features", only="audio", jobs=0)
    store = FeatureStore(tmp_path / "features")
    written = write_overlay(store, store.manifest.clips[0], tmp_path / "o.mp4")
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert not container.streams.audio
    assert written.notes[0].startswith("not shown, as the clip has none: sound, audio rows")


def marks_with(valid: bool) -> ClipMarks:
    from test_marked_frames import make_track, vision_rows

    from triptych.extractors.vision.stage import VisionSettings

    track = make_track([(20, 20, 80, 80)] * 3)
    return ClipMarks(track, vision_rows(np.arange(3) / 30, [valid] * 3), VisionSettings(), 30.0)


def canvas_with(marks: ClipMarks, text: str = "", curves: ClipCurves | None = None) -> Canvas:
    return Canvas("v$_$c", (128, 96), text, label_font(), marks, curves or ClipCurves(), 2.0)


@pytest.mark.parametrize(("box", "colour"), [(None, WARNING), (np.array([20.0, 20, 80, 80]), BOX)])
def test_frames_without_a_face_show_so(box, colour):
    canvas = canvas_with(marks_with(True))
    frame = MarkedFrame(0, 0.0, np.full((96, 128, 3), 90, np.uint8), Marks(box=box))
    image = canvas.draw(0, frame)
    rect = canvas.frame_rect
    area = image[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width]
    assert near(area, colour, 20).sum() > 50
    other = BOX if colour is WARNING else WARNING
    assert not near(area, other, 20).any()


def test_bars_are_empty_where_the_row_is_not_usable():
    frame = MarkedFrame(0, 0.0, np.zeros((96, 128, 3), np.uint8), Marks(vision_row=0))
    strong = marks_with(True)
    strong.vision.values[:, strong.vision.columns.index("AU12_r")] = 5
    shown = canvas_with(strong).draw(0, frame)
    weak = marks_with(False)
    weak.vision.values[:, weak.vision.columns.index("AU12_r")] = 5
    hidden = canvas_with(weak).draw(0, frame)
    blue = [near(image, (104, 168, 255), 8).sum() for image in (shown, hidden)]
    assert blue[0] > 500
    assert blue[1] == 0


def test_images_have_even_sides_for_any_shape_of_frame():
    for size in [(99, 33), (33, 99), (1921, 1081), (720, 1280), None]:
        canvas = Canvas("c", size, "", None, ClipMarks(None, None, _settings(), 30.0), ClipCurves(), 1.0)
        image = canvas.draw(0, None)
        assert image.shape[1::-1] == canvas.size
        assert canvas.size[0] % 2 == canvas.size[1] % 2 == 0
        assert near(image, DIM, 12).any()  # "no frame"


def _settings():
    from triptych.extractors.vision.stage import VisionSettings

    return VisionSettings()


def test_long_transcript_turns_its_pages():
    canvas = canvas_with(ClipMarks(None, None, _settings(), 30.0), "word " * 200)
    first, last = canvas.draw(0, None), canvas.draw(59, None)
    below = canvas.frame_rect.y + 490
    assert (first[below : below + 50] != last[below : below + 50]).any()
    lines = Pen(label_font()).lines("今天的晚饭，真好吃。 and words", 20, 60)
    assert all(not line.startswith(("，", "。")) for line in lines)


def test_curve_has_gaps_where_nothing_is_voiced():
    values = np.array([1.0, 2, np.nan, np.nan, 3, 4])
    pieces = curve_points(Rect(10, 20, 101, 51), np.arange(6) / 6, values, 1.0, 1.0, 4.0)
    assert [len(piece) for piece in pieces] == [2, 2]
    assert pieces[0][0] == pytest.approx((10, 70))  # the lowest value at the bottom
    assert pieces[1][1] == pytest.approx((10 + 100 * 5 / 6, 20))


def test_crossing_rate_stands_for_pitch_in_the_authors_recipe():
    rows = Features(
        np.ones((4, 2), np.float32), ("zcr", "mfcc_0"), ("", "dB"), np.arange(4) / 43, np.ones(4, bool)
    )
    found = ClipCurves.of(rows)
    assert isinstance(found.pitch, Curve)
    assert found.pitch.name == "zero crossings"
    assert ClipCurves.of(None) == ClipCurves()


def test_fonts_without_the_glyphs_are_not_taken(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    font = label_font()
    assert Glyphs(font).cover("Grüße, world 123")
    assert not Glyphs(font).cover(CHINESE)
    assert Glyphs(font).drawable("a 今b") == "a b"
    assert find_font("plain text") == font


def test_transcript_without_a_font_is_left_out_with_one_line(monkeypatch):
    monkeypatch.setattr(overlay, "find_font", lambda text: None)
    font, text, notes = overlay._transcript(CHINESE)
    assert (font, text) == (None, "")
    assert len(notes) == 1
    assert VARIABLE in notes[0]


@pytest.mark.parametrize("name", ["o.mkv", "clip itself"])
def test_wrong_names_are_refused(tone_store, tmp_path, name):
    clip = tone_store.manifest.clips[0]
    path = clip.file if name == "clip itself" else tmp_path / name
    with pytest.raises(InputError, match=r"ends in \.mp4|the clip itself"):
        write_overlay(tone_store, clip, path)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder that nobody can write to")
def test_folder_that_cannot_be_written_is_an_error_of_the_output(tone_store):
    output = Path("/proc/clip.mp4")
    with pytest.raises(FileNotFoundError) as raised:
        write_overlay(tone_store, tone_store.manifest.clips[0], output)
    assert raised.value.filename == str(output)


def test_missing_file_is_one_error(tone_clip, tmp_path):
    moved = tmp_path / "clip.mp4"
    shutil.copy(tone_clip, moved)
    triptych.extract(moved, tmp_path / "features", only="audio", jobs=0)
    moved.unlink()
    arguments = ["inspect", str(tmp_path / "features"), "clip", "--video", str(tmp_path / "o.mp4")]
    done = CliRunner().invoke(cli, arguments)
    assert isinstance(done.exception, InputError)
    assert "is missing" in str(done.exception)
    assert not (tmp_path / "o.mp4").exists()


def test_imported_features_have_no_video(tmp_path):
    import json

    folder = tmp_path / "features"
    folder.mkdir()
    make_folder(folder, {"train": 1})
    recipe = json.loads((folder / "recipe.json").read_text())
    recipe["recipe"]["imported"] = {"file": "published.pkl"}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    store = FeatureStore(folder)
    with pytest.raises(InputError, match=r"imported from published\.pkl"):
        write_overlay(store, store.manifest.clips[0], tmp_path / "o.mp4")


def test_frame_area_without_a_frame_is_the_panel():
    canvas = canvas_with(ClipMarks(None, None, _settings(), 30.0))
    rect = canvas.frame_rect
    middle = canvas.draw(0, None)[rect.y + rect.height // 2, rect.x + rect.width // 2]
    assert tuple(middle) == PANEL
