"""A run that is ended ends its workers too, also on minimal systems without `pgrep`."""

from __future__ import annotations

import subprocess
import sys

ENDED_EARLY = """
import os, time
from joblib.externals.loky import ProcessPoolExecutor

pool = ProcessPoolExecutor(max_workers=1)
worker = pool.submit(os.getpid).result()
pool.submit(time.sleep, 600)
pool.shutdown(wait=True, kill_workers=True)
try:
    os.kill(worker, 0)
except ProcessLookupError:
    print("gone")
"""


def test_workers_end_where_no_pgrep_is_found() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ENDED_EARLY],
        env={"PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stdout == "gone\n", ended.stderr
