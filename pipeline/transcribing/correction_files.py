"""Transcripts written as files for people, a file a clip and a file a recording, and read back after correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from triptych.extractors.base import Features
from triptych.pipeline.atomic import write_whole
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import Clip, Manifest
from triptych.pipeline.manifest.transcripts import TimedText, read_transcript, timed_transcript
from triptych.pipeline.transcribing.texts import text_in
from triptych.pipeline.transcribing.timed_files import WRITERS, Format

ENDINGS = (".srt", ".vtt", ".TextGrid", ".textgrid", ".txt")
UNKNOWN_LENGTH = 10.0  # of a clip whose file cannot be opened [s]


def write_files(manifest: Manifest, heard: Mapping[str, Features], form: Format, folder: Path) -> list[Path]:
    """Write the transcripts of all clips that have one.

    Clips that are files get a file each, ``<video>/<clip>.<ending>``; clips that are spans share the file of their
    recording, ``<recording>.<ending>``, on the recording's clock.

    Parameters
    ----------
    heard
        Rows of the stage `asr`, by clip, where the transcript is the recogniser's.
    """
    by_file: dict[Path, list[TimedText]] = {}
    lengths: dict[Path, float] = {}
    for clip in manifest.clips:
        if not clip.text:
            continue
        path = folder / f"{_name(clip)}.{form}"
        start, end = _times(clip, heard.get(clip.id))
        by_file.setdefault(path, []).append(TimedText(start, end, clip.text))
        lengths[path] = max(lengths.get(path, 0.0), end, _length(clip))
    for path, pieces in by_file.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        content = WRITERS[form](sorted(pieces), lengths[path])
        write_whole(path, content.encode("utf-8", "surrogatepass"))
    return list(by_file)


def read_files(manifest: Manifest, folder: Path) -> dict[str, str]:
    """Read corrected transcripts: by clip, or by recording, whose pieces go to the clips that they are in.

    Raises
    ------
    InputError
        The folder has no file for any clip, or a file cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: folder not found; name one that `triptych transcribe --to` wrote")
    texts: dict[str, str] = {}
    recordings: dict[str, Sequence[TimedText]] = {}
    for clip in manifest.clips:
        if (own := _file(folder, clip.id.replace("$_$", "/"))) is not None:
            texts[clip.id] = read_transcript(own)
        elif clip.span is not None and (shared := _file(folder, _name(clip))) is not None:
            key = str(shared)
            if key not in recordings:
                recordings[key] = timed_transcript(shared)
            start, end = clip.span
            texts[clip.id] = text_in(recordings[key], start, float("inf") if end is None else end)
    if not texts:
        raise InputError(
            f"{folder}: has no transcript of a clip; expected files such as {_name(manifest.clips[0])}.srt"
        )
    return texts


def _file(folder: Path, name: str) -> Path | None:
    found = (folder / f"{name}{ending}" for ending in ENDINGS)
    return next((path for path in found if path.is_file()), None)


def _name(clip: Clip) -> str:
    return clip.id.replace("$_$", "/") if clip.span is None else clip.id.partition("$_$")[0]


def _times(clip: Clip, rows: Features | None) -> tuple[float, float]:
    """Return when a clip's words are spoken, on the clock of its file [s]."""
    zero = clip.span[0] if clip.span else 0.0
    if rows is not None:
        return zero + float(rows.values[0, 0]), zero + float(rows.values[:, 1].max())
    return zero, zero + _length(clip)


def _length(clip: Clip) -> float:
    from triptych.extractors.base import ExtractionError
    from triptych.extractors.media.opening import opened

    start, end = clip.span or (0.0, None)
    if end is not None:
        return end - start
    try:
        with opened(clip.file) as container:
            return max((container.duration or 0) / 1_000_000 - start, 0.1)
    except (ExtractionError, OSError):
        return UNKNOWN_LENGTH
