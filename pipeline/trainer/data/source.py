"""A feature folder as training reads it, and rows that stay in it until a batch needs them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triptych.extractors.base import Features
from triptych.pipeline.manifest.label_range import LabelRange

Read = TypeVar("Read")


class LabelledClip(Protocol):
    """The attributes of a manifest's clip that training reads; a missing label is NaN."""

    @property
    def id(self) -> str: ...
    @property
    def split(self) -> str | None: ...
    @property
    def label(self) -> float: ...
    @property
    def label_T(self) -> float: ...  # noqa: N802
    @property
    def label_A(self) -> float: ...  # noqa: N802
    @property
    def label_V(self) -> float: ...  # noqa: N802


class ClipList(Protocol):
    """The attribute of a manifest that training reads."""

    @property
    def clips(self) -> Sequence[LabelledClip]: ...
    @property
    def label_range(self) -> LabelRange: ...


class Store(Protocol):
    """The part of a feature folder that training reads; `storage.store.FeatureStore` is one."""

    @property
    def manifest(self) -> ClipList: ...
    @property
    def recipe(self) -> Mapping[str, Any]: ...
    def ids(self, stage: str) -> Collection[str]: ...
    def read(self, stage: str, clip_id: str) -> Features: ...


@dataclass(frozen=True)
class _Stored(Sequence[Read | None], Generic[Read]):
    """One modality of N clips; each access reads a clip from the feature folder.

    Attributes
    ----------
    store, stage
        Where the rows are; pickled with this object.
    ids
        N clips.
    present
        bool, shape (N,): the clip has usable rows.
    """

    store: Store
    stage: str
    ids: tuple[str, ...]
    present: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, row: int) -> Read | None: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Read | None]: ...
    def __getitem__(self, row: int | slice) -> Read | Sequence[Read | None] | None:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        return self._of(self.store.read(self.stage, self.ids[row])) if self.present[row] else None

    @abstractmethod
    def _of(self, features: Features) -> Read: ...


class StoredRows(_Stored[Features]):
    """Audio or vision rows."""

    def _of(self, features: Features) -> Features:
        return features


class StoredTexts(_Stored[Tensor]):
    """Text rows."""

    def _of(self, features: Features) -> Tensor:
        return text_rows(features)


def text_rows(features: Features) -> Tensor:
    """Return a text's valid rows, float32, shape (T, D)."""
    return torch.from_numpy(features.values[features.valid])
