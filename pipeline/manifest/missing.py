"""Videos that a table names and that do not exist: one fails by itself, all of a table are an error."""

from __future__ import annotations

import logging
import os

from triptych.pipeline.manifest.rows import Row

logger = logging.getLogger(__name__)

NAMED = 10  # missing videos that the warning names for each table


class MissingVideos:
    """The missing videos of one reading, by table."""

    def __init__(self) -> None:
        self._roots: dict[str, bool] = {}
        self._missing: dict[str, list[str]] = {}
        self._present: set[str] = set()

    def check(self, row: Row, root: str, path: str) -> list[str]:
        """Look for a row's video; return a problem where the row or its root is wrong as such."""
        if root not in self._roots:
            self._roots[root] = os.path.isdir(root)  # noqa: PTH112
            if not self._roots[root]:
                return [
                    f"folder {root}, the root of the paths, not found; correct the column root, or pass --root"
                ]
        if not self._roots[root]:
            return []  # reported once
        table = row.origin.rpartition(":")[0]
        file = f"{root}/{path}"
        if not row.not_found and os.path.isfile(file):  # noqa: PTH113 - Path objects are far slower
            self._present.add(table)
        elif "\\" in path:
            return [f"file {file} not found; separate folders by '/'"]
        else:
            problem = (
                row.not_found or f"file {file} not found; add the file, correct the path or remove the row"
            )
            self._missing.setdefault(table, []).append(f"{row.origin}: {problem}")
        return []

    def report(self) -> list[str]:
        """Return the problems of tables of which no video exists; log the missing videos of the others."""
        problems = []
        for table, missing in self._missing.items():
            if table not in self._present:
                problems += missing
                continue
            more = [f"... and {len(missing) - NAMED} more"] if len(missing) > NAMED else []
            for line in [*missing[:NAMED], *more]:
                logger.warning("%s", line)
            logger.warning("%s: rows without a video: %d; only these clips fail", table, len(missing))
        return problems
