"""Export to MMSA and CMU-MultimodalSDK, and import of an MMSA pickle."""

import json
import pickle
import pickletools
from collections import OrderedDict

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from feature_folder import make_folder

from triptych.extractors.base import Features
from triptych.pipeline.cli.main import cli
from triptych.pipeline.errors import InputError
from triptych.pipeline.exchange.csd import export_csd
from triptych.pipeline.exchange.imported import import_mmsa
from triptych.pipeline.exchange.mmsa import export_mmsa
from triptych.pipeline.run.extraction import prepare, survey
from triptych.pipeline.storage.shards import shard_files, verify_shard
from triptych.pipeline.storage.store import FeatureStore
from triptych.pipeline.storage.streams import Streams
from triptych.pipeline.trainer.data.clips import load
from triptych.pipeline.trainer.data.lengths import longest

SPLITS = {"train": 12, "valid": 5, "test": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    features = tmp_path_factory.mktemp("exchange") / "features"
    make_folder(features, SPLITS, missing={"vision": [3], "text": [13]})
    return features


@pytest.fixture(scope="module")
def exported(folder):
    file = folder.parent / "out.pkl"
    export_mmsa(FeatureStore(folder), file)
    return file


@pytest.fixture
def data(exported):
    return pickle.loads(exported.read_bytes())


def call(*arguments):
    return CliRunner().invoke(cli, [*map(str, arguments)], catch_exceptions=False)


def save(path, data):
    path.write_bytes(pickle.dumps(data))
    return path


def test_pickle_has_the_types_that_mmsa_reads(data):
    assert list(data) == list(SPLITS)
    for name, count in SPLITS.items():
        part = data[name]
        lengths = {key: data["train"][key].shape[1] for key in ("text", "audio", "vision")}
        for key, width in (("text", 768), ("audio", 33), ("vision", 709)):
            assert part[key].astype(np.float32).shape == (count, lengths[key], width)
            assert part[key].dtype == np.float32
        assert part["text_bert"].astype(np.float32).shape == (count, 3, lengths["text"])
        for key in ("regression_labels", *(f"regression_labels_{task}" for task in "TAV")):
            # MMSA calls .astype and, for each sample, .reshape: a list has neither.
            assert part[key].astype(np.float32)[0].reshape(-1).shape == (1,)
            assert part[key].shape == (count,)
        for key in ("audio_lengths", "vision_lengths"):
            assert len(part[key]) == count
            assert all(type(length) is int and 1 <= length <= lengths[key[:-8]] for length in part[key])
        assert [type(text) for text in part["raw_text"] + part["id"]] == [str] * 2 * count
        assert all("$_$" in identity for identity in part["id"])
        # MMSA rebuilds its masks from the lengths, and finds the text's end at the mask's first zero.
        assert (part["text_bert"][:, 1].sum(axis=1) >= 0).all()
        assert part["annotations"] == [
            ("Negative", "Neutral", "Positive")[k] for k in part["classification_labels"]
        ]
        np.testing.assert_array_equal(np.sign(part["regression_labels"]) + 1, part["classification_labels"])


def test_rows_are_padded_and_cut_as_in_the_trainer(folder, data):
    store = FeatureStore(folder)
    clips = {clip.id: clip for clip in store.manifest.clips}
    for name, part in data.items():
        for modality in ("text", "audio", "vision"):
            trained = [i for i in data["train"]["id"] if i in store.ids(modality)]
            length = longest([len(store.read(modality, i)) for i in trained])
            assert part[modality].shape[1] == length
            for row, clip_id in enumerate(part["id"]):
                assert clips[clip_id].split == name
                if clip_id not in store.ids(modality):
                    assert not part[modality][row].any()
                    continue
                values = store.read(modality, clip_id).values
                if modality == "text" and len(values) > length:
                    values = np.concatenate([values[: length - 1], values[-1:]])
                values = values[:length]
                np.testing.assert_array_equal(part[modality][row, : len(values)], values)
                assert not part[modality][row, len(values) :].any()
                if modality == "text":
                    ids, mask, segments = part["text_bert"][row]
                    assert ids[0] == 101
                    assert mask.tolist() == [1] * len(values) + [0] * (length - len(values))
                    assert not segments.any()
                else:
                    assert part[f"{modality}_lengths"][row] == len(values)


def test_cut_text_keeps_its_last_token(tmp_path):
    make_folder(tmp_path / "F", {"train": 12, "valid": 1, "test": 12}, lengths=(8, 4, 4), wordy="test")
    store = FeatureStore(tmp_path / "F")
    export_mmsa(store, tmp_path / "out.pkl")
    data = pickle.loads((tmp_path / "out.pkl").read_bytes())
    length = data["train"]["text"].shape[1]
    texts = [store.read("text", clip_id) for clip_id in data["test"]["id"]]
    assert 0 < sum(len(features) > length for features in texts) < len(texts)  # some are cut, some are not
    for row, features in enumerate(texts):
        last = min(len(features), length) - 1
        np.testing.assert_array_equal(data["test"]["text"][row, :last], features.values[:last])
        np.testing.assert_array_equal(data["test"]["text"][row, last], features.values[-1])
        assert data["test"]["text_bert"][row, 0, last] == features.extras["input_ids"][-1]


def test_pickle_loads_in_numpy_1(exported):
    strings = {
        argument for _, argument, _ in pickletools.genops(exported.read_bytes()) if isinstance(argument, str)
    }
    assert {"numpy.core.multiarray", "_reconstruct", "ndarray", "dtype"} <= strings
    assert not any(text.startswith("numpy._core") for text in strings)


def test_export_of_an_import_is_equal(exported, data, tmp_path):
    import_mmsa(exported, tmp_path / "F")
    store = FeatureStore(tmp_path / "F")
    for stage in ("text", "audio", "vision"):
        for shard in shard_files(tmp_path / "F" / stage):
            assert not verify_shard(shard, stage)
    export_mmsa(store, tmp_path / "again.pkl")
    again = pickle.loads((tmp_path / "again.pkl").read_bytes())
    for name, part in data.items():
        assert list(again[name]) == list(part)
        for key, value in part.items():
            np.testing.assert_array_equal(again[name][key], value, err_msg=f"{name} {key}")


def test_imported_features_train_like_extracted_ones(folder, exported, tmp_path):
    import_mmsa(exported, tmp_path / "F")
    own, imported = (
        load(FeatureStore(folder), sequences=True),
        load(FeatureStore(tmp_path / "F"), sequences=True),
    )
    assert imported.ids == own.ids
    assert imported.splits == own.splits
    np.testing.assert_array_equal(imported.labels, own.labels)
    assert imported.absent == own.absent
    found = CliRunner().invoke(
        cli,
        [
            "train",
            str(tmp_path / "F"),
            "--model",
            "lmf",
            "--seeds",
            "1",
            "-o",
            str(tmp_path / "run"),
            "--json",
        ],
        catch_exceptions=False,
    )
    results = json.loads(found.stdout)
    assert results["clips"] == SPLITS
    assert results["vision_backend"] == "imported"


def test_imported_folder_records_its_file(exported, tmp_path):
    import_mmsa(exported, tmp_path / "F")
    store = FeatureStore(tmp_path / "F")
    assert store.recipe["recipe"]["imported"]["file"] == "out.pkl"
    assert set(store.recipe["fingerprints"]) == {"text", "audio", "vision"}
    features = store.read("audio", store.ids("audio")[0])
    assert features.columns[:2] == ("audio_0", "audio_1")
    assert np.isnan(features.times).all()
    plans = survey(tmp_path / "F").plan.stages
    assert {name: (len(plan.done), len(plan.failed)) for name, plan in plans.items()} == {
        "text": (20, 1),
        "audio": (21, 0),
        "vision": (20, 1),
    }
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "a.mp4").touch()
    with pytest.raises(InputError, match=r"imported from out\.pkl"):
        prepare(videos, tmp_path / "F")
    with pytest.raises(InputError, match="have no times"):
        export_csd(store, tmp_path / "csd")


