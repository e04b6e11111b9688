"""About how long a clip is, before it is decoded."""

from __future__ import annotations

from pathlib import Path

from triptych.extractors.base import ExtractionError

BYTES_PER_SECOND = 125_000  # 1 Mbit/s


def about_seconds(path: Path, longest: float) -> float:
    """Return the length that a file states, or that its size suggests if that is longer, for a time limit.

    Joined and damaged files state too little, and streams without an index nothing.

    Parameters
    ----------
    longest
        The result's upper bound [s]: a file can state any length.

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
    return min(max(1.0, stated, size / BYTES_PER_SECOND), longest)
