"""The declaration of a stage: all that the other modules know about it. Imports no numpy.

A stage is one module that ends in a `Stage`, and one line in `registry`. Heavy modules
(torch, a model, a decoder) are imported inside its functions, since the command line reads all declarations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol

from triptych.extractors.settings import MediaSettings, Settings

if TYPE_CHECKING:
    from triptych.extractors.base import Features
    from triptych.extractors.inputs import ClipInputs

Columns = tuple[tuple[str, str], ...]  # (name, unit)
FACES = "faces"  # the stage whose face track aligned crops are cut by


class Input(StrEnum):
    """What a stage reads from a clip, besides the rows of other stages."""

    TEXT = "text"
    WAVEFORM = "waveform"
    FRAMES = "frames"
    CROPS = "aligned crops"
    MEDIA = "the media file"


class ClipExtractor(Protocol):
    """A loaded stage that handles one clip at a time."""

    def extract(self, clip: ClipInputs) -> Features:
        """Compute the rows of one clip.

        Raises
        ------
        triptych.extractors.base.ExtractionError
            The clip gives no features, for a typed reason.
        """


class BatchExtractor(Protocol):
    """A loaded stage that collects several clips and computes their rows together."""

    def add(self, clip_id: str, clip: ClipInputs) -> bool:
        """Add one clip; return True if `finish` should be called before the next one.

        Raises
        ------
        triptych.extractors.base.ExtractionError
            The clip gives no features; it is then not among those of `finish`.
        """

    def finish(self) -> Mapping[str, Features | Exception]:
        """Return the rows of every added clip by id, or its exception, and remove the clips."""


@dataclass(frozen=True)
class Downloaded:
    """A model that is on this machine now.

    Attributes
    ----------
    revision
        The hub's commit; empty for a folder.
    folder
        Where its files are.
    """

    name: str
    revision: str
    folder: str


def _unchanged(settings: Any) -> Any:
    return settings


def _nothing(*_: Any) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Stage:
    """One stream of features, declared.

    Attributes
    ----------
    name
        Lower-case letters, digits, ``-`` and ``_``: the name of its folder of shards and of its recipe section.
    row
        What one row represents, in a short phrase for the documentation.
    settings
        The settings model of its recipe section.
    reads
        Its inputs. Aligned crops imply frames and the rows of the stage ``faces``.
    rows_of
        Further stages whose rows it reads.
    columns
        The column layouts, names with units, that rows of a given width may have.
    row_rate
        Rows per second [Hz] under its settings and the media settings; None where rows have no times, or no
        rate. Where it is known only once the model is loaded, the extractor has it as its attribute `row_rate`.
    uneven
        Its rows have times at no fixed rate; `row_rate` is None.
    extras
        HDF5 types, by name, of the arrays with one entry a row besides `values`; ``str`` is UTF-8.
    load
        Loads the stage once in a worker, from its settings, the media settings and torch's device.
    batched
        `load` gives a `BatchExtractor` instead of a `ClipExtractor`.
    shares_start
        Given its settings, whether a batch starts a program whose start takes long, while the clips of a batch do not
        change each other's rows: then a batch may have the clips of several groups.
    version
        Raised whenever a change of the code changes the numbers.
    packages
        Distributions whose versions are recorded in its shards.
    model_identity
        Names what its model's numbers depend on, for the fingerprint; never a path.
    identified
        Settings that `model_identity` stands for: they are left out of the fingerprint.
    resolve
        Replaces settings that are left open (a newest revision, an automatic backend) by what this machine has,
        and checks that it can be used. Raises `BackendMissingError` or `UnusableSettingError`.
    keep_resolved
        Given a folder's section and the section that replaces it, returns the resolved settings of the folder that
        the new section does not set itself.
    attributes
        Further root attributes of its shards.
    prepare
        Called once in the parent process before workers start, for work that each of them would repeat
        (for example the conversion of a model).
    download
        Fetches its model into the cache, for `triptych models pull`; None where no model is downloaded, as what it
        returns where these settings need none.
    notice
        A notice about these settings for the user when a run starts; empty for none.
    clean_up
        Removes temporary files outside the feature folder: this process's own, or those of killed processes.
    default
        A run makes it unless stages are named.
    """

    name: str
    row: str
    settings: type[Settings]
    reads: tuple[Input, ...]
    columns: Callable[[int], Sequence[Columns]]
    row_rate: Callable[[Any, MediaSettings], float] | None
    load: Callable[[Any, MediaSettings, str], ClipExtractor | BatchExtractor]
    rows_of: tuple[str, ...] = ()
    uneven: bool = False
    extras: Mapping[str, str] = field(default_factory=dict)
    batched: bool = False
    shares_start: Callable[[Any], bool] = lambda settings: False
    version: int = 1
    packages: tuple[str, ...] = ()
    model_identity: Callable[[Any], str] = lambda settings: ""
    identified: frozenset[str] = frozenset()
    resolve: Callable[[Any], Any] = _unchanged
    keep_resolved: Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]] = _nothing
    attributes: Callable[[Any], Mapping[str, str | int | float]] = _nothing
    prepare: Callable[[Any, str], None] = lambda settings, device: None
    download: Callable[[Any], Downloaded | None] | None = None
    notice: Callable[[Any], str] = lambda settings: ""
    clean_up: Callable[[Literal["own", "stale"]], None] = lambda whose: None
    default: bool = False

    @property
    def upstream(self) -> tuple[str, ...]:
        """Return the stages whose rows it reads."""
        track = (FACES,) if Input.CROPS in self.reads else ()
        return (*track, *(name for name in self.rows_of if name not in track))

    @property
    def sources(self) -> frozenset[str]:
        """Return which parts of a clip it reads itself: the transcript, the media file, or both."""
        text = {"text"} if Input.TEXT in self.reads else set()
        media = {"media"} if set(self.reads) - {Input.TEXT} else set()
        return frozenset({*text, *media})

    @property
    def media_settings(self) -> tuple[str, ...]:
        """Return the media settings that its rows, or whether it has any, depend on."""
        frames = ("frame_rate", "deinterlace", "truncated")
        names = {
            Input.WAVEFORM: ("sample_rate", "truncated"),
            Input.FRAMES: frames,
            Input.CROPS: frames,
            Input.MEDIA: ("truncated",),
        }
        return tuple(dict.fromkeys(name for one in self.reads for name in names.get(one, ())))


def numbered(prefix: str, width: int) -> Columns:
    """Name columns ``<prefix>_0`` onwards, without units."""
    return tuple((f"{prefix}_{i}", "") for i in range(width))


def text_columns(width: int) -> Columns:
    """Name the hidden units of an encoder ``h_0`` onwards, without units."""
    return numbered("h", width)


def unnamed_columns(stage: str, width: int) -> Columns:
    """Number the columns of a file without column names: ``audio_0`` onwards, ``h_0`` for text."""
    return text_columns(width) if stage == "text" else numbered(stage, width)
