"""Run one stage on one clip in this process, from a path or plain arrays, without a feature folder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from triptych.extractors.base import ExtractionError, Features, Frame, Reason
from triptych.extractors.inputs import ClipInputs, with_media_notes
from triptych.extractors.registry import stages
from triptych.extractors.stage import Input, Stage
from triptych.pipeline.errors import InputError
from triptych.pipeline.run.group import load_stage
from triptych.pipeline.stages.fingerprints import resolve
from triptych.pipeline.stages.recipe import Recipe

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from triptych.extractors.media.source import MediaSource


def compute(
    stage: str,
    recipe: Recipe,
    *,
    path: Path | None = None,
    text: str | None = None,
    waveform: ArrayLike | None = None,
    sample_rate: float | None = None,
    frames: Iterable[NDArray[np.uint8]] | None = None,
    frame_rate: float | None = None,
    device: str = "cpu",
) -> Features:
    """Run one stage, and the stages that it reads, on a media file or arrays. See `triptych.compute`."""
    if stage not in stages():
        raise InputError(f"unknown stage {stage!r}; choose from {', '.join(stages())}")
    if frames is not None:
        if frame_rate is None:
            raise InputError("frames: give their frame_rate [Hz] too")
        _check_rate("frame_rate", frame_rate)
        media = recipe.media.model_copy(update={"frame_rate": float(frame_rate)})
        recipe = recipe.model_copy(update={"media": media})
    recipe = resolve(recipe, [stage])
    inputs = _Inputs(recipe, path, text, waveform, sample_rate, frames, device)
    return inputs.rows(stage)


def _check_rate(name: str, rate: float) -> None:
    if not 0 < rate < math.inf:
        raise InputError(f"{name} = {rate}: give a number above 0 [Hz]")


class _Inputs:
    """The inputs of one clip, and the rows that were computed from them."""

    def __init__(
        self,
        recipe: Recipe,
        path: Path | None,
        text: str | None,
        waveform: ArrayLike | None,
        sample_rate: float | None,
        frames: Iterable[NDArray[np.uint8]] | None,
        device: str,
    ) -> None:
        self._recipe, self._device = recipe, device
        self._text, self._frames = text, None if frames is None else list(frames)
        self._waveform = None if waveform is None else self._resampled(np.asarray(waveform), sample_rate)
        self._source: MediaSource | None = None if path is None else self._opened(path)
        self._rows: dict[str, Features] = {}

    def rows(self, name: str) -> Features:
        """Run a stage once."""
        if name not in self._rows:
            stage = stages()[name]
            if Input.TEXT in stage.reads and not (self._text and self._text.strip()):
                raise ExtractionError(Reason.NO_TRANSCRIPT, f"stage {name} reads a transcript: give text=")
            extractor = load_stage(name, self._recipe.section(name), self._recipe.media, self._device)
            notes = None if self._source is None else self._source.notes
            self._rows[name] = with_media_notes(self._run(extractor, stage), stage, notes)
        return self._rows[name]

    def _run(self, extractor: Any, stage: Stage) -> Features:
        source = self._source
        opened = None if source is None else lambda: source
        inputs = ClipInputs(stage, self._text or "", self._sound, self._images, self.rows, open_media=opened)
        if not stage.batched:
            found: Features = extractor.extract(inputs)
            return found
        extractor.add("clip", inputs)
        result: Features | Exception = extractor.finish()["clip"]
        if isinstance(result, Exception):
            raise result
        return result

    def _sound(self) -> NDArray[np.float32]:
        if self._waveform is not None:
            return self._waveform
        if self._source is None:
            raise ExtractionError(Reason.NO_AUDIO_STREAM, "no sound: give path= or waveform=")
        sound: NDArray[np.float32] = self._source.waveform()
        return sound

    def _images(self) -> Iterator[Frame]:
        if self._frames is not None:
            rate = self._recipe.media.frame_rate
            yield from (Frame(slot, slot / rate, image) for slot, image in enumerate(self._frames))
        elif self._source is None:
            raise ExtractionError(Reason.NO_VIDEO_STREAM, "no frames: give path= or frames=")
        else:
            yield from self._source.frames()

    def _opened(self, path: Path) -> MediaSource:
        from triptych.extractors.media.source import MediaSource

        return MediaSource(path, self._recipe.media)

    def _resampled(self, waveform: NDArray[Any], rate: float | None) -> NDArray[np.float32]:
        import soxr

        if rate is None:
            raise InputError("waveform: give its sample_rate [Hz] too")
        _check_rate("sample_rate", rate)
        if waveform.ndim != 1 or waveform.dtype.kind != "f":
            raise InputError(
                f"waveform: {waveform.dtype} of shape {waveform.shape}; give one channel of floating-point "
                "samples, full scale 1"
            )
        own = self._recipe.media.sample_rate
        sound = waveform.astype(np.float32)
        return sound if rate == own else soxr.resample(sound, rate, own, quality="soxr_hq").astype(np.float32)
