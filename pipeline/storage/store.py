"""The features of a folder, all stages joined by clip, for trainers and notebooks.

>>> store = FeatureStore(Path("features"))
>>> for clip_id in store.complete_ids():
...     audio = store.read("audio", clip_id)  # .values (T, 33), .times (T,), .extras["voiced"]
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from triptych.extractors.base import Features
from triptych.extractors.registry import stages
from triptych.pipeline.errors import InputError
from triptych.pipeline.processes.collection import collection_paused
from triptych.pipeline.stages.graph import source_digest, sources
from triptych.pipeline.stages.stored import stored_recipe, superseded_fingerprints, with_superseded
from triptych.pipeline.storage.checked import check_once
from triptych.pipeline.storage.index import (
    FeatureIndex,
    Holding,
    ShardClips,
    part_digest,
    remember_damage,
    text_digest,
)
from triptych.pipeline.storage.places import Places, PlacesMaker
from triptych.pipeline.storage.schema import RemovedShardError, ShardError
from triptych.pipeline.storage.shard_reader import CheckedShard, Names
from triptych.pipeline.storage.streams import WORDS
from triptych.pipeline.storage.word_times import needs_times, with_word_times

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
        with collection_paused(), FeatureIndex(self.folder) as index:
            index.refuse_newer()
            self.recipe: dict[str, Any] = _readable(recipe, self.folder, index)
            places = PlacesMaker()
            self._places = {stage: self._current(stage, index, places) for stage in stages()}
        self.__dict__.pop("_transcripts", None)  # only needed for opening
        self._forget_shards()

    @cached_property
    def manifest(self) -> Manifest:
        """Return the clips with transcripts, splits and labels; their media files may be missing."""
        from triptych.pipeline.manifest.loading import load_manifest

        return load_manifest(self.folder / "manifest.csv", check_files=False)

    @property
    def label_range(self) -> tuple[float, float]:
        """Return the lowest and the highest possible label of the manifest."""
        return self.manifest.label_range

    @property
    def stages(self) -> tuple[str, ...]:
        """Return the stages that the folder has settings for, each after those whose rows it reads."""
        return tuple(stage for stage in self._places if stage in self.recipe["fingerprints"])

    def __repr__(self) -> str:
        counts = ", ".join(f"{stage} {len(clips)}" for stage, clips in self._places.items() if clips)
        return f"FeatureStore({str(self.folder)!r}: clips with {counts or 'no features'})"

    def ids(self, stage: str) -> tuple[str, ...]:
        """Return the sorted ids of the clips with features of a stage under the folder's settings."""
        return tuple(self._stage(stage).ids)

    def complete_ids(self, stages: Sequence[str] = ("text", "audio", "vision")) -> tuple[str, ...]:
        """Return the sorted ids of the clips with features of all these stages."""
        return tuple(sorted(set.intersection(*(set(self._stage(stage).ids) for stage in stages))))

    def read(self, stage: str, clip_id: str) -> Features:
        """Read one clip's rows of one stage from disk.

        Text rows have no times of their own; where the clip has rows of the stage ``words``, a token's time is the
        start of its word.

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
        shard, row = self._place(stage, clip_id)
        features = self._opened(stage, shard).read_at(row)
        return self._timed(clip_id, features) if needs_times(features) else features

    def _timed(self, clip_id: str, features: Features) -> Features:
        """Return text rows with the times of their words, where the folder has them for the same transcript."""
        place = self._places[WORDS].find(clip_id) if WORDS in self._places else None
        transcript = None if place is None else self._transcripts.get(clip_id)
        if place is None or transcript is None:
            return features
        try:
            words = self._opened(WORDS, place[0]).read_at(place[1])
        except ShardError:  # reading `words` itself reports it; the text is intact
            return features
        return with_word_times(features, words, transcript)

    def frame_rate(self, stage: str, clip_id: str) -> float:
        """Return the rows per second of one clip's features of one stage, NaN for text; raises as `read`."""
        return self._opened(stage, self._place(stage, clip_id)[0]).frame_rate

    def _place(self, stage: str, clip_id: str) -> tuple[Path, int]:
        place = self._stage(stage).find(clip_id)
        if place is None:
            raise MissingFeaturesError(
                f"{self.folder}: no {stage} features of clip {clip_id!r} under the folder's settings. "
                f"`triptych status {self.folder}` lists why"
            )
        return place

    def _opened(self, stage: str, shard: Path) -> CheckedShard:
        if self._process != os.getpid():
            self._forget_shards()
        return self._open(shard, stage)

    def _stage(self, stage: str) -> Places:
        if stage not in self._places:
            raise ValueError(f"stage {stage!r}: there are {', '.join(self._places)}")
        return self._places[stage]

    def _current(self, stage: str, index: FeatureIndex, places: PlacesMaker) -> Places:
        """Choose one shard for every clip: the first by name, unless the clip has changed."""
        fingerprint = self.recipe["fingerprints"].get(stage)
        shards = [shard for shard in index.shards(stage) if shard.fingerprint == fingerprint]
        ids = [clip_id for shard in shards for clip_id in shard.ids]
        number = np.repeat(np.arange(len(shards), dtype=np.int32), [len(shard.ids) for shard in shards])
        row = np.array([row for shard in shards for row in range(len(shard.ids))], np.int32)
        chosen = list(range(len(ids)))
        if self._follows_text(stage):  # rows of a transcript that was changed or removed since are left out
            digests = (digest for shard in shards for digest in shard.digests)
            chosen = [at for at, clip in enumerate(zip(ids, digests, strict=True)) if self._has_text(*clip)]
        if len({ids[at] for at in chosen}) < len(chosen):
            chosen = self._once(stage, shards, index, [(ids[at], number[at], row[at], at) for at in chosen])
        paths = [shard.shard for shard in shards]
        return places.make([ids[at] for at in chosen], paths, number[chosen], row[chosen])

    def _once(
        self,
        stage: str,
        shards: Sequence[ShardClips],
        index: FeatureIndex,
        clips: Iterable[tuple[str, int, int, int]],
    ) -> list[int]:
        """Choose one place for every clip.

        Parameters
        ----------
        clips
            Id, number of the shard, position in it, and the value to return.
        """
        of_clip: dict[str, list[tuple[Holding, int]]] = {}
        for clip_id, number, row, value in clips:
            shard = shards[number]
            holding = Holding(clip_id, shard.digests[row], shard.fingerprint, shard.shard, row, shard.created)
            of_clip.setdefault(clip_id, []).append((holding, value))
        chosen = []
        for several in of_clip.values():
            holdings = dict(several)
            first = several[0][0]
            if len({holding.digest for holding in holdings}) > 1:
                first = self._newest(stage, list(holdings), index)
            chosen.append(holdings[first])
        return chosen

    def _has_text(self, clip_id: str, digest: str) -> bool:
        """Return whether rows were computed from the manifest's transcript, or from one that it does not list."""
        if clip_id not in self._transcripts:
            return True
        text = self._transcripts[clip_id]
        return text is not None and text_digest(text) == digest.rpartition(":")[2]

    def _follows_text(self, stage: str) -> bool:
        """Return whether a stage's rows depend on the manifest's transcripts."""
        return "imported" not in self.recipe["recipe"] and "text" in sources(stage)

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
                file, part = self._files[clip_id]
                digests["media"] = part_digest(index.digest_of(file), part)
        return source_digest(stage, digests) or None

    @cached_property
    def _transcripts(self) -> dict[str, str | None]:
        from triptych.pipeline.manifest.writing import load_transcripts

        file = self.folder / "manifest.csv"
        return load_transcripts(file) if file.is_file() else {}

    @cached_property
    def _files(self) -> dict[str, tuple[Path, str]]:
        """By clip, its file, and which part of it the clip is."""
        return {clip.id: (clip.file, clip.part) for clip in self.manifest.clips}

    def _forget_shards(self) -> None:
        self._process = os.getpid()
        names: dict[str, Names] = {}  # by stage, since all its shards have one fingerprint

        def opened(path: Path, stage: str) -> CheckedShard:
            if self._check:
                self._check_once(path)
            shard = CheckedShard(path, stage, names.get(stage))
            names[stage] = shard.columns, shard.units
            return shard

        # A shard that leaves the cache is closed by its last reader, so threads do not close it for each other.
        self._open: Callable[[Path, str], CheckedShard] = lru_cache(OPEN_SHARDS)(opened)

    def _check_once(self, path: Path) -> None:
        try:
            check_once(path)
        except RemovedShardError:
            raise
        except ShardError:
            remember_damage(self.folder, [path])  # or `extract` would go on trusting its size and time
            raise

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("folder", "recipe", "_check", "_places")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_shards()


def _readable(recipe: dict[str, Any], folder: Path, index: FeatureIndex) -> dict[str, Any]:
    """Return the recipe with the old settings of stages whose features are being replaced."""
    old = {
        stage
        for stage, fingerprint in superseded_fingerprints(folder).items()
        if any(shard.fingerprint == fingerprint for shard in index.shards(stage))
    }
    return with_superseded(folder, old) if old else recipe
