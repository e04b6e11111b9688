"""About how long a clip is, before it is decoded."""

from __future__ import annotations

from pathlib import Path

from triptych.extractors.base import ExtractionError

BYTES_PER_SECOND = 125_000  # 1 Mbit/s


# Of a span in a file without an index, what comes before it is decoded too, at least this many times as fast.
SPEED = 20


def about_seconds(path: Path, longest: float, span: tuple[float, float | None] | None = None) -> float:
    """Return the length that a file states, or that its size suggests if that is longer, for a time limit.

    Joined and damaged files state too little, and streams without an index nothing.

    Parameters
    ----------
    longest
        The result's upper bound [s]: a file can state any length.
    span
        The span of the file that is read [s], without an end up to the file's; None for all of it.

    Returns
    -------
    float
        Seconds, at least 1.
    """
    import av

    from triptych.extractors.media.opening import opened

    stated, size = 0.0, 0
    try:
        with opened(path) as container:
            size = path.stat().st_size
            stated = (container.duration or 0) / av.time_base
    except (ExtractionError, OSError):  # the stages report it
        pass
    whole = min(max(1.0, stated, size / BYTES_PER_SECOND), longest)
    if span is None:
        return whole
    start, end = span
    return max(1.0, min((whole if end is None else end) - start, whole)) + min(start, whole) / SPEED
