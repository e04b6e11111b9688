"""The demonstration's clips: right in form, true to what is written beside them, the same every time."""

from __future__ import annotations

import csv
from collections import Counter
from itertools import islice

import av
import cv2
import librosa
import numpy as np
import pytest
import soxr
import torch
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from triptych.extractors.base import Frame
from triptych.pipeline.demo import clips
from triptych.pipeline.demo.bert import NOTICE, make_bert
from triptych.pipeline.demo.clips import make_clips, read_truth
from triptych.pipeline.demo.face import SIZE, Portrait, Pose
from triptych.pipeline.demo.script import GRID, write_scripts
from triptych.pipeline.demo.sentences import count_syllables, every_text, write_sentence
from triptych.pipeline.demo.voice import RATE, choose_manner, speak

COUNT = 4
IDS = [f"demo_0001$_${index:04d}" for index in range(1, COUNT + 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    make_clips(folder, COUNT, seed=3)
    return folder


def clip_path(folder, clip):
    video_id, clip_id = clip.split("$_$")
    return folder / "Raw" / video_id / f"{clip_id}.mp4"


def frames(path):
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def sound(path):
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def correlation(a, b):
    return float(np.corrcoef(a, b)[0, 1])


# Form


def test_the_folder_is_laid_out_as_ch_sims(folder):
    with (folder / "label.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [f"{row['video_id']}$_${row['clip_id']}" for row in rows] == IDS
    assert list(rows[0]) == [
        "video_id",
        "clip_id",
        "text",
        "label",
        "label_T",
        "label_A",
        "label_V",
        "annotation",
        "mode",
    ]
    assert {path.suffix for path in contents(folder)} == {".csv", ".mp4", ".json"}


@pytest.mark.parametrize("clip", IDS)
def test_a_clip_is_h264_and_aac_with_truth_for_every_frame(folder, clip):
    path = clip_path(folder, clip)
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.pix_fmt, video.average_rate) == ("h264", "yuv420p", 30)
        assert (video.width, video.height) == (SIZE, SIZE)
        assert (audio.codec_context.name, audio.rate) == ("aac", RATE)
    truth = read_truth(folder, clip)
    times = [time for time, _ in frames(path)]
    np.testing.assert_allclose(times, np.arange(len(times)) / 30, atol=1e-6)
    assert len(truth.roll) == len(truth.mouth) == len(truth.blink) == len(times)
    assert len(truth.f0) == 1 + (len(times) * 22050 // 30 - 1) // 512
    assert 2 <= len(times) / 30 < 3.5


# The same every time, and going on where it stopped


def test_the_seed_decides_every_byte(folder, tmp_path):
    make_clips(tmp_path, COUNT, seed=3)
    before = contents(tmp_path)
    assert before == contents(folder)
    make_clips(tmp_path, COUNT, seed=4)
    after = contents(tmp_path)
    assert after.keys() == before.keys()
    assert all(after[path] != before[path] for path in after)


def test_making_goes_on_where_it_stopped(tmp_path, monkeypatch):
    make_clips(tmp_path, COUNT, seed=3)
    whole = contents(tmp_path)
    gone, torn, unknown, unchanged = (clip_path(tmp_path, clip) for clip in IDS)
    gone.unlink()
    torn.write_bytes(torn.read_bytes()[:1000])
    (tmp_path / "truth" / "demo_0001" / f"{unknown.stem}.json").write_text("{")
    (tmp_path / "label.csv").unlink()
    made = []
    encode = clips._encode
    monkeypatch.setattr(
        clips, "_encode", lambda path, *rest: (made.append(path.name[:4]), encode(path, *rest))
    )
    make_clips(tmp_path, COUNT, seed=3)
    assert made == [gone.stem, torn.stem, unknown.stem]
    assert unchanged.is_file()
    assert contents(tmp_path) == whole


def test_an_interrupted_clip_leaves_no_file_of_its_name(tmp_path, monkeypatch):
    drawn = iter(range(5))
    draw = Portrait.draw

    def interrupted(portrait, pose):
        if next(drawn, None) is None:
            raise KeyboardInterrupt
        return draw(portrait, pose)

    monkeypatch.setattr(Portrait, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_clips(tmp_path, 1)
    assert contents(tmp_path) == {}


def test_no_clips_at_all_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="count of clips is 0"):
        make_clips(tmp_path, 0)


# The voice


@pytest.mark.parametrize("clip", IDS)
def test_pyin_hears_the_pitch_that_was_spoken(folder, clip):
    waveform = soxr.resample(sound(clip_path(folder, clip)), RATE, 22050, quality="HQ")
    f0, voiced, _ = librosa.pyin(waveform, fmin=60, fmax=500, sr=22050, frame_length=2048, hop_length=512)
    truth = read_truth(folder, clip).f0
    f0, voiced = f0[: len(truth)], voiced[: len(truth)]
    both = voiced & (truth > 0)
    assert np.median(np.abs(1200 * np.log2(f0[both] / truth[both]))) <= 30
    assert np.mean(voiced == (truth > 0)) >= 0.85
    assert truth[truth > 0].min() > 80
    assert truth.max() < 320


def test_the_sound_is_not_shifted_by_the_encoder(folder):
    script = write_scripts(COUNT, 3)[0]
    rng = np.random.default_rng(script.seed)
    spoken = speak(count_syllables(script.text), choose_manner(script.voice, rng), rng).waveform
    decoded = sound(clip_path(folder, IDS[0]))[: len(spoken)]
    spectrum = np.fft.rfft(decoded, 2 * len(spoken)) * np.conj(np.fft.rfft(spoken, 2 * len(spoken)))
    assert np.fft.irfft(spectrum).argmax() == 0
    assert correlation(decoded, spoken) > 0.99


def test_the_mouth_opens_with_the_voice(folder):
    for clip in IDS:
        mouth = read_truth(folder, clip).mouth
        blocks = sound(clip_path(folder, clip))[: len(mouth) * RATE // 30].reshape(len(mouth), -1)
        assert correlation(mouth, np.sqrt((blocks**2).mean(axis=1))) > 0.6


# The face


def measure(points):
    """Openings of eyes and mouth, roll and height of corners and brows, by distance between the eyes."""
    x, y = points[263] - points[33]
    between, up = np.hypot(x, y), np.array([y, -x]) / np.hypot(x, y)

    def gap(a, b):
        return np.linalg.norm(points[a] - points[b]) / between

    return {
        "roll": np.degrees(np.arctan2(y, x)),
        "mouth": gap(13, 14),
        "chin": gap(1, 152),
        "eyes": gap(160, 144) + gap(158, 153) + gap(387, 373) + gap(385, 380),
        "corners": (points[61] + points[291] - 2 * points[1]) @ up / between,
        "brows": (points[105] + points[334] - 2 * points[168]) @ up / between,
    }


def read_face(images):
    pytest.importorskip("ai_edge_litert")
    from triptych.extractors.faces.stage import FacesSettings
    from triptych.extractors.faces.tracker import FaceTracker, aligned
    from triptych.extractors.vision.facemesh.backend import FaceMesh
    from triptych.extractors.vision.stage import VisionSettings

    whole = VisionSettings(input="frame")
    shown = [Frame(slot, slot / 30, image) for slot, image in enumerate(images)]
    track = FaceTracker(FacesSettings()).extract(shown)
    assert track.valid.all()
    seen = FaceMesh(whole).watch(aligned(shown, track, whole))
    assert min(seen.presence) > 0.5
    rows = [measure(mesh[:, :2]) for mesh in seen.meshes]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("clip", IDS)
def test_face_mesh_sees_what_the_face_does(folder, clip):
    truth = read_truth(folder, clip)
    seen = read_face([image for _, image in frames(clip_path(folder, clip))])
    assert correlation(seen["roll"], truth.roll) >= 0.98
    assert correlation(seen["mouth"], truth.mouth) >= 0.9
    assert correlation(seen["chin"], truth.mouth) >= 0.8
    assert correlation(seen["eyes"], truth.blink) <= -0.85
    # Degrees for degrees: the sense and the size of the roll, whatever the photograph's own.
    assert np.polyfit(truth.roll, seen["roll"], 1)[0] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("feature", "seen_as"), [("smile", "corners"), ("brow", "brows")])
def test_face_mesh_sees_corners_and_brows_go_up_and_down(feature, seen_as):
    portrait = Portrait()
    values = np.repeat(np.linspace(-1, 1, 7), 3)
    seen = read_face([portrait.draw(Pose(**{feature: float(value)})) for value in values])
    assert correlation(seen[seen_as], values) > 0.9


def test_mtcnn_is_sure_of_the_face(folder):
    from facenet_pytorch import MTCNN

    detector = MTCNN(min_face_size=40, post_process=False)
    images = [image for clip in IDS for _, image in islice(frames(clip_path(folder, clip)), 0, None, 12)]
    _, scores = detector.detect(images)
    assert min(score[0] for score in scores) > 0.99


def test_a_blink_changes_only_the_eyes():
    portrait = Portrait()
    still, blinked = portrait.draw(Pose()), portrait.draw(Pose(blink=1))
    assert still.shape == (SIZE, SIZE, 3)
    assert still.dtype == np.uint8
    changed = np.argwhere(np.abs(still.astype(int) - blinked).max(axis=2) > 8)
    assert len(changed) > 100
    assert changed[:, 0].min() > 120  # rows: below the brim of the hat
    assert changed[:, 0].max() < 150  # and above the nose
    np.testing.assert_array_equal(still, portrait.draw(Pose()))


def test_the_shoulders_stay_where_they_are_when_the_head_turns():
    portrait = Portrait()
    still, turned = portrait.draw(Pose()), portrait.draw(Pose(roll=11, shift_x=5))
    difference = cv2.absdiff(still, turned)
    assert difference[-3:].mean() < 3
    assert difference[100:220, 90:230].mean() > 15


# The script


def test_labels_are_on_the_grid_and_differ_by_modality():
    scripts = write_scripts(48, 0)
    labels = np.array([[each.label, each.label_T, each.label_A, each.label_V] for each in scripts])
    assert set(labels.ravel()) <= set(GRID)
    for column in labels.T:
        assert 0.35 <= (column > 0).mean() <= 0.65
    for a in range(1, 4):
        assert correlation(labels[:, 0], labels[:, a]) > 0.6
        for b in range(a + 1, 4):
            assert 0.1 < correlation(labels[:, a], labels[:, b]) < 0.8
    assert all(
        each.annotation == {-1: "Negative", 0: "Neutral", 1: "Positive"}[int(np.sign(each.label))]
        for each in scripts
    )


def test_splits_are_six_two_two_and_stratified():
    scripts = write_scripts(50, 0)
    assert Counter(each.mode for each in scripts) == {"train": 30, "valid": 10, "test": 10}
    for mode in ("train", "valid", "test"):
        assert abs(np.mean([each.label for each in scripts if each.mode == mode])) < 0.3


@pytest.mark.parametrize("sentiment", GRID)
def test_a_sentence_expresses_its_sentiment_in_the_vocabulary(sentiment):
    rng = np.random.default_rng(0)
    sentences = {write_sentence(sentiment, rng) for _ in range(60)}
    assert len(sentences) > 30
    known = set("".join(every_text()))
    for sentence in sentences:
        assert set(sentence) <= known
        assert 7 <= count_syllables(sentence) <= 13
        assert any(word in sentence for word in ["开心", "高兴", "喜欢", "满意"]) == (sentiment > 0)
        assert any(word in sentence for word in ["难过", "生气", "伤心", "失望"]) == (sentiment < 0)


def out_of_fold(features, labels):
    model = make_pipeline(StandardScaler(), Ridge(30.0))
    return correlation(
        cross_val_predict(model, features, labels, cv=KFold(5, shuffle=True, random_state=0)), labels
    )


def test_simple_features_predict_text_and_voice_labels():
    scripts = write_scripts(48, 0)
    characters = sorted({character for each in scripts for character in each.text})
    counts = [[each.text.count(character) for character in characters] for each in scripts]
    assert out_of_fold(counts, [each.label_T for each in scripts]) > 0.5
    heard = []
    for each in scripts:
        rng = np.random.default_rng(each.seed)
        speech = speak(count_syllables(each.text), choose_manner(each.voice, rng), rng)
        log_f0 = np.log(speech.f0[speech.f0 > 0])
        heard.append([log_f0.mean(), log_f0.std(), np.log(speech.waveform.std())])
    labels = [each.label_A for each in scripts]
    assert out_of_fold(heard, labels) > 0.6
    assert out_of_fold(heard, np.random.default_rng(0).permutation(labels)) < 0.4


# The text model


def test_the_bert_splits_chinese_by_character(tmp_path):
    from transformers import AutoModel, AutoTokenizer

    make_bert(tmp_path, texts=["龘 OK2"])
    tokenizer, model = AutoTokenizer.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)
    encoded = tokenizer("这顿晚饭很好！龘 OK2 鱻", return_tensors="pt")
    pieces = tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    assert pieces == ["[CLS]", *"这顿晚饭很好！龘", "O", "##K", "##2", "[UNK]", "[SEP]"]
    with torch.inference_mode():
        assert model.eval()(**encoded).last_hidden_state.shape == (1, len(pieces), 768)
    assert "random" in NOTICE
    assert NOTICE in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_the_bert_depends_on_its_seed_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    make_bert(tmp_path / "a")
    assert torch.equal(torch.rand(3), expected)
    make_bert(tmp_path / "b")
    make_bert(tmp_path / "b")
    make_bert(tmp_path / "c", seed=1)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")
