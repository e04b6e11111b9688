"""A feature folder as Parquet files and a card, which Hugging Face's `datasets.load_dataset(FOLDER)` opens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from triptych.pipeline.atomic import replacing, write_whole
from triptych.pipeline.errors import InputError
from triptych.pipeline.exchange.chosen import by_split, chosen_stages, clips_with
from triptych.pipeline.exchange.table_files import ROW_GROUP, arrow_type, require_pyarrow
from triptych.pipeline.manifest.clips import Clip
from triptych.pipeline.manifest.columns import LABELS
from triptych.pipeline.storage.schema import row_types
from triptych.pipeline.storage.store import FeatureStore

if TYPE_CHECKING:
    import pyarrow as pa

SHARD_SIZE = 256 * 2**20  # bytes of numbers in a file
SPLIT_NAMES = {"valid": "validation"}  # as `datasets` calls it
CARD = "README.md"


@dataclass(frozen=True)
class Field:
    """One feature of a data set.

    Attributes
    ----------
    kind
        ``str``, or a type of numpy.
    is_list
        A value for each row of a stage, instead of one for the clip.
    width
        Numbers in each row; 0 where a row has a single value.
    """

    name: str
    kind: str
    is_list: bool = False
    width: int = 0

    def arrow(self) -> pa.DataType:
        """Return its type in Parquet."""
        import pyarrow as pa

        one = pa.list_(arrow_type(self.kind), self.width) if self.width else arrow_type(self.kind)
        return pa.list_(one) if self.is_list else one

    def card(self) -> str:
        """Return its lines in the card."""
        kind = "string" if self.kind == "str" else self.kind
        if self.width:
            return f"  - name: {self.name}\n    list:\n      list: {kind}\n      length: {self.width}\n"
        return f"  - name: {self.name}\n    {'list' if self.is_list else 'dtype'}: {kind}\n"


def export_hf(
    store: FeatureStore, folder: Path, only: Sequence[str] | None = None, size: int = SHARD_SIZE
) -> dict[str, int]:
    """Write ``data/<split>-00000.parquet`` and so on, and ``README.md``; the number of clips by split.

    The splits are train, validation and test, and unassigned for clips without one. A clip has id, transcript and
    labels, and for each stage ``<stage>``, a list of rows of D float32, ``<stage>_times`` [s] where rows have times,
    ``<stage>_valid``, and a list for each further array, such as ``audio_voiced``. All of them are null where the clip
    has no features of the stage.

    Parameters
    ----------
    store
        The feature folder.
    folder
        A folder without Parquet files in ``data``; created if it is missing.
    only
        The stages; by default all that have features.
    size
        A file ends with the clip that makes its numbers as many as this [bytes].

    Raises
    ------
    InputError
        A stage is unknown or has no features, the folder has a data set already, or pyarrow is missing.
    """
    require_pyarrow("--to hf")
    stages = chosen_stages(store, only)
    if any((folder / "data").glob("*.parquet")) or (folder / CARD).exists():
        raise InputError(f"{folder}: already has a data set or a {CARD}; pass a new or an empty folder")
    (folder / "data").mkdir(parents=True, exist_ok=True)
    fields = _fields(store, stages)
    counts, sizes = {}, {}
    for split, clips in by_split(clips_with(store, stages)).items():
        name = SPLIT_NAMES.get(split, split)
        sizes[name] = _write(store, folder / "data", name, clips, (stages, fields), size)
        counts[name] = len(clips)
    write_whole(folder / CARD, _card(store, fields, counts, sizes).encode())
    return counts


def _fields(store: FeatureStore, stages: Sequence[str]) -> tuple[Field, ...]:
    fields = [Field("id", "str"), Field("transcript", "str"), *(Field(name, "float64") for name in LABELS)]
    for stage in stages:
        first = store.read(stage, store.ids(stage)[0])
        fields.append(Field(stage, "float32", is_list=True, width=len(first.columns)))
        fields += [
            Field(f"{stage}_{name}", kind, is_list=True)
            for name, kind in row_types(stage).items()
            if name != "times" or not np.isnan(first.times).all()
        ]
    return tuple(fields)


def _write(
    store: FeatureStore,
    folder: Path,
    split: str,
    clips: Sequence[Clip],
    what: tuple[Sequence[str], Sequence[Field]],
    size: int,
) -> int:
    """Write a split's files, each as row groups of about 32 MiB; their bytes in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    stages, fields = what
    schema = pa.schema([pa.field(field.name, field.arrow()) for field in fields])
    texts = [field.name for field in fields if field.kind == "str" and not field.is_list]
    number, total, written = 0, 0, size  # as if a file before the first one were full
    with ExitStack() as opened:
        file: Any = None
        for rows, count in _row_groups(store, stages, clips, min(ROW_GROUP, size)):
            if written >= size:
                opened.close()  # completes the file before
                temporary = opened.enter_context(replacing(folder / f"{split}-{number:05d}.parquet"))
                file = opened.enter_context(pq.ParquetWriter(temporary, schema, use_dictionary=texts))
                number, written = number + 1, 0
            columns = [_array(pa, [row.get(field.name) for row in rows], field) for field in fields]
            table = pa.Table.from_arrays(columns, schema=schema)
            file.write_table(table, row_group_size=len(rows))
            written, total = written + count, total + table.nbytes
    return total


