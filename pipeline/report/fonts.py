"""Fonts for overlays: one for labels, and one with the glyphs of a transcript."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

VARIABLE = "TRIPTYCH_FONT"
FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
    "/Library/Fonts",
    "/System/Library/Fonts",
    "~/Library/Fonts",
    "C:/Windows/Fonts",
)
ENDINGS = (".ttf", ".otf", ".ttc")
_NEVER = "\U0010ffff"  # no character: shown as what a font has in place of missing ones
_LIKELY = ("notosanscjk", "notosanssc", "sourcehan", "wqy", "simhei", "msyh", "pingfang", "droidsansfallback")
_WEIGHTS = ("regular", "medium", "normal")


class Glyphs:
    """Whether a font has a character; PIL draws the font's box for missing ones."""

    def __init__(self, path: Path) -> None:
        self._font = ImageFont.truetype(str(path), 16)
        self._missing = self._shape(_NEVER)

    def _shape(self, character: str) -> tuple[tuple[int, int], bytes]:
        mask = self._font.getmask(character)
        return mask.size, bytes(mask)

    def cover(self, text: str) -> bool:
        """Return whether all letters and digits of a text are in the font."""
        return all(self._has(each) for each in set(text) if each.isalnum())

    def drawable(self, text: str) -> str:
        """Return a text without the signs that are not in the font, such as emoji."""
        return "".join(each for each in text if each.isspace() or self._has(each))

    def _has(self, character: str) -> bool:
        return self._shape(character) != self._missing


def label_font() -> Path | None:
    """Return the sans-serif font that matplotlib ships; None where it is not installed."""
    spec = find_spec("matplotlib")  # its files alone are read, since the import takes long
    path = Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf" if spec and spec.origin else None
    return path if path and path.is_file() else None


def find_font(text: str) -> Path | None:
    """Return a font file with the glyphs of all letters of a text; None where there is none.

    They are looked for in the file that ``TRIPTYCH_FONT`` names, matplotlib's font, fontconfig's fonts, the usual
    folders, and installed Python packages, in this order.
    """
    tried = set()
    for path in _candidates():
        if path in tried or "lastresort" in path.name.lower():  # it has a box for every character
            continue
        tried.add(path)
        with suppress(OSError):
            if Glyphs(path).cover(text):
                return path
    return None


def _candidates() -> Iterator[Path]:
    if named := os.environ.get(VARIABLE):
        yield Path(named).expanduser()
    if font := label_font():
        yield font
    yield from _likely_first(_of_fontconfig())
    yield from _likely_first(
        path for folder in FOLDERS for path in _fonts_below(str(Path(folder).expanduser()))
    )
    yield from _likely_first(_of_packages())


def _likely_first(paths: Iterator[Path]) -> list[Path]:
    """Sort fonts so that plain ones with many characters come first."""

    def rank(path: Path) -> tuple[bool, bool, str]:
        name = path.name.lower().replace("-", "").replace(" ", "").replace("_", "")
        likely, plain = any(one in name for one in _LIKELY), any(one in name for one in _WEIGHTS)
        return not likely, not plain, str(path)

    return sorted(paths, key=rank)


def _of_fontconfig() -> Iterator[Path]:
    if program := shutil.which("fc-list"):
        with suppress(OSError, subprocess.SubprocessError):
            found = subprocess.run(
                [program, "--format", "%{file}\n"], capture_output=True, timeout=20, check=True
            )
            for name in found.stdout.decode(errors="surrogateescape").splitlines():
                if name.lower().endswith(ENDINGS):
                    yield Path(name)


@lru_cache(len(FOLDERS))
def _fonts_below(folder: str) -> tuple[Path, ...]:
    files = (Path(inside, name) for inside, _, names in os.walk(folder) for name in names)
    return tuple(file for file in files if file.suffix.lower() in ENDINGS)


def _of_packages() -> Iterator[Path]:
    for distribution in distributions():
        for file in distribution.files or ():
            if file.suffix.lower() in ENDINGS and "mpl-data" not in file.parts:
                yield Path(str(distribution.locate_file(file)))
