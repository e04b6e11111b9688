"""The backend: groups clips into processes, retries those that fail, and reads the features."""

from __future__ import annotations

import re
import tempfile
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from triptych.extractors.base import BackendMissingError, ExtractionError, Features, Reason
from triptych.extractors.vision.columns import VISION_COLUMNS
from triptych.extractors.vision.openface import processors, program
from triptych.extractors.vision.openface.check import probe
from triptych.extractors.vision.openface.images import ImageFolder
from triptych.extractors.vision.openface.process import Ending, run
from triptych.extractors.vision.openface.scratch import Scratch
from triptych.extractors.vision.openface.table import Table, TornTableError, WrongColumnsError, read_table
from triptych.extractors.vision.stage import VisionSettings

# Images of one process: enough that loading the models hardly matters, and small compared with a worker's memory.
IN_MEMORY, IN_ALL = 256 * 2**20, 1024 * 2**20
TRIES = 2

if TYPE_CHECKING:
    from triptych.extractors.faces.crops import Aligned

Results = dict[str, Features | ExtractionError]


@dataclass
class _Clip:
    """A clip that waits for its first or second run."""

    id: str
    images: ImageFolder
    times: list[float] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    tries: int = 0

    @property
    def name(self) -> str:
        return self.images.folder.name


class OpenFace:
    """OpenFace's ``FeatureExtraction`` as a vision backend; several clips go into one process.

    A clip's result depends on its own images only: other clips in the same process do not change the program's
    output for it.

    Parameters
    ----------
    settings
        The stage's settings.

    Raises
    ------
    BackendMissingError
        The program is not installed, or would hang on this machine's only processor.
    """

    def __init__(self, settings: VisionSettings) -> None:
        found = program.find()
        if found is None:
            raise BackendMissingError(
                program.invalid_path() or f"no {program.NAME} on PATH, and {program.VARIABLE} names none"
            )
        if problem := processors.problem():
            raise BackendMissingError(f"vision.backend = openface: {problem}")
        self.program = found
        self.settings = settings
        self._scratch = Scratch()
        self._clips: list[_Clip] = []
        self._count = 0
        self._first: Ending | None = None  # the first run that gave a table

    @property
    def software(self) -> Mapping[str, str]:
        """Return the program's version line, the SHA-256 of its file and its models, and its landmark model."""
        which = program.identity(self.program, self._first)
        output = self._first.output if self._first else ""
        version = re.search(r"^[^/\\\n]*\bopenface\b[^/\\\n]*\d\.\d[^/\\\n]*$", output, re.I | re.M)
        model = program.loaded_model(output)
        return {
            "openface": version[0].strip() if version else "reports no version",
            "openface_sha256": which.program,
            "openface_model": Path(model).name if model else which.landmark_model,
            "openface_models_sha256": which.models,
        }

    def add(self, clip: str, frames: Iterable[Aligned]) -> bool:
        """Write a clip's images to scratch space.

        Returns
        -------
        bool
            The batch is full: call `finish` before the next clip.

        Raises
        ------
        ExtractionError
            ``frame_too_small``, ``no_scratch_space`` or ``no_face`` (there is no image at all).
        """
        self._count += 1
        # The CSV gets the folder's name, cut at the first dot: it must be unique. The other parts are for people.
        name = f"{self._count:06d}-{re.sub('[^A-Za-z0-9_-]+', '_', clip)[:80]}"
        gathered = _Clip(clip, ImageFolder(self._scratch, name, IN_MEMORY))
        try:
            for frame in frames:
                gathered.images.append(frame.image)
                gathered.times.append(frame.time)
                gathered.shown.append(frame.found or self.settings.input != "original")
        except BaseException:
            gathered.images.remove()
            raise
        if not gathered.times:
            gathered.images.remove()
            raise ExtractionError(Reason.NO_FACE, "the clip has no frame")
        self._clips.append(gathered)
        in_memory = sum(each.images.bytes for each in self._clips if each.images.root is not None)
        return in_memory >= IN_MEMORY or sum(each.images.bytes for each in self._clips) >= IN_ALL

    def finish(self) -> Results:
        """Run the program on the added clips, and again on those without a result.

        A clip that fails in a batch is run once more alone; if it fails again, it has no features. Clips that were lost
        because another clip ended the run are run again as a batch.

        Returns
        -------
        dict
            By clip: features, shape (T, 709), `confidence` being OpenFace's; or ``openface_crashed``, ``timeout``,
            ``openface_short`` (fewer rows than images) or ``no_face``.

        Raises
        ------
        BackendMissingError
            The program works on no image at all, or is not OpenFace 2.x.
        """
        results: Results = {}
        waiting = deque([self._clips] if self._clips else [])
        try:
            while waiting:
                waiting.extend(self._run(waiting.popleft(), results))
        finally:
            self._clips = []
            self._scratch.close()
        return results

    def _run(self, clips: list[_Clip], results: Results) -> list[list[_Clip]]:
        """Run the program once; return the batches to run next."""
        beside = clips[0].images.folder.parent
        with tempfile.TemporaryDirectory(dir=beside, prefix="run-") as fresh:
            output, neutral = Path(fresh, "out"), Path(fresh, "cwd")
            output.mkdir()
            neutral.mkdir()
            command = program.arguments(self.program, [clip.images.folder for clip in clips], output)
            frames = sum(clip.images.count for clip in clips)
            ending = run(command, neutral, program.seconds_allowed(frames))
            tables = [output / f"{clip.name}.csv" for clip in clips]
            if ending.well:
                return self._after_end(clips, [self._read(path) for path in tables], ending, results)
            # The table of a killed run may look complete, but its action units are not calibrated.
            started = [index for index, path in enumerate(tables) if path.exists()]
            return self._after_crash(clips, max(started, default=-1), ending, results)

    def _read(self, path: Path) -> Table | str | None:
        """Read a table; return its problem as text if it is incomplete, and None if it is missing."""
        try:
            return read_table(path)
        except FileNotFoundError:
            return None
        except TornTableError as error:
            return str(error)
        except WrongColumnsError as error:
            raise BackendMissingError(f"vision.backend = openface: {self.program}: {error}") from error

    def _after_end(
        self,
        clips: Sequence[_Clip],
        tables: Sequence[Table | str | None],
        ending: Ending,
        results: Results,
    ) -> list[list[_Clip]]:
        """Use the complete tables of a finished run; retry the clips whose table is short or missing."""
        again: list[list[_Clip]] = []
        for clip, table in zip(clips, tables, strict=True):
            if isinstance(table, Table) and len(table) == clip.images.count:
                self._first = self._first or ending
                results[clip.id] = _features(clip, table, self.settings.min_confidence)
            elif table is not None:
                gave = f"{len(table)} rows" if isinstance(table, Table) else f"a table that is torn ({table})"
                again += self._retry_or_fail(clip, Reason.OPENFACE_SHORT, f"gave {gave}", ending, results)
        # The first folder that the program cannot open ends its run, and the later ones are not read.
        unopened = [clip for clip, table in zip(clips, tables, strict=True) if table is None]
        for clip in unopened[:1]:
            again += self._retry_or_fail(clip, Reason.OPENFACE_SHORT, "gave no table", ending, results)
        return [*again, unopened[1:]] if len(unopened) > 1 else again

    def _after_crash(
        self,
        clips: Sequence[_Clip],
        last_started: int,
        ending: Ending,
        results: Results,
    ) -> list[list[_Clip]]:
        """After a crash or timeout, retry the clip whose table was started alone, and run the others again.

        If the next clip caused it, that clip is now the first of its batch, so it is the next one to be retried alone.
        """
        reason = Reason.TIMEOUT if ending.timed_out else Reason.OPENFACE_CRASHED
        index = max(last_started, 0)
        alone = self._retry_or_fail(clips[index], reason, str(ending), ending, results)
        return [batch for batch in (list(clips[:index]), *alone, list(clips[index + 1 :])) if batch]

    def _retry_or_fail(
        self, clip: _Clip, reason: Reason, how: str, ending: Ending, results: Results
    ) -> list[list[_Clip]]:
        """Return a clip to be run alone, or log its failure if it has been run alone already."""
        clip.tries += 1
        if clip.tries < TRIES:
            return [[clip]]
        if not self._first and (problem := probe(self.program)):
            # No image of any clip has worked yet, and neither does a generated one.
            raise BackendMissingError(f"vision.backend = openface: {problem}")
        results[clip.id] = ExtractionError(
            reason,
            f"OpenFace {how} for its {clip.images.count} images, alone, having failed before; the last "
            f"lines of its output: {ending.last_lines()}",
        )
        return []


def _features(clip: _Clip, table: Table, min_confidence: float) -> Features | ExtractionError:
    """Make the features: rows without OpenFace's `success` have meaningless numbers, which become 0."""
    read = table.success & np.array(clip.shown) & np.isfinite(table.values).all(axis=1)
    if not read.any():
        return ExtractionError(Reason.NO_FACE, f"OpenFace found no face in any of {len(table)} images")
    confidence = np.nan_to_num(table.confidence)
    valid = read & (confidence >= min_confidence)
    if not valid.any():
        return ExtractionError(
            Reason.NO_FACE,
            f"OpenFace's confidence reaches {confidence[read].max():.2f} in {read.sum()} of {len(table)} images, less "
            f"than vision.min_confidence = {min_confidence:g}",
        )
    names, units = zip(*VISION_COLUMNS, strict=True)
    return Features(
        values=np.where(valid[:, None], table.values, 0).astype(np.float32),
        columns=names,
        units=units,
        times=np.array(clip.times, np.float64),
        valid=valid,
        extras={"confidence": confidence},
    )
