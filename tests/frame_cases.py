"""Generated clips of known frames and sound: containers, codecs, and faults of their time stamps."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from numbered_clips import joined, shifted, write_numbered

COUNT = 120  # frames, at 30 a second
WHOLE = tuple(range(COUNT))


@dataclass(frozen=True)
class Case:
    """A clip and what it holds.

    Attributes
    ----------
    make
        Writes the clip into a folder and returns its path.
    numbers
        The frames that must be shown, in this order; None where only their order is known.
    seconds
        Length of the sound; None where it is not known exactly, 0 for no sound.
    note
        A part of one of its notes; empty where it must have none.
    step
        By how much [s] sound and frames may be out of step, the padding of the sound's encoder included.
    quick
        In the default tests.
    """

    name: str
    make: Callable[[Path], Path]
    numbers: tuple[int, ...] | None = WHOLE
    seconds: float | None = COUNT / 30
    note: str = ""
    step: float = 0.05
    quick: bool = False


def plain(name: str, **options: Any) -> Callable[[Path], Path]:
    return lambda folder: write_numbered(folder / name, **options)


def dropped(keep: Callable[[int], bool]) -> Callable[[Any], Any]:
    """Leave out the video packets whose number `keep` refuses."""
    count = iter(range(10**6))

    def alter(packet: Any) -> Any:
        return packet if packet.stream.type != "video" or keep(next(count)) else None

    return alter


def variable(name: str, folder: Path) -> Path:
    options = {"g": "1", "bf": "0"}
    return write_numbered(folder / name, video_options=options, alter=dropped(lambda k: k % 4 != 2))


def stamped_back(folder: Path) -> Path:
    """Ten frames are stamped 0.2 s early."""
    numbers = iter(range(COUNT))

    def alter(packet: Any) -> Any:
        if packet.stream.type == "video":
            packet.dts -= round(0.5 / packet.time_base)
            if 60 <= next(numbers) < 70:
                packet.pts -= round(0.2 / packet.time_base)
        return packet

    return write_numbered(folder / "back.mkv", video="mjpeg", pixels="yuvj420p", alter=alter)


def hole(folder: Path) -> Path:
    """The sound pauses from 2 s to 3 s, and the header gives the file 1 s."""

    def alter(packet: Any) -> Any:
        if packet.stream.type == "audio" and 2 <= packet.pts * packet.time_base < 3:
            return None
        return packet

    return short_header(write_numbered(folder / "hole.mkv", alter=alter))


def short_header(path: Path) -> Path:
    """Let the header of a Matroska or FLV file say that it lasts 1 s."""
    data = bytearray(path.read_bytes())
    if path.suffix == ".flv":
        at = data.index(b"duration\x00") + 9
        data[at : at + 8] = struct.pack(">d", 1.0)
    else:
        at = data.index(b"\x44\x89\x88") + 3
        data[at : at + 8] = struct.pack(">d", 1000.0)
    path.write_bytes(data)
    return path


def late_sound_of_short_header(folder: Path) -> Path:
    return short_header(write_numbered(folder / "late.flv", audio="libmp3lame", rate=44100, sound=(2.0, 4.0)))


def parts(
    name: str, leaps: Sequence[float], longer: float = 0.0, audio: str | None = "aac", **options: Any
) -> Callable[[Path], Path]:
    """Return a maker of a recording in parts, whose stamps begin at `leaps` [s]; the first's sound is longer."""

    def make(folder: Path) -> Path:
        each = COUNT // len(leaps)
        files = []
        for number, leap in enumerate(leaps):
            begin = number * each / 30
            files.append(
                write_numbered(
                    folder / f"{number}-{name}",
                    first=number * each,
                    count=each,
                    audio=audio,
                    sound=(begin, begin + each / 30 + (longer if number == 0 else 0)),
                    alter=shifted(leap),
                    **options,
                )
            )
        return joined(folder / name, *files)

    return make


def silent_first_part(folder: Path) -> Path:
    silent = write_numbered(folder / "0.ts", count=60, audio=None, alter=shifted(20))
    return joined(folder / "k.ts", silent, write_numbered(folder / "1.ts", first=60, count=60))


