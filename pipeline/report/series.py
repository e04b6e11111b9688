"""The curves of one clip as a short text: quantised, compressed, base64. The page decodes it when it is asked for.

Layout of the compressed bytes (deflate without a header): the length of a JSON header as uint32, little-endian; the
header; then the arrays that it names, column by column, since neighbouring rows are alike and compress well.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.extractors.audio.columns import PITCH_CLASSES
from triptych.extractors.base import Features
from triptych.extractors.vision.columns import AU_INTENSITIES
from triptych.pipeline.escaped import escaped
from triptych.pipeline.report.gather import read_rows
from triptych.pipeline.storage.store import FeatureStore

LONGEST = 3000  # rows of a curve; of a longer one each n-th row is drawn
MOST_TOKENS = 600
_LEVELS = {"u1": 254, "u2": 65534}  # the highest level of each kind; one more stands for a missing value
_UNEVEN = 1e-3  # rows whose times differ by less [s] from an even step have no times of their own


def clip_series(store: FeatureStore, clip_id: str) -> str:
    """Return a clip's curves for the page; empty if it has none.

    Curves need column names: features that were imported have none, so only their tokens are shown.
    """
    packed = _Packed()
    audio, vision, text = (read_rows(store, stage, clip_id) for stage in ("audio", "vision", "text"))
    if audio is not None:
        _add_audio(packed, audio)
    if vision is not None:
        _add_vision(packed, vision)
    if text is not None:
        tokens = [escaped(str(token)) for token in text.extras["tokens"][:MOST_TOKENS]]
        packed.header["tokens"] = tokens if any(tokens) else []
        times = text.times[: len(tokens)]
        if np.isfinite(times).any():
            packed.header["token_times"] = [round(float(time), 3) if time == time else None for time in times]
    return packed.text() if packed.arrays or packed.header.get("tokens") else ""


class _Packed:
    """Arrays that are being collected, and the header that describes them."""

    def __init__(self) -> None:
        self.header: dict[str, Any] = {"arrays": []}
        self.arrays: list[bytes] = []

    def add(self, name: str, values: NDArray[Any], low: float, high: float, kind: str = "u1") -> None:
        """Add an array of shape (T,) or (T, columns), clipped to a range; NaN stays missing."""
        table = values.reshape(len(values), -1)
        levels = quantised(table, low, high, kind)
        self.header["arrays"].append(
            {
                "name": name,
                "kind": kind,
                "rows": table.shape[0],
                "columns": table.shape[1],
                "low": low,
                "high": high,
            }
        )
        self.arrays.append(levels.T.tobytes())

    def text(self) -> str:
        """Return everything as base64."""
        header = json.dumps(self.header, ensure_ascii=False).encode("utf-8", "replace")
        content = len(header).to_bytes(4, "little") + header + b"".join(self.arrays)
        compressor = zlib.compressobj(9, wbits=-15)
        return base64.b64encode(compressor.compress(content) + compressor.flush()).decode("ascii")


def quantised(values: NDArray[Any], low: float, high: float, kind: str) -> NDArray[np.unsignedinteger[Any]]:
    """Return values as whole levels of a range, clipped to it; a missing value is the level after the highest.

    Parameters
    ----------
    kind
        ``u1`` or ``u2``: one or two bytes for each value, little-endian.
    """
    most = _LEVELS[kind]
    levels = np.rint((np.clip(values, low, high) - low) / (high - low) * most)
    whole: NDArray[np.unsignedinteger[Any]] = np.where(np.isnan(levels), most + 1, levels).astype(f"<{kind}")
    return whole


def _thinned(rows: Features) -> slice:
    return slice(None, None, -(-len(rows) // LONGEST) or 1)


def _add_times(packed: _Packed, name: str, times: NDArray[np.float64]) -> bool:
    """Add the times of rows, as a start and a step where they are even; return whether rows have times."""
    if not len(times) or not np.isfinite(times).all():
        return False
    step = (times[-1] - times[0]) / max(len(times) - 1, 1)
    packed.header[name] = {"start": round(float(times[0]), 6), "step": round(float(step), 9)}
    if np.abs(times - (times[0] + step * np.arange(len(times)))).max() > _UNEVEN:
        packed.add(f"{name}_times", times, float(times[0]), float(times[-1]), "u2")
    return True


def _add_audio(packed: _Packed, rows: Features) -> None:
    places = {column: place for place, column in enumerate(rows.columns)}
    chroma = [places.get(f"chroma_{name}", -1) for name in PITCH_CLASSES]
    thin = _thinned(rows)
    if min(chroma) < 0 or not _add_times(packed, "audio", rows.times[thin]):
        return
    values = rows.values[thin]
    packed.add("chroma", values[:, chroma], 0.0, 1.0)
    if "log_f0" in places:
        f0 = np.where(rows.extras["voiced"][thin], values[:, places["log_f0"]], np.nan)
        packed.add("log_f0", f0, float(np.log(30)), float(np.log(1000)), "u2")
    elif "zcr" in places:
        packed.add("zcr", values[:, places["zcr"]], 0.0, 1.0, "u2")


def _add_vision(packed: _Packed, rows: Features) -> None:
    places = {column: place for place, column in enumerate(rows.columns)}
    units = [places.get(f"AU{unit}_r", -1) for unit in AU_INTENSITIES]
    gaze = [places.get(f"gaze_angle_{axis}", -1) for axis in "xy"]
    thin = _thinned(rows)
    if min(*units, *gaze) < 0 or not _add_times(packed, "vision", rows.times[thin]):
        return
    seen = rows.valid[thin, np.newaxis]
    packed.header["units"] = [f"AU{unit}" for unit in AU_INTENSITIES]
    packed.add("au", np.where(seen, rows.values[thin][:, units], np.nan), 0.0, 5.0)
    packed.add("gaze", np.where(seen, np.degrees(rows.values[thin][:, gaze]), np.nan), -90.0, 90.0, "u2")
    packed.add("confidence", np.asarray(rows.extras["confidence"][thin], np.float64), 0.0, 1.0)
