"""Shards with a right checksum that read other files or claim more than they hold: refused at once, nothing is read."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from shard_cases import make_header, make_items
from test_shards import rewrite, seal, write

from triptych.pipeline.storage.index import FeatureIndex
from triptych.pipeline.storage.schema import ShardError, shard_name
from triptych.pipeline.storage.shard_reader import CheckedShard, Shard
from triptych.pipeline.storage.shards import verify_shard, write_shard

MANY = 30_000_000


def external_link(file, other):
    del file["times"]
    file["times"] = h5py.ExternalLink(str(other), "/times")


def soft_link(file, other):
    file.move("times", "elsewhere")
    file["times"] = h5py.SoftLink("/elsewhere")


def external_storage(file, other):
    times = file["times"][...]
    del file["times"]
    raw = other.with_suffix(".raw")
    raw.write_bytes(times.tobytes())
    file.create_dataset("times", times.shape, "f8", external=[(str(raw), 0, times.nbytes)])


def virtual(file, other):
    shape = file["times"].shape
    del file["times"]
    layout = h5py.VirtualLayout(shape, "f8")
    layout[:] = h5py.VirtualSource(str(other), "times", shape)
    file.create_virtual_dataset("times", layout)


def group(file, other):
    del file["times"]
    file.create_group("times")


def filtered(**options):
    def change(file, other):
        times = file["times"][...]
        del file["times"]
        file.create_dataset("times", data=times, chunks=times.shape, **options)

    return change


def foreign_filter(file, other):
    """A filter that HDF5 would look for as a library in HDF5_PLUGIN_PATH."""
    times = file["times"]
    shape = times.shape
    del times, file["times"]
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk(shape)
    properties.set_filter(32_999, h5py.h5z.FLAG_OPTIONAL, (1,))
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, b"times", h5py.h5t.IEEE_F64LE, space, properties)


def claims_rows(file, other):
    """3e7 rows of which not one is stored."""
    for name in ("values", "times", "valid", "voiced"):
        old = file[name]
        options = {"dtype": old.dtype, "chunks": (1000, *old.shape[1:]), "fletcher32": True}
        shape = (MANY, *old.shape[1:])
        del file[name]
        file.create_dataset(name, shape, **options)
    file["values"].dims[1].attach_scale(file["columns"])
    offsets = file["offsets"]
    offsets[-1] = MANY


def claims_one_chunk(file, other):
    """A chunk of 1 GB for nine rows."""
    times = file["times"][...]
    del file["times"]
    file.create_dataset("times", times.shape, "f8", chunks=(2**27,), maxshape=(None,))


def claims_clips(file, other):
    del file["clip_id"]
    file.create_dataset("clip_id", (MANY,), h5py.string_dtype(), chunks=(1000,))


def attribute_array(file, other):
    file.attrs["backend"] = np.arange(5)


CHANGES = {
    "a link to another place": [external_link, soft_link],
    "in another file": [external_storage],
    "a virtual dataset": [virtual],
    "not a dataset": [group],
    "filter 1;": [filtered(compression="gzip")],
    "filter 2;": [filtered(shuffle=True)],
    "filter 32000;": [filtered(compression="lzf")],
    "filter 32999;": [foreign_filter],
    "claims [0-9]+ bytes and stores": [claims_rows, claims_one_chunk, claims_clips],
    "not a single value": [attribute_array],
}
CASES = [(change, words) for words, changes in CHANGES.items() for change in changes]


@pytest.fixture
def hostile(tmp_path):
    """Return a function that changes a shard in a feature folder, and seals it again."""

    def make(change):
        other = write(tmp_path / "other")
        return rewrite(write(tmp_path / "features" / "audio"), lambda file: change(file, other))

    return make


@pytest.mark.parametrize(("change", "words"), CASES, ids=lambda each: getattr(each, "__name__", ""))
def test_a_shard_that_reaches_out_or_claims_too_much_is_refused_at_once(hostile, tmp_path, change, words):
    path = seal_as_named(hostile, change)
    start = time.perf_counter()
    with pytest.raises(ShardError, match=words):
        Shard(path)
    problems = verify_shard(path)
    assert time.perf_counter() - start < 0.5
    assert len(problems) == 1
    assert str(path) in problems[0]
    with FeatureIndex(tmp_path / "features") as index:
        assert list(index.damaged) == [path]


def seal_as_named(hostile, change):
    """Make the hostile shard. Where its ids cannot be read for its name, its name is any."""
    if change is not claims_clips:
        return hostile(change)
    path = hostile(lambda file, other: None)
    with h5py.File(path, "r+") as file:
        change(file, None)
    seal(path)
    return path


def test_strings_that_share_their_bytes_do_not_fill_the_memory(tmp_path):
    """40,000 tokens of 1 MB each, all of them the same bytes of the file."""
    path = write_shard(tmp_path / "text", make_header("text"), make_items("text", (40_000,)))
    with h5py.File(path, "r+") as file:
        file["tokens"][0] = "x" * 2**20
    content = bytearray(path.read_bytes())
    with h5py.File(path, "r") as file:
        chunks = [file["tokens"].id.get_chunk_info(k) for k in range(file["tokens"].id.get_num_chunks())]
    start = chunks[0].byte_offset
    long_one = bytes(content[start : start + 16])
    for chunk in chunks:
        content[chunk.byte_offset : chunk.byte_offset + chunk.size] = long_one * (chunk.size // 16)
    path.write_bytes(content)
    seal(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (problem,) = verify_shard(path)
    assert "its strings are longer than the file" in problem
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 3 * 2**20  # kB


def test_the_store_refuses_a_claim_too(hostile):
    with pytest.raises(ShardError, match="more than the file has"):
        CheckedShard(hostile(claims_rows), "audio")


VERIFY = "from triptych.pipeline.cli.main import main; main()"


def test_verify_names_a_hostile_shard_in_a_second_of_its_own(hostile, tmp_path):
    path = hostile(claims_rows)
    assert path.stat().st_size < 60_000
    (tmp_path / "features" / "recipe.json").write_text('{"recipe": {}, "fingerprints": {}}')
    done = subprocess.run(
        [sys.executable, "-c", VERIFY, "verify", str(tmp_path / "features")],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (20, 20)),
    )
    assert done.returncode == 4, done.stderr
    assert "claims" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_that_follows_from_the_content_makes_no_difference(tmp_path):
    """The fixtures above are not refused for their name or their checksum."""
    path = rewrite(write(tmp_path), lambda file: None)
    assert verify_shard(path) == []
    assert path.name == shard_name(make_header("audio").fingerprint, clips(path))
    assert hashlib.sha256(path.read_bytes()[512:]).hexdigest().encode() in path.read_bytes()[:512]


def clips(path):
    with Shard(path) as shard:
        return list(zip(shard.ids, shard.digests, strict=True))
