"""Worker processes end with the process that started them, even if it was killed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

CHECK_SECONDS = 0.5


def end_with(parent: int, clear_up: Callable[[], object] = lambda: None) -> None:
    """End this process after the one that started it, so that it does not keep running and using memory.

    Parameters
    ----------
    parent
        Id of the process that started this one.
    clear_up
        Called before this process ends.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(CHECK_SECONDS)
        clear_up()
        os._exit(1)

    threading.Thread(target=watch, name="orphan-watch", daemon=True).start()