def test_repeated_import_changes_nothing(exported, data, tmp_path):
    import_mmsa(exported, tmp_path / "F")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "F").rglob("*.h5")}
    import_mmsa(exported, tmp_path / "F")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "F").rglob("*.h5")} == before


def test_import_into_a_folder_of_another_file_is_refused(exported, data, tmp_path):
    import_mmsa(exported, tmp_path / "F")
    data["train"]["audio"][0, 0, 0] += 1
    with pytest.raises(InputError, match="already holds other features"):
        import_mmsa(save(tmp_path / "other.pkl", data), tmp_path / "F")


def small(count=3, with_lengths=True):
    random = np.random.default_rng(1)
    part = {
        "id": [f"{count}$_${k}" for k in range(count)],
        "raw_text": [f"句{k}" for k in range(count)],
        "regression_labels": np.linspace(-1, 1, count),
        "text": random.normal(size=(count, 6, 10)),
        "audio": random.normal(size=(count, 9, 5)),
        "vision": random.normal(size=(count, 7, 4)),
    }
    return part | ({"audio_lengths": [9] * count, "vision_lengths": [7] * count} if with_lengths else {})


def test_other_data_sets_are_imported(tmp_path):
    """Other columns, no lengths, no tokens, padding in front, infinities, labels up to 3."""
    data = {name: small(count, with_lengths=False) for name, count in SPLITS.items()}
    for part in data.values():
        part["regression_labels"] = part["regression_labels"][:, None][:, 0] * 3
        part["audio"][:, :4] = 0
        part["vision"][:, 5:] = 0
        part["audio"][0, 5, 1] = -np.inf
    file = save(tmp_path / "mosi.pkl", data)
    with pytest.raises(InputError, match=r"outside \[-2, 2\]; name their range by --label-range LOW HIGH"):
        import_mmsa(file, tmp_path / "F", label_range=(-2, 2))
    done = import_mmsa(file, tmp_path / "F", label_range=(-3, 3))
    assert done.widths == {"text": 10, "audio": 5, "vision": 4}
    assert any("not finite" in note for note in done.notes)
    store = FeatureStore(tmp_path / "F")
    assert len(store.read("audio", "12$_$1")) == 5
    assert len(store.read("vision", "12$_$1")) == 5
    assert len(store.read("text", "12$_$1")) == 6
    np.testing.assert_array_equal(
        store.read("audio", "12$_$1").values, data["train"]["audio"][1, 4:].astype("f4")
    )
    assert store.read("audio", "12$_$0").values[1, 1] == 0
    assert load(store).labels[:, 0].max() == 1
    assert max(clip.label for clip in store.manifest.clips) == 3
    assert store.label_range == (-3, 3)
    assert np.isnan(load(store).labels[:, 1:]).all()
    export_mmsa(store, tmp_path / "out.pkl")
    assert "text_bert" not in pickle.loads((tmp_path / "out.pkl").read_bytes())["train"]