def silent_last_part(folder: Path) -> Path:
    silent = write_numbered(folder / "1.ts", first=60, count=60, audio=None)
    return joined(folder / "l.ts", write_numbered(folder / "0.ts", count=60, alter=shifted(20)), silent)


def cut(name: str, share: float = 0.6, **options: Any) -> Callable[[Path], Path]:
    """Return a maker of a file of which only a part was copied."""

    def make(folder: Path) -> Path:
        path = write_numbered(folder / name, **options)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        return path

    return make


def two_programmes(folder: Path) -> Path:
    """The second programme has other frames, and stereo sound that FFmpeg prefers."""
    ids = {"mpegts_service_id": "2", "mpegts_pmt_start_pid": "0x1010", "mpegts_start_pid": "0x110"}
    one = write_numbered(folder / "one.ts", audio="mp2").read_bytes()
    other = write_numbered(
        folder / "other.ts", first=1000, sound=(9.0, 13.0), audio="mp2", layout="stereo", options=ids
    ).read_bytes()
    table = bytes.fromhex("00b011 0001c10000 0001f000 0002f010".replace(" ", ""))
    section = table + crc32_mpeg2(table).to_bytes(4, "big")
    pat = b"\x47\x40\x00\x10\x00" + section
    pat += b"\xff" * (188 - len(pat))
    packets = []
    streams = [[data[i : i + 188] for i in range(0, len(data), 188)] for data in (one, other)]
    for index in range(max(map(len, streams))):
        for stream in streams:
            for packet in stream[index : index + 1]:
                pid = int.from_bytes(packet[1:3], "big") & 0x1FFF
                if pid != 0x11:  # the table of services
                    packets.append(pat if pid == 0 else packet)
    path = folder / "two.ts"
    path.write_bytes(b"".join(packets))
    return path


def crc32_mpeg2(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ (0x04C11DB7 if register >> 31 else 0)) & 0xFFFFFFFF
    return register


