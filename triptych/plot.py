"""Figures for notebooks. Importing this module imports no matplotlib; its functions do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from triptych.extractors.base import Features
    from triptych.pipeline.storage.store import FeatureStore

HEIGHTS = {"sound": 2.0, "units": 2.4, "gaze": 1.3, "tokens": 0.7}  # of the panels [inches]


def clip(store: FeatureStore | str | os.PathLike[str], clip_id: str, *, width: float = 10.0) -> Figure:
    """Draw the features of one clip over one time axis.

    From the top: F0 over chroma, the intensities of the action units, the angles of gaze, and the tokens of the
    transcript. Panels without rows are left out. Tokens have no times: they are spread evenly over the clip.

    Parameters
    ----------
    store
        An open feature folder, or its path.
    clip_id
        A clip's id, ``video/clip``, or a part of it that no other clip has.
    width
        Of the figure [inches].

    Returns
    -------
    matplotlib.figure.Figure
        Independent of pyplot's state: nothing needs to be closed. A notebook shows it.

    Raises
    ------
    triptych.InputError
        The folder or the clip does not exist, or the clip has no rows.

    Examples
    --------
    >>> import triptych.plot
    >>> figure = triptych.plot.clip("dataset", "video_0000/0000")
    >>> figure.savefig("clip.png", dpi=150)
    """
    from matplotlib.figure import Figure

    from triptych.pipeline.errors import InputError
    from triptych.pipeline.manifest.find import find_clip
    from triptych.pipeline.report.frames import rows_or_none
    from triptych.pipeline.storage.store import FeatureStore

    opened = store if isinstance(store, FeatureStore) else FeatureStore(Path(store))
    found = find_clip(opened.manifest.clips, clip_id, str(opened.folder))
    audio, vision, text = (rows_or_none(opened, stage, found.id) for stage in ("audio", "vision", "text"))
    drawn: list[tuple[str, Any, Features]] = []
    if audio is not None and len(audio):
        drawn.append(("sound", _draw_sound, audio))
    if vision is not None and len(vision) and "gaze_angle_x" in vision.columns:
        drawn += [("units", _draw_units, vision), ("gaze", _draw_gaze, vision)]
    if text is not None and "tokens" in text.extras:
        drawn.append(("tokens", _draw_tokens, text))
    if not drawn:
        raise InputError(f"{opened.folder}: clip {found.id!r} has no audio, vision or text rows to draw")
    heights = [HEIGHTS[name] for name, _, _ in drawn]
    figure = Figure(figsize=(width, sum(heights) + 0.8), layout="constrained")
    figure.suptitle(found.id, fontsize=10, parse_math=False)
    axes = figure.subplots(len(drawn), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    seconds = max((float(rows.times[-1]) for name, _, rows in drawn if name != "tokens"), default=1.0)
    for axis, (_, draw, rows) in zip(axes, drawn, strict=True):
        draw(axis, rows, seconds)
    axes[-1].set_xlim(0, seconds)
    axes[-1].set_xlabel("time [s]" if any(name != "tokens" for name, _, _ in drawn) else "share of the clip")
    return figure


def _draw_sound(axis: Any, rows: Features, seconds: float) -> None:
    import numpy as np

    chroma = [number for number, name in enumerate(rows.columns) if name.startswith("chroma_")]
    if chroma:
        notes = [rows.columns[number].removeprefix("chroma_") for number in chroma]
        end = float(rows.times[-1] + (rows.times[-1] - rows.times[0]) / max(len(rows) - 1, 1))
        axis.imshow(
            rows.values[:, chroma].T,
            aspect="auto",
            origin="lower",
            cmap="Greys",
            extent=(float(rows.times[0]), end, -0.5, len(chroma) - 0.5),
            alpha=0.7,
        )
        axis.set_yticks(range(0, len(chroma), 2), notes[::2], fontsize=7)
        axis.set_ylabel("chroma")
    if "log_f0" in rows.columns:
        log_f0 = rows.values[:, rows.columns.index("log_f0")].astype(float)
        voiced = np.asarray(rows.extras.get("voiced", log_f0 > 0), bool)
        pitch = axis.twinx()
        pitch.plot(rows.times, np.where(voiced, np.exp(log_f0), np.nan), color="tab:blue")
        pitch.set_ylabel("F0 [Hz]", color="tab:blue")


def _draw_units(axis: Any, rows: Features, seconds: float) -> None:
    import numpy as np

    from triptych.extractors.vision.columns import AU_INTENSITIES

    names = [f"AU{unit}_r" for unit in AU_INTENSITIES]
    values = rows.values[:, [rows.columns.index(name) for name in names]].astype(float)
    values[~rows.valid] = np.nan
    end = float(rows.times[-1] + (rows.times[-1] - rows.times[0]) / max(len(rows) - 1, 1))
    shown = axis.imshow(
        values.T,
        aspect="auto",
        cmap="Blues",
        vmin=0,
        vmax=5,
        extent=(float(rows.times[0]), end, len(names) - 0.5, -0.5),
    )
    axis.set_yticks(range(len(names)), AU_INTENSITIES, fontsize=6)
    axis.set_ylabel("action unit")
    axis.figure.colorbar(shown, ax=axis, label="0 to 5", pad=0.01, aspect=12)


def _draw_gaze(axis: Any, rows: Features, seconds: float) -> None:
    import numpy as np

    for name, label in (("gaze_angle_x", "x"), ("gaze_angle_y", "y")):
        angle = np.rad2deg(rows.values[:, rows.columns.index(name)].astype(float))
        axis.plot(rows.times, np.where(rows.valid, angle, np.nan), label=label)
    axis.set_ylabel("gaze [degree]")
    axis.legend(loc="upper right", ncols=2, fontsize=7, frameon=False)


def _draw_tokens(axis: Any, rows: Features, seconds: float) -> None:
    from matplotlib.font_manager import FontProperties

    from triptych.pipeline.report.fonts import find_font

    tokens = [str(token) for token in rows.extras["tokens"]]
    font = find_font("".join(tokens))
    width = seconds / max(len(tokens), 1)
    for number, token in enumerate(tokens):
        # Without a font, its number in place of a box.
        shown = token if font or token.isascii() else str(number)
        axis.text(
            (number + 0.5) * width,
            0.5,
            shown,
            ha="center",
            va="center",
            fontproperties=FontProperties(fname=str(font) if font else None, size=8),
            rotation=90 if len(shown) > 3 else 0,
            parse_math=False,
        )
    axis.set_yticks([])
    axis.set_ylabel("tokens")
    axis.set_ylim(0, 1)