def column_labels(part):
    part["regression_labels"] = part["regression_labels"][:, None]


def labels_of_mult(part):
    part["labels"] = part.pop("regression_labels")[:, None, None]


def ragged_lists(part):
    for modality in ("audio", "vision"):
        part[modality] = [rows[: 3 + number % 3] for number, rows in enumerate(part[modality])]


def ragged_objects(part):
    ragged_lists(part)
    for modality in ("audio", "vision"):
        rows = np.empty(len(part["id"]), dtype=object)
        rows[:] = part[modality]
        part[modality] = rows


def tensors(part):
    for key in ("text", "audio", "vision", "regression_labels"):
        part[key] = torch.from_numpy(part[key])


def slashes(part):
    part["id"] = [identity.replace("$_$", "/") for identity in part["id"]]


def ids_of_bytes(part):
    part["id"] = np.array([identity.encode() for identity in part["id"]])[:, None]
    part["raw_text"] = [text.encode() for text in part["raw_text"]]


def ids_in_parts(part):
    part["id"] = np.array([identity.split("$_$") for identity in part["id"]], dtype=object)


def ordered(part):
    pass


CHANGES = [
    column_labels, labels_of_mult, ragged_lists, ragged_objects, tensors, slashes, ids_of_bytes, ids_in_parts, ordered
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("protocol", [2, 4])
def test_published_layouts_are_imported(tmp_path, change, protocol):
    data = {name: small(count, with_lengths=False) for name, count in SPLITS.items()}
    expected = pickle.loads(pickle.dumps(data))
    for part in data.values():
        change(part)
    given = (
        OrderedDict((name, OrderedDict(part)) for name, part in data.items()) if change is ordered else data
    )
    file = tmp_path / "given.pkl"
    file.write_bytes(pickle.dumps(given, protocol))
    import_mmsa(file, tmp_path / "F")
    store = FeatureStore(tmp_path / "F")
    assert len(store.manifest.clips) == sum(SPLITS.values())
    for part in expected.values():
        for number, identity in enumerate(part["id"]):
            length = 3 + number % 3 if "ragged" in change.__name__ else None
            for modality in ("text", "audio", "vision"):
                rows = part[modality][number][: length if modality != "text" else None]
                np.testing.assert_allclose(store.read(modality, identity).values, rows, rtol=1e-6)
    by_id = {clip.id: clip for clip in store.manifest.clips}
    for part in expected.values():
        for identity, label, text in zip(
            part["id"], part["regression_labels"], part["raw_text"], strict=True
        ):
            assert by_id[identity].label == pytest.approx(label)
            assert by_id[identity].text == text


def test_rows_beyond_their_length_are_imported(tmp_path):
    data = {name: small(count) for name, count in SPLITS.items()}
    data["train"]["audio_lengths"][1] = 4
    data["train"]["vision"][2, 3] = 0
    import_mmsa(save(tmp_path / "x.pkl", data), tmp_path / "F")
    store = FeatureStore(tmp_path / "F")
    assert len(store.read("audio", "12$_$1")) == 9
    assert store.read("vision", "12$_$2").valid.tolist() == [True] * 3 + [False] + [True] * 3


def spoil(change):
    data = {name: small(count) for name, count in SPLITS.items()}
    change(data)
    return data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: data.pop("valid"),
            "a dict of train, valid and test; the file holds a dict of train, test",
        ),
        (lambda data: data["train"].pop("audio"), "train has no audio"),
        (lambda data: data["test"].update(text=[1]), "test: text is not an array of numbers of three"),
        (lambda data: data["test"].update(id=["a"]), r"test: text has shape \(4, 6, 10\) for 1 ids"),
        (lambda data: data["valid"].update(id=data["train"]["id"][:5]), "is used 2 times"),
        (lambda data: data["train"]["id"].__setitem__(0, "a/b/c"), r"id 'a\$_\$b/c': an id must not"),
        (lambda data: data["train"].update(audio_lengths=[1]), "audio_lengths has 1 entries for 12 ids"),
        (lambda data: data["train"].update(regression_labels_T=["x"] * 12), "regression_labels_T is not 12"),
        (lambda data: data["train"].update(text_bert=np.zeros((12, 4))), r"text_bert has shape \(12, 4\)"),
        (lambda data: data["test"].update(audio=np.zeros((4, 9, 6))), "audio has 5 and 6 columns"),
    ],
)
def test_other_layouts_are_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        import_mmsa(save(tmp_path / "x.pkl", spoil(change)), tmp_path / "F")
    assert not (tmp_path / "F").exists()


