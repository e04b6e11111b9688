"""Transcripts written as files for people, a file a clip and a file a recording, and read back after correction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from triptych.extractors.asr.heard import joined_text
from triptych.extractors.base import Features
from triptych.pipeline.atomic import write_whole
from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import Clip, Manifest
from triptych.pipeline.manifest.transcripts import (
    TimedText,
    clip_stem,
    read_transcript,
    timed_pieces,
    timed_transcript,
)
from triptych.pipeline.transcribing.timed_files import WRITERS, Format

ENDINGS = (".srt", ".vtt", ".TextGrid", ".textgrid", ".txt")
SHORTEST = 0.05  # of a piece, so that it can be assigned when it is read [s]
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
    names = _file_names(manifest)
    by_file: dict[Path, list[TimedText]] = {}
    lengths: dict[Path, float] = {}
    for clip in manifest.clips:
        if not clip.text:
            continue
        path = folder / f"{names[clip.id]}.{form}"
        start, end = _times(clip, heard.get(clip.id))
        by_file.setdefault(path, []).append(TimedText(start, max(end, start + SHORTEST), clip.text))
        lengths[path] = max(lengths.get(path, 0.0), end, (clip.span or (0.0,))[0] + _length(clip))
    for path, pieces in by_file.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        content = WRITERS[form](sorted(pieces), lengths[path])
        write_whole(path, content.encode("utf-8", "surrogatepass"))
    return list(by_file)


def read_files(manifest: Manifest, folder: Path) -> dict[str, str]:
    """Read corrected transcripts: by clip, or by recording, whose pieces go to the clips that they are in.

    Returns
    -------
    dict of str to str
        By clip; the manifest's own text where the file has it as it would be written.

    Raises
    ------
    InputError
        The folder has no file for any clip, or a file cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: folder not found; name one that `triptych transcribe --to` wrote")
    names, stems = _file_names(manifest), Counter(_stem(clip) for clip in manifest.clips)
    found: dict[Path, list[Clip]] = {}
    for clip in manifest.clips:
        wanted = [_own_name(clip), names[clip.id]]
        if clip.span is None and stems[_stem(clip)] == 1:
            wanted.append(_stem(clip))
        if (path := _file(folder, wanted)) is not None:
            found.setdefault(path, []).append(clip)
    if not found:
        raise InputError(
            f"{folder}: has no transcript of a clip; expected files such as {names[manifest.clips[0].id]}.srt"
        )
    texts = {}
    for path, clips in found.items():
        for clip, text in zip(clips, _texts(path, clips), strict=True):
            same = text.split() == _as_read(clip.text or "", path.suffix).split()
            texts[clip.id] = clip.text or "" if same else text
    return texts


def _texts(path: Path, clips: Sequence[Clip]) -> list[str]:
    """Read one file: all of it for one clip, or for each clip the pieces that fit its span best of all."""
    if len(clips) == 1 and (clips[0].span is None or path.suffix == ".txt"):
        return [read_transcript(path)]
    inside: list[list[str]] = [[] for _ in clips]
    for piece in timed_transcript(path):
        fits = [_fit(piece, clip) for clip in clips]
        if max(fits) > 0:
            inside[fits.index(max(fits))].append(piece.text)
    return [joined_text(texts) for texts in inside]


def _fit(piece: TimedText, clip: Clip) -> float:
    """Return what a piece and a span have in common, as a share of both; 0 where most of the piece is elsewhere.

    Spans may overlap, and one may lie in another.
    """
    start, end = clip.span or (0.0, None)
    end = max(piece.end, start) if end is None else end
    common = min(piece.end, end) - max(piece.start, start)
    if common <= (piece.end - piece.start) / 2:
        return 0.0
    return common / (max(piece.end, end) - min(piece.start, start))


def _as_read(text: str, ending: str) -> str:
    """Return a text as it is read from a file that it was written to: subtitles have no sign for ``<b>`` itself."""
    forms = {f".{form}".lower(): form for form in WRITERS}
    if ending.lower() not in forms or not text:
        return text
    content = WRITERS[forms[ending.lower()]]([TimedText(0.0, 1.0, text)], 1.0)
    return " ".join(piece.text for piece in timed_pieces(content, ending))


def _file(folder: Path, names: Sequence[str]) -> Path | None:
    found = (folder / f"{name}{ending}" for name in names for ending in ENDINGS)
    return next((path for path in found if path.is_file()), None)


def _file_names(manifest: Manifest) -> dict[str, str]:
    """Name the file of each clip: its own, or that of its recording where all spans of that name are of one file."""
    files: dict[str, set[Path]] = {}
    for clip in manifest.clips:
        if clip.span is not None:
            files.setdefault(clip.id.partition("$_$")[0], set()).add(clip.file)
    shared = {name for name, paths in files.items() if len(paths) == 1}
    return {
        clip.id: _safe(name)
        if clip.span is not None and (name := clip.id.partition("$_$")[0]) in shared
        else _own_name(clip)
        for clip in manifest.clips
    }


def _own_name(clip: Clip) -> str:
    return "/".join(_safe(part) for part in clip.id.split("$_$"))


def _safe(part: str) -> str:
    """Return a part of an id as the name of a file in the folder, and nowhere else."""
    return f"_{part}" if part in ("", ".", "..") else part


def _stem(clip: Clip) -> str:
    return clip_stem(Path(clip.path).stem)


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
