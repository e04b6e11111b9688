"""Any error of a clip as a typed reason, so that it does not affect the other clips."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path
from traceback import extract_tb
from typing import TypeVar

from triptych.extractors.base import BackendMissingError, ExtractionError, Features, Reason
from triptych.pipeline.errors import InputError

# As torch, ONNX Runtime, OpenCV and FFmpeg say it, whose errors have no type of their own.
_OUT_OF_MEMORY = re.compile(
    r"can't allocate memory|not enough memory|bad.?alloc|failed to allocate memory|insufficient memory|"
    r"cannot allocate memory|out of memory",
    re.IGNORECASE,
)
Made = TypeVar("Made")


def as_result(result: Features | Exception | None) -> Features | ExtractionError:
    """Return a batched stage's result for a clip; any exception becomes a typed reason."""
    if isinstance(result, Features):
        return result
    return as_error(result or RuntimeError("the stage gave no rows for this clip"))


def attempt(make: Callable[[], Made]) -> Made | ExtractionError:
    """Turn any error of a clip into a typed reason."""
    try:
        return make()
    except Exception as error:
        return as_error(error)


def as_error(error: Exception) -> ExtractionError:
    """Return an error of a clip as a typed reason; one that no clip causes is raised again."""
    if isinstance(error, BackendMissingError | InputError):
        raise error  # not caused by a clip: the run cannot continue
    if isinstance(error, ExtractionError):
        return error.with_traceback(None)  # it would keep the clip's frames in memory
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise error  # a full disk: the same
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)):
        return ExtractionError(Reason.OUT_OF_MEMORY, str(error) or "memory ran out")
    # A bug or an unexpected input: it must not affect the other clips.
    return ExtractionError(Reason.UNEXPECTED, describe(error))


def describe(error: Exception) -> str:
    """Return an error's type, text and place."""
    frames = extract_tb(error.__traceback__)
    position = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{position}"