def test_pickled_list_is_refused(tmp_path):
    with pytest.raises(InputError, match="the file holds list"):
        import_mmsa(save(tmp_path / "x.pkl", [1]), tmp_path / "F")


def test_split_without_clips_is_refused(tmp_path):
    make_folder(tmp_path / "F", {"train": 3, "valid": 0, "test": 2})
    with pytest.raises(InputError, match="no clip of split valid"):
        export_mmsa(FeatureStore(tmp_path / "F"), tmp_path / "x.pkl")


# ---- any stages as the three streams


@pytest.fixture
def speech(folder):
    """The store with one more stage, `speech`: rows of 16 columns, no extras."""
    store = FeatureStore(folder)
    store.recipe["fingerprints"]["speech"] = "f" * 64
    ids, read, frame_rate = store.ids, store.read, store.frame_rate

    def read_speech(clip_id):
        count = 5 + int(clip_id[2:6]) % 3
        values = np.full((count, 16), count, np.float32)
        times = np.arange(count) / 50
        return Features(values, tuple(f"h_{k}" for k in range(16)), ("",) * 16, times, np.ones(count, bool))

    store.ids = lambda stage: ids("audio") if stage == "speech" else ids(stage)
    store.read = lambda stage, clip: read_speech(clip) if stage == "speech" else read(stage, clip)
    store.frame_rate = lambda stage, clip: 50.0 if stage == "speech" else frame_rate(stage, clip)
    return store


def test_mmsa_keys_stay_whatever_stages_fill_them(speech, tmp_path):
    done = export_mmsa(speech, tmp_path / "out.pkl", Streams(audio="speech", vision="audio"))
    assert list(done.lengths) == ["text", "audio", "vision"]
    part = pickle.loads((tmp_path / "out.pkl").read_bytes())["train"]
    assert (part["audio"].shape[2], part["vision"].shape[2]) == (16, 33)
    assert "text_bert" in part
    for row, clip_id in enumerate(part["id"]):
        assert part["audio_lengths"][row] == len(speech.read("speech", clip_id))
        values = speech.read("audio", clip_id).values
        np.testing.assert_array_equal(part["vision"][row, : len(values)], values)
    assert any("unvoiced" in note for note in done.notes)


