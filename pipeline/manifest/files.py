"""Media files on disk: which names are clips, walking through a folder, patterns."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.names import ending, stem
from triptych.pipeline.manifest.rows import some

logger = logging.getLogger(__name__)

VIDEO_ENDINGS = (
    *(".3g2", ".3gp", ".asf", ".avi", ".f4v", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv"),
)
AUDIO_ENDINGS = (".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma")
MEDIA_ENDINGS = (*VIDEO_ENDINGS, *AUDIO_ENDINGS)


def is_media(name: str) -> bool:
    """Return whether a file's name is that of a clip; hidden files are none."""
    return not name.startswith(".") and ending(name) in MEDIA_ENDINGS


def clips_among(names: Iterable[str], left_out: list[str]) -> list[str]:
    """Return the names of clips among the files of one folder.

    Sound beside a video of the same name was probably extracted from it, and is no clip: it is added to `left_out`.
    """
    media = [name for name in names if is_media(name)]
    videos = {stem(name) for name in media if ending(name) in VIDEO_ENDINGS}
    doubles = {name for name in media if stem(name) in videos and ending(name) in AUDIO_ENDINGS}
    left_out += sorted(doubles)
    return [name for name in media if name not in doubles]


def report_doubles(source: Path, left_out: Sequence[str]) -> None:
    """Log the files that `clips_among` left out."""
    if left_out:
        logger.warning(
            "%s: %d audio files beside a video of the same name are left out: %s",
            source,
            len(left_out),
            some(left_out),
        )


def absolute(path: str | Path) -> str:
    """Return the absolute path without ``..``; links are not resolved."""
    return os.path.abspath(path)  # noqa: PTH100 - Path.resolve would replace the links


def expanded(sources: Sequence[Path]) -> dict[Path, bool]:
    """Replace patterns such as ``clips/*.mp4`` by the files that they match; each path once.

    Returns
    -------
    dict of Path to bool
        In the order of the sources; whether a path was named itself.

    Raises
    ------
    InputError
        Paths that do not exist, and patterns that match nothing; all of them.
    """
    found: dict[str, Path] = {}
    named: set[str] = set()
    problems = []
    for source in sources:
        if os.path.lexists(source):
            found.setdefault(absolute(source), source)
            named.add(absolute(source))
            continue
        matches = _matches(str(source))
        for match in matches:
            found.setdefault(absolute(match), Path(match))
        if not matches:
            pattern = ", and as a pattern it matches nothing" if glob.has_magic(str(source)) else ""
            problems.append(f"{source}: file or folder not found{pattern}; check the path")
    if problems:
        raise InputError(problems)
    return {path: key in named for key, path in found.items()}


def _matches(pattern: str) -> list[str]:
    # Path.glob needs a folder to start from, and refuses absolute patterns.
    return sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else []  # noqa: PTH207


def walk(root: str, problems: list[str]) -> Iterator[tuple[Path, list[str]]]:
    """Yield folders with their sorted files, without hidden ones; a link out of `root` is followed once."""

    def unreadable(error: OSError) -> None:
        problems.append(f"{error.filename}: cannot be read ({error.strerror})")

    real_root = Path(root).resolve()
    visited: set[Path] = set()
    for name, folders, names in os.walk(root, onerror=unreadable, followlinks=True):
        folder = Path(name)
        real = folder.resolve()
        if real in visited or (folder.is_symlink() and name != root and real.is_relative_to(real_root)):
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield folder, sorted(name for name in names if not name.startswith("."))