MP3 = {"audio": "libmp3lame", "rate": 44100}
MP2 = {"audio": "mp2"}
OPUS = {"audio": "libopus"}
JUMP = "time stamps jump once, at 2.0 s"
CASES = (
    Case("mp4 h264 aac", plain("a.mp4"), quick=True),
    Case("mp4 h265 aac", plain("b.mp4", video="libx265", video_options={"x265-params": "log-level=none"})),
    Case("mp4 mpeg4 aac", plain("c.mp4", video="mpeg4")),
    Case("mp4 mpeg4 with B-frames", plain("d.mp4", video="mpeg4", video_options={"bf": "2"})),
    Case("mov prores pcm", plain("a.mov", video="prores_ks", pixels="yuv422p10le", audio="pcm_s16le")),
    Case("mov mjpeg pcm", plain("b.mov", video="mjpeg", pixels="yuvj420p", audio="pcm_s16le")),
    Case("mkv h264 aac", plain("a.mkv")),
    Case("mkv vp9 opus", plain("b.mkv", video="libvpx-vp9", **OPUS)),
    Case("mkv ffv1 flac", plain("c.mkv", video="ffv1", audio="flac")),
    Case(
        "mkv h265 ac3",
        plain("d.mkv", video="libx265", video_options={"x265-params": "log-level=none"}, audio="ac3"),
    ),
    Case("webm vp8 opus", plain("a.webm", video="libvpx", **OPUS)),
    Case("webm av1 opus", plain("b.webm", video="libsvtav1", **OPUS)),
    Case("avi mpeg4 mp3", plain("a.avi", video="mpeg4", **MP3)),
    Case("avi mjpeg pcm", plain("b.avi", video="mjpeg", pixels="yuvj420p", audio="pcm_s16le")),
    Case("avi h264 without B-frames", plain("c.avi", video_options={"bf": "0"}, **MP3), step=0.06),
    Case("flv h264 aac", plain("a.flv")),
    Case("flv flv1 mp3", plain("b.flv", video="flv", **MP3)),
    Case("ts h264 aac", plain("a.ts")),
    Case("ts h265 aac", plain("b.ts", video="libx265", video_options={"x265-params": "log-level=none"})),
    Case("ts mpeg2 mp2", plain("c.ts", video="mpeg2video", **MP2)),
    Case("mpg mpeg1 mp2", plain("a.mpg", video="mpeg1video", **MP2)),
    Case("mpg mpeg2 ac3", plain("b.mpg", video="mpeg2video", audio="ac3", format="vob")),
    Case("wmv wmv2 wma", plain("a.wmv", video="wmv2", audio="wmav2", rate=44100), step=0.06),
    Case("nut h264 flac", plain("a.nut", audio="flac")),
    Case("ogv vp8 opus", plain("a.ogv", video="libvpx", **OPUS)),
    Case("raw h264", plain("a.h264", audio=None, format="h264"), seconds=0),
    # Stamps that are made up, missing, uneven or late
    Case("avi h264 with B-frames", plain("e.avi", **MP3), step=0.09, quick=True),
    Case("asf h264 with B-frames", plain("e.wmv", audio="wmav2", rate=44100), step=0.09, quick=True),
    Case(
        "mp4 of variable rate", partial(variable, "v.mp4"), tuple(k for k in WHOLE if k % 4 != 2), quick=True
    ),
    Case("mkv of variable rate", partial(variable, "v.mkv"), tuple(k for k in WHOLE if k % 4 != 2)),
    Case("mkv with late frames", plain("f.mkv", sound=(-0.5, 4.0)), seconds=4.5),
    Case("mkv with late sound", plain("g.mkv", sound=(1.0, 4.0)), quick=True),
    Case("mkv whose stamps begin at 100 s", plain("h.mkv", alter=shifted(100))),
    Case("flv with late sound and a short header", late_sound_of_short_header, quick=True),
    Case("mkv with a hole in the sound and a short header", hole, quick=True),
    Case("mkv with stamps that go back", stamped_back, None, note="5 frames go back", step=0.25, quick=True),
    # Recordings in parts
    Case("ts joined, stamps begin again", parts("a.ts", (0, 0)), note=JUMP, quick=True),
    Case("ts joined, stamps leap by 35 s", parts("b.ts", (0, 37)), note=JUMP, quick=True),
    Case("ts joined, stamps leap by 1 h", parts("c.ts", (0, 3600)), note=JUMP),
    Case("ts in three parts", parts("d.ts", (50, 20, 90)), note="jump 2 times", quick=True),
    Case("ts of frames alone", parts("e.ts", (0, 0), audio=None), note=JUMP, seconds=0),
    Case("ts mpeg2 joined", parts("f.ts", (9, 0), video="mpeg2video", **MP2), note=JUMP),
    Case("mpg joined", parts("g.mpg", (9, 0), video="mpeg2video", **MP2), note=JUMP, quick=True),
    Case(
        "ts whose first sound is longer",
        parts("h.ts", (0, 0), longer=1.0),
        seconds=5.0,
        note="jump",
        quick=True,
    ),
    Case("ts with sound that overlaps", parts("i.ts", (1, 3), longer=1.0), note="jump", quick=True),
    Case("ts whose second part alone has sound", silent_first_part, note=JUMP, quick=True),
    Case("ts whose first part alone has sound", silent_last_part, note=JUMP, seconds=2.0),
    # Parts of files, and several programmes
    Case(
        "mp4 cut",
        cut("a.mp4", options={"movflags": "faststart"}),
        None,
        None,
        " s decoded",
        quick=True,
    ),
    Case("mkv cut", cut("b.mkv"), None, None, " s decoded", quick=True),
    Case("avi cut", cut("c.avi", video="mjpeg", pixels="yuvj420p"), None, None, " s decoded", quick=True),
    Case("flv cut", cut("d.flv"), None, None, " s decoded"),
    Case("ts with two programmes", two_programmes, quick=True),
    Case("ts interlaced", plain("j.ts", video_options={"x264-params": "tff=1"})),
)
