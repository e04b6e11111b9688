"""A feature folder as a torch data set, for the user's own training loops.

>>> data = FeatureDataset(FeatureStore(Path("features")), split="train")
>>> loader = DataLoader(data, batch_size=32, shuffle=True, num_workers=2, collate_fn=pad_batch)
>>> for batch in loader:
...     batch["audio"], batch["audio_mask"], batch["labels"]  # (B, L, 33), (B, L), (B, 4)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from triptych.pipeline.errors import InputError
from triptych.pipeline.manifest.clips import SPLITS
from triptych.pipeline.manifest.columns import LABELS
from triptych.pipeline.storage.store import FeatureStore

STAGES = ("text", "audio", "vision")


class FeatureDataset(Dataset[dict[str, Any]]):
    """The clips of a feature folder that have features of all the given stages, read on access.

    Only the position of each clip is in memory. The workers of a `DataLoader`, forked or spawned, may use it: each
    process opens the shards itself.

    Parameters
    ----------
    store
        The feature folder.
    split
        ``train``, ``valid`` or ``test``; all clips without it.
    stages
        The stages of a sample.

    Attributes
    ----------
    ids
        The clips, sorted.

    Raises
    ------
    InputError
        The folder has no readable manifest, or no features of a stage.
    ValueError
        The split does not exist.
    """

    def __init__(self, store: FeatureStore, split: str | None = None, stages: Sequence[str] = STAGES) -> None:
        if split not in (None, *SPLITS):
            raise ValueError(f"split {split!r}: there are {', '.join(SPLITS)}")
        if missing := [stage for stage in stages if not store.ids(stage)]:
            raise InputError(
                f"{store.folder}: no {' and no '.join(missing)} features. `triptych status` lists why"
            )
        self.store = store
        self.stages = tuple(stages)
        complete = frozenset(store.complete_ids(self.stages))
        clips = {
            clip.id: clip
            for clip in store.manifest.clips
            if clip.id in complete and (split is None or clip.split == split)
        }
        self.ids = tuple(sorted(clips))
        labels = [[getattr(clips[clip_id], name) for name in LABELS] for clip_id in self.ids]
        self._labels = torch.tensor(labels, dtype=torch.float32).reshape(len(labels), len(LABELS))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one clip.

        Returns
        -------
        dict
            ``id``; by stage its rows, float32, shape (T, D), and under ``<stage>_mask`` which of them are usable,
            bool, shape (T,); ``labels``, float32, shape (4,), M, T, A and V, NaN where missing.

        Raises
        ------
        IndexError
            There are fewer clips.
        ShardError
            The shard that holds it is damaged.
        """
        sample: dict[str, Any] = {"id": self.ids[index], "labels": self._labels[index]}
        for stage in self.stages:
            features = self.store.read(stage, self.ids[index])
            sample[stage] = torch.from_numpy(features.values)
            sample[f"{stage}_mask"] = torch.from_numpy(features.valid)
        return sample


def pad_batch(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join samples for a `DataLoader`, rows padded with zeros, and masks with False, to the longest clip's.

    Returns
    -------
    dict
        ``id``, a list; every other key of the samples, a batch of its tensors.
    """
    batch: dict[str, Any] = {"id": [sample["id"] for sample in samples]}
    for key in samples[0]:
        if key != "id":
            tensors: list[Tensor] = [sample[key] for sample in samples]
            batch[key] = pad_sequence(tensors, batch_first=True)
    return batch
