"""Decoding through files: the ffmpeg program writes frames and sound, which are then read."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def find_ffmpeg(named: str | None) -> str:
    """The program named, the one on PATH, or the one that imageio-ffmpeg brings."""
    if found := named or shutil.which("ffmpeg"):
        return found
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
    except ImportError:
        raise SystemExit(
            "no ffmpeg on PATH: install it, or imageio-ffmpeg, or name it after --ffmpeg"
        ) from None
    return get_ffmpeg_exe()


def write_files(ffmpeg: str, clip: Path, folder: Path) -> None:
    """Write 30 frames a second and the sound at 22,050 Hz, mono."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    words = ["-loglevel", "error", "-threads", "1", "-i", clip.absolute(), "-filter_threads", "1"]
    frames = ["-map", "0:v:0", "-vf", "fps=30", "-threads", "1", folder / "%06d.png"]
    sound = ["-map", "0:a:0", "-ac", "1", "-ar", "22050", folder / "sound.wav"]
    subprocess.run([ffmpeg, *map(str, words + frames + sound)], check=True, stdin=subprocess.DEVNULL)


def stored_frames(folder: Path) -> Iterator[NDArray[np.uint8]]:
    for path in sorted(folder.glob("*.png")):
        yield np.asarray(Image.open(path).convert("RGB"))