def _row_groups(
    store: FeatureStore, stages: Sequence[str], clips: Sequence[Clip], size: int
) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Clips as dictionaries, some at a time, and the bytes of their numbers."""
    ids = {stage: frozenset(store.ids(stage)) for stage in stages}
    rows: list[dict[str, Any]] = []
    count = 0
    for clip in clips:
        row: dict[str, Any] = {"id": clip.id, "transcript": clip.text}
        row |= {name: getattr(clip, name) for name in LABELS}
        for stage, known in ids.items():
            if clip.id not in known:
                continue
            features = store.read(stage, clip.id)
            arrays = {"times": features.times, "valid": features.valid, **features.extras}
            row |= {stage: features.values, **{f"{stage}_{name}": one for name, one in arrays.items()}}
            count += features.values.nbytes
        rows.append(row)
        if count >= size:
            yield rows, count
            rows, count = [], 0
    if rows:
        yield rows, count


def _array(pa: Any, values: Sequence[Any], field: Field) -> Any:
    """A column of Arrow; lists from their joined rows, without an object for each number."""
    if not field.is_list:
        return pa.array(values, field.arrow(), from_pandas=True)  # NaN becomes null
    present = [value for value in values if value is not None]
    ends = np.cumsum([0, *(0 if value is None else len(value) for value in values)])
    # A list is null where its offset is.
    offsets = pa.array(
        ends.astype(np.int32), pa.int32(), mask=np.array([value is None for value in values] + [False])
    )
    kind = arrow_type(field.kind)
    if not present:
        return pa.nulls(len(values), field.arrow())
    flat = np.concatenate([np.ravel(value) for value in present])
    inner = pa.array(flat, kind, from_pandas=True)
    if field.width:
        inner = pa.FixedSizeListArray.from_arrays(inner, field.width)
    return pa.ListArray.from_arrays(offsets, inner)


def _card(store: FeatureStore, fields: Sequence[Field], counts: dict[str, int], sizes: dict[str, int]) -> str:
    """Return the card: YAML that `datasets` reads, and a few sentences."""
    splits = "".join(
        f"  - name: {name}\n    num_bytes: {sizes[name]}\n    num_examples: {count}\n"
        for name, count in counts.items()
    )
    files = "".join(f"  - split: {name}\n    path: data/{name}-*.parquet\n" for name in counts)
    features = "".join(field.card() for field in fields)
    low, high = store.label_range
    stages = json.dumps(store.recipe["fingerprints"], indent=1)
    return (
        f"---\ndataset_info:\n  features:\n{features}  splits:\n{splits}"
        f"configs:\n- config_name: default\n  data_files:\n{files}---\n\n"
        f"# Features of {sum(counts.values())} clips\n\n"
        "Extracted by triptych. A feature that is named after a stage is a list of rows; `<stage>_times` are seconds, "
        f"and rows with `<stage>_valid` false have no measured values. Labels are from {low:g} to {high:g}.\n\n"
        f"Fingerprints of the stages:\n\n```json\n{stages}\n```\n"
    )
