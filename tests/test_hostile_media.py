"""Small files that claim hours of sound, millions of frames or huge images: a typed reason, and little memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest

from triptych.extractors.base import ExtractionError, Reason
from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings

READ = """
import json, resource, sys
from triptych.extractors.base import ExtractionError
from triptych.extractors.media.source import MediaSource
from triptych.extractors.settings import MediaSettings
# Not ru_maxrss, which counts the memory of the process that started this one.
peak = lambda: int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) // 1024
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
source, before, outcome = MediaSource(sys.argv[1], MediaSettings()), peak(), "read"
try:
    sys.argv[2] == "sound" and source.waveform() is None or sum(1 for _ in source.frames())
except ExtractionError as error:
    outcome = error.reason
print(json.dumps([outcome, peak() - before]))
"""


def read_alone(path, kind):
    """Read a file in a process of its own under a limit of 4 GB: what came of it, and the memory that it took [MB]."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path), kind], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wav(rate, samples):
    form = struct.pack("<IHHIIHH", 16, 1, 1, rate, rate, 1, 8)
    return (
        b"RIFF" + struct.pack("<I", 36 + samples) + b"WAVEfmt " + form
        + b"data" + struct.pack("<I", samples) + bytes([128]) * samples
    )  # fmt: skip


def png(width, height):
    """A PNG of one colour: a thousandth of its pixels in bytes."""
    rows = (b"\0" * (width + 1)) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def mux(path, packets, stated=(64, 64)):
    """Write PNG images as the packets of a QuickTime file: (time [s], image) each; the header states any size."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=30)
        stream.width, stream.height, stream.pix_fmt = *stated, "gray"
        stream.time_base = Fraction(1, 1000)
        for time, image in packets:
            packet = av.Packet(image)
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = time * 1000
            container.mux(packet)
    return path


def sound_with_a_hole(path, seconds):
    """Two blocks of sound, the second one hours later; the hole is silence."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for start in (0, seconds):
            block = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.int16), "s16", "mono")
            block.sample_rate, block.pts, block.time_base = 8000, start * 8000, Fraction(1, 8000)
            container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    return path


def test_nine_kilobytes_do_not_become_hours_of_sound(tmp_path):
    (tmp_path / "slow.wav").write_bytes(wav(1, 9000))
    assert read_alone(tmp_path / "slow.wav", "sound") == [Reason.UNDECODABLE, pytest.approx(0, abs=64)]
    path = sound_with_a_hole(tmp_path / "hole.mkv", 4 * 3600 - 60)
    assert path.stat().st_size < 20_000
    outcome, memory = read_alone(path, "sound")
    assert (outcome, memory < 100) == (Reason.TOO_LONG, True)


@pytest.mark.parametrize("rate", [1, 999])
def test_a_rate_that_nothing_records_is_refused(tmp_path, rate):
    (tmp_path / "slow.wav").write_bytes(wav(rate, 3000))
    with pytest.raises(ExtractionError, match=f"{rate} samples a second") as caught:
        MediaSource(tmp_path / "slow.wav", MediaSettings()).waveform()
    assert caught.value.reason is Reason.UNDECODABLE


def test_a_low_rate_is_read(tmp_path):
    (tmp_path / "low.wav").write_bytes(wav(1000, 3000))
    assert len(MediaSource(tmp_path / "low.wav", MediaSettings()).waveform()) == 3 * 22050


def test_two_images_do_not_become_hours_of_frames(tmp_path):
    path = mux(tmp_path / "clip.mov", [(0, png(64, 64)), (4 * 3600 - 60, png(64, 64))])
    assert path.stat().st_size < 2_000
    source = MediaSource(path, MediaSettings())
    with pytest.raises(ExtractionError, match=r"a file of [0-9]+ bytes holds at most 600 s") as caught:
        for _ in source.frames():
            pass
    assert caught.value.reason is Reason.TOO_LONG


def test_ten_minutes_are_read_from_a_file_of_any_size(tmp_path):
    path = mux(tmp_path / "clip.mov", [(0, png(64, 64)), (590, png(64, 64))])
    assert sum(1 for _ in MediaSource(path, MediaSettings(frame_rate=1)).frames()) == 590
    path = sound_with_a_hole(tmp_path / "hole.mkv", 590)
    assert len(MediaSource(path, MediaSettings(sample_rate=8000)).waveform()) == pytest.approx(
        590.5 * 8000, abs=8
    )


def test_an_image_of_192_million_pixels_is_refused_before_it_is_converted(tmp_path):
    path = mux(tmp_path / "clip.mov", [(0, png(16_000, 12_000))], stated=(16_000, 12_000))
    outcome, memory = read_alone(path, "frames")
    assert (outcome, memory < 400) == (Reason.TOO_LARGE, True)


def test_an_image_that_is_larger_than_the_header_states_is_refused(tmp_path):
    path = mux(tmp_path / "clip.mov", [(0, png(64, 64)), (1, png(16_000, 12_000))])
    outcome, memory = read_alone(path, "frames")
    assert memory < 100
    assert outcome in (
        Reason.TOO_LARGE,
        "read",
    )  # the first image is read; the second one is a corrupt packet


def test_frames_of_the_largest_size_take_a_bounded_memory(tmp_path):
    """docs/media.md states the bound: the cached frames, and what one decoder needs."""
    path = mux(tmp_path / "clip.mov", [(0, png(8192, 8192)), (1, png(8192, 8192))], stated=(8192, 8192))
    outcome, memory = read_alone(path, "frames")
    assert (outcome, memory < 512 + 8192 * 8192 * 12 / 2**20) == ("read", True)


def test_a_header_that_claims_a_billion_frames_takes_no_memory(tmp_path):
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width = stream.height = 64
        for _ in range(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        container.mux(stream.encode(None))
    data, many = bytearray(path.read_bytes()), 10**9
    struct.pack_into(">II", data, data.index(b"stsz") + 8, 1, many)
    struct.pack_into(">II", data, data.index(b"stts") + 8, 1, many)
    struct.pack_into(">III", data, data.index(b"stsc") + 12, 1, many, 1)
    path.write_bytes(data)
    outcome, memory = read_alone(path, "frames")
    assert outcome in (Reason.UNDECODABLE, Reason.TOO_LONG)
    assert memory < 100
