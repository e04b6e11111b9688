"""The features of a folder, all stages joined by clip, for trainers and notebooks.

>>> store = FeatureStore(Path("features"))
>>> for clip_id in store.complete_ids():
...     audio = store.read("audio", clip_id)  # .values (T, 33), .times (T,), .extras["voiced"]
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triptych.extractors.base import Features
from triptych.extractors.registry import stages
from triptych.pipeline.errors import InputError
from triptych.pipeline.stages.graph import source_digest, sources
from triptych.pipeline.stages.stored import stored_recipe, superseded_fingerprints, with_superseded
from triptych.pipeline.storage.checked import check_once
from triptych.pipeline.storage.index import FeatureIndex, Holding, remember_damage, text_digest
from triptych.pipeline.storage.schema import RemovedShardError, ShardError
from triptych.pipeline.storage.shard_reader import CheckedShard, Names

if TYPE_CHECKING:
    from triptych.pipeline.manifest.clips import Manifest

OPEN_SHARDS = 80  # in one process: each uses 0.7 MiB of memory, and systems allow at least 256 open files


class MissingFeaturesError(KeyError):
    """A clip has no features of a stage under the folder's settings."""

    def __str__(self) -> str:
        return str(self.args[0])


class FeatureStore:
    """A feature folder, open for reading.

    It shows the folder at the time of opening; open it again to see later changes. It can be pickled and used by
    threads and by forked and spawned processes: each process opens the shards itself.

    Parameters
    ----------
    folder
        The feature folder that ``triptych extract SOURCE -o FOLDER`` made. It need not be writable.
    check
        Compare each shard with its SHA-256 before its first read in a process. This finds bytes that storage has
        changed, and costs about as much as reading the file once.

    Attributes
    ----------
    folder
        The same folder.
    recipe
        The settings of the features that can be read, under ``recipe``, and each stage's hash, under
        ``fingerprints``. If settings were changed and the new features are not complete, these are the old settings.

    Raises
    ------
    InputError
        The folder does not exist, its recipe.json cannot be read, or a newer version has written shards in it.
    """

    def __init__(self, folder: Path, *, check: bool = True) -> None:
        self.folder = Path(folder)
        self._check = check
        recipe = stored_recipe(self.folder)
        if recipe is None:
            raise InputError(
                f"{self.folder}/recipe.json: not found, so {self.folder} is not a feature folder. "
                f"Make one with `triptych extract SOURCE -o {self.folder}`"
            )
        with FeatureIndex(self.folder) as index:
            index.refuse_newer()
            self.recipe: dict[str, Any] = _readable(recipe, self.folder, index)
            self._holdings = {stage: self._current(stage, index) for stage in stages()}
        self._forget_shards()

    @cached_property
    def manifest(self) -> Manifest:
        """Return the clips with transcripts, splits and labels; their media files may be missing."""
        from triptych.pipeline.manifest.clips import load_manifest

        return load_manifest(self.folder / "manifest.csv", check_files=False)

    @property
    def label_range(self) -> tuple[float, float]:
        """Return the lowest and the highest possible label of the manifest."""
        return self.manifest.label_range

    @property
    def stages(self) -> tuple[str, ...]:
        """Return the stages that the folder has settings for, each after those whose rows it reads."""
        return tuple(stage for stage in self._holdings if stage in self.recipe["fingerprints"])

    def __repr__(self) -> str:
        counts = ", ".join(f"{stage} {len(clips)}" for stage, clips in self._holdings.items() if clips)
        return f"FeatureStore({str(self.folder)!r}: clips with {counts or 'no features'})"

    def ids(self, stage: str) -> tuple[str, ...]:
        """Return the sorted ids of the clips with features of a stage under the folder's settings."""
        return tuple(sorted(self._stage(stage)))

    def complete_ids(self, stages: Sequence[str] = ("text", "audio", "vision")) -> tuple[str, ...]:
        """Return the sorted ids of the clips with features of all these stages."""
        return tuple(sorted(set.intersection(*(set(self._stage(stage)) for stage in stages))))

    def read(self, stage: str, clip_id: str) -> Features:
        """Read one clip's rows of one stage, and no others, from disk.

        Parameters
        ----------
        stage
            One of `stages`.
        clip_id
            The clip.

        Returns
        -------
        Features
            ``values`` float32, shape (T, D), and the other arrays of its rows.

        Raises
        ------
        MissingFeaturesError
            The clip has no features of the stage.
        ShardError
            The shard that holds them is damaged, or was removed since the store was opened.
        """
        holding = self._holding(stage, clip_id)
        return self._opened(stage, holding).read_at(holding.row)

    def frame_rate(self, stage: str, clip_id: str) -> float:
        """Return the rows per second of one clip's features of one stage, NaN for text; raises as `read`."""
        return self._opened(stage, self._holding(stage, clip_id)).frame_rate

    def _holding(self, stage: str, clip_id: str) -> Holding:
        holding = self._stage(stage).get(clip_id)
        if holding is None:
            raise MissingFeaturesError(
                f"{self.folder}: no {stage} features of clip {clip_id!r} under the folder's settings. "
                f"`triptych status {self.folder}` lists why"
            )
        return holding

    def _opened(self, stage: str, holding: Holding) -> CheckedShard:
        if self._process != os.getpid():
            self._forget_shards()
        return self._open(holding.shard, stage, holding.fingerprint)

    def _stage(self, stage: str) -> Mapping[str, Holding]:
        if stage not in self._holdings:
            raise ValueError(f"stage {stage!r}: there are {', '.join(self._holdings)}")
        return self._holdings[stage]

    def _current(self, stage: str, index: FeatureIndex) -> dict[str, Holding]:
        """Choose one shard for every clip: the first by name, unless the clip has changed."""
        fingerprint = self.recipe["fingerprints"].get(stage)
        holdings: dict[str, list[Holding]] = {}
        for holding in index.holdings(stage):
            if holding.fingerprint == fingerprint and not self._is_stale(stage, holding):
                holdings.setdefault(holding.clip_id, []).append(holding)
        return {
            clip_id: several[0]
            if len({one.digest for one in several}) == 1
            else self._newest(stage, several, index)
            for clip_id, several in holdings.items()
        }

    def _is_stale(self, stage: str, holding: Holding) -> bool:
        """Return whether the manifest's transcript was changed or removed since the rows were computed."""
        if "text" not in sources(stage) or "imported" in self.recipe["recipe"]:
            return False
        if holding.clip_id not in self._transcripts:
            return False
        text = self._transcripts[holding.clip_id]
        return text is None or text_digest(text) != holding.digest.rpartition(":")[2]

    def _newest(self, stage: str, holdings: Sequence[Holding], index: FeatureIndex) -> Holding:
        """Choose the features of the clip's current content; if that is unknown, the latest ones."""
        digest = self._digest_now(stage, holdings[0].clip_id, index)
        present = [holding for holding in holdings if holding.digest == digest]
        return present[0] if present else max(holdings, key=lambda holding: holding.created)

    def _digest_now(self, stage: str, clip_id: str, index: FeatureIndex) -> str | None:
        if clip_id not in self._transcripts:
            return None
        text = self._transcripts[clip_id]
        digests = {"text": "" if text is None else text_digest(text), "media": ""}
        if "media" in sources(stage):
            with suppress(OSError):
                digests["media"] = index.digest_of(self._files[clip_id])
        return source_digest(stage, digests) or None

    @cached_property
    def _transcripts(self) -> dict[str, str | None]:
        from triptych.pipeline.manifest.clips import load_transcripts

        file = self.folder / "manifest.csv"
        return load_transcripts(file) if file.is_file() else {}

    @cached_property
    def _files(self) -> dict[str, Path]:
        return {clip.id: clip.file for clip in self.manifest.clips}

    def _forget_shards(self) -> None:
        self._process = os.getpid()
        names: dict[str, Names] = {}

        def opened(path: Path, stage: str, fingerprint: str) -> CheckedShard:
            if self._check:
                self._check_once(path)
            shard = CheckedShard(path, stage, names.get(fingerprint))
            names[fingerprint] = shard.columns, shard.units
            return shard

        # A shard that leaves the cache is closed by its last reader, so threads do not close it for each other.
        self._open: Callable[[Path, str, str], CheckedShard] = lru_cache(OPEN_SHARDS)(opened)

    def _check_once(self, path: Path) -> None:
        try:
            check_once(path)
        except RemovedShardError:
            raise
        except ShardError:
            remember_damage(self.folder, [path])  # or `extract` would go on trusting its size and time
            raise

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("folder", "recipe", "_check", "_holdings")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_shards()


def _readable(recipe: dict[str, Any], folder: Path, index: FeatureIndex) -> dict[str, Any]:
    """Return the recipe with the old settings of stages whose features are being replaced."""
    old = {
        stage
        for stage, fingerprint in superseded_fingerprints(folder).items()
        if any(holding.fingerprint == fingerprint for holding in index.holdings(stage))
    }
    return with_superseded(folder, old) if old else recipe
