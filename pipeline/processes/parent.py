"""Worker processes end with the process that started them, even where that one was killed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

CHECK_SECONDS = 0.5


def end_with(parent: int, clear_up: Callable[[], object] = lambda: None) -> None:
    """End this process when the one that started it is gone: it would go on for nobody, and hold its memory.

    Parameters
    ----------
    parent
        Process id of the one that started this one.
    clear_up
        Called before the end.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(CHECK_SECONDS)
        clear_up()
        os._exit(1)

    threading.Thread(target=watch, name="orphan-watch", daemon=True).start()