def test_text_stream_without_input_ids_has_no_text_bert(speech, tmp_path):
    done = export_mmsa(speech, tmp_path / "out.pkl", Streams(text="speech"))
    assert "no text_bert: the stage speech has no input ids" in done.notes
    part = pickle.loads((tmp_path / "out.pkl").read_bytes())["train"]
    assert part["text"].shape[2] == 16
    assert "text_bert" not in part
    import_mmsa(tmp_path / "out.pkl", tmp_path / "F")
    assert FeatureStore(tmp_path / "F").read("text", part["id"][0]).values.shape[1] == 16


def test_csd_files_are_named_after_the_stages(speech, tmp_path):
    done = export_csd(speech, tmp_path / "csd", Streams(audio="speech"))
    assert list(done) == ["text", "speech", "vision", "labels"]
    with h5py.File(tmp_path / "csd" / "speech.csd") as file:
        assert len(file["speech/data"]) == done["speech"] == 21
        entry = file["speech/data"][speech.ids("audio")[0]]
        np.testing.assert_allclose(entry["intervals"][:, 0], np.arange(len(entry["features"])) / 50)


@pytest.mark.parametrize("export", [export_mmsa, export_csd])
def test_unknown_stage_is_refused_with_the_known_ones(folder, tmp_path, export):
    with pytest.raises(InputError, match=r"--vision faces: unknown stage in .*; choose from text, audio"):
        export(FeatureStore(folder), tmp_path / "out", Streams(vision="faces"))


def test_stage_options_of_the_export_command(folder, tmp_path):
    found = call("export", folder, "--to", "mmsa", tmp_path / "a.pkl", "--text", "audio", "--vision", "audio")
    assert "note: no text_bert: the stage audio has no input ids" in found.output
    part = pickle.loads((tmp_path / "a.pkl").read_bytes())["test"]
    assert [part[key].shape[2] for key in ("text", "audio", "vision")] == [33, 33, 33]


def test_csd_files_hold_the_features_and_times(folder, tmp_path):
    done = export_csd(FeatureStore(folder), tmp_path / "csd")
    assert done == {"text": 20, "audio": 21, "vision": 20, "labels": 21}
    store = FeatureStore(folder)
    labels = {clip.id: clip for clip in store.manifest.clips}
    for name in done:
        with h5py.File(tmp_path / "csd" / f"{name}.csd") as file:
            assert list(file) == [name]
            metadata = {key: json.loads(value[0]) for key, value in file[name]["metadata"].items()}
            assert metadata["root name"] == name
            entries = file[name]["data"]
            assert len(entries) == done[name]
            assert len(metadata["dimension names"]) == next(iter(entries.values()))["features"].shape[1]
            for clip_id, entry in entries.items():
                intervals, values = entry["intervals"][...], entry["features"][...]
                assert intervals.shape == (len(values), 2)
                assert (intervals[:, 0] < intervals[:, 1]).all()
                assert (intervals[1:, 0] >= intervals[:-1, 1]).all()
                if name == "labels":
                    clip = labels[clip_id]
                    expected = [[clip.label, clip.label_T, clip.label_A, clip.label_V]]
                    np.testing.assert_allclose(values, expected, rtol=1e-6)
                    continue
                features = store.read(name, clip_id)
                np.testing.assert_array_equal(values, features.values)
                if name != "text":
                    np.testing.assert_array_equal(intervals[:, 0], features.times)
                    np.testing.assert_allclose(
                        np.diff(intervals), 1 / store.frame_rate(name, clip_id), rtol=1e-9
                    )


def test_export_and_import_commands(folder, exported, tmp_path):
    found = call("export", folder, "--to", "mmsa", tmp_path / "a.pkl")
    assert "12 train, 5 valid, 4 test clips" in found.output
    assert (tmp_path / "a.pkl").read_bytes() == exported.read_bytes()
    assert (
        "12 train, 5 valid, 4 test clips of 768 text" in call("import", exported, "-o", tmp_path / "F").output
    )
    assert "21 clips" in call("export", folder, "--to", "csd", tmp_path / "csd").output
