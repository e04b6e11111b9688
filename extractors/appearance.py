"""The stage `appearance`: an embedding of each aligned crop, or whole frame, by a pretrained image model.

Any image model of transformers: DINOv2 and ViT (the class token), CLIP and SigLIP (the image embedding).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from triptych.extractors.base import ExtractionError, Features, Reason, UnusableSettingError
from triptych.extractors.pretrained import (
    download,
    keep_model,
    load_pretrained,
    model_identity,
    resolve_model,
)
from triptych.extractors.settings import MediaSettings, ModelName, PretrainedSettings, Revision
from triptych.extractors.stage import Input, Stage, numbered

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from triptych.extractors.faces.crops import Aligned
    from triptych.extractors.inputs import ClipInputs

BATCH = 16  # images that the model sees at once


class AppearanceSettings(PretrainedSettings):
    """The image model, and how its input images are cut."""

    section: ClassVar[str] = "appearance"

    model: ModelName = "facebook/dinov2-base"
    revision: Revision = "f9e44c814b77203eaa57a6bdbbd535f21ede1415"
    rate: Annotated[
        float, Field(ge=0.1, le=240, description="Rows per second, at most the recipe's frame rate.")
    ] = 5.0
    input: Annotated[
        Literal["stable", "original", "frame"],
        Field(description="A steady square crop, a crop of each frame's own box, or the whole frame."),
    ] = "stable"
    image_size: Annotated[int, Field(ge=32, le=1024, description="Side of a crop [pixels].")] = 224


class ImageEncoder:
    """An image model, loaded once.

    Parameters
    ----------
    settings
        The stage's settings, resolved.
    frame_rate
        Rate of the frames of all clips [Hz].
    device
        The device that torch computes on.

    Raises
    ------
    BackendMissingError
        The model cannot be loaded.
    UnusableSettingError
        The rate is higher than the frame rate, or the model gives no embedding of an image.
    """

    def __init__(self, settings: AppearanceSettings, frame_rate: float, device: str = "cpu") -> None:
        from transformers import AutoImageProcessor, AutoModel

        if settings.rate > frame_rate:
            raise UnusableSettingError(
                f"appearance.rate = {settings.rate}: higher than media.frame_rate ({frame_rate}). Lower it"
            )
        self._prepare = load_pretrained(settings, AutoImageProcessor.from_pretrained)
        self._model = load_pretrained(settings, AutoModel.from_pretrained).eval().float().to(device)
        self._settings, self._frame_rate, self._device = settings, frame_rate, device

    def extract(self, clip: ClipInputs) -> Features:
        """Embed the crops of one clip.

        Returns
        -------
        Features
            Shape (T, D), row k at ``k / rate`` seconds, rounded to a frame. Where the track has no face the row
            is zeros and not valid; with ``input = frame`` every row is valid.

        Raises
        ------
        ExtractionError
            `Reason.NO_FACE`: no row shows a face.
        """
        import numpy as np

        times: list[float] = []
        valid: list[bool] = []
        parts: list[NDArray[np.float32]] = []
        batch: list[NDArray[np.uint8]] = []
        for crop in self._chosen(clip.crops(self._settings)):
            times.append(crop.time)
            valid.append(crop.found or self._settings.input == "frame")
            if valid[-1]:
                batch.append(crop.image.copy())
            if len(batch) == BATCH:
                parts.append(self.embed(batch))
                batch = []
        if batch:
            parts.append(self.embed(batch))
        if not parts:
            raise ExtractionError(Reason.NO_FACE, f"no face in any of the {len(times)} frames looked at")
        embedded = np.concatenate(parts)
        values = np.zeros((len(times), embedded.shape[1]), np.float32)
        values[np.array(valid)] = embedded
        names, units = zip(*numbered("e", values.shape[1]), strict=True)
        return Features(values, names, units, np.array(times), np.array(valid))

    def embed(self, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Embed RGB images, uint8, shape (H, W, 3) each; float32, shape (len(images), D)."""
        import torch

        pixels = self._prepare(images=images, return_tensors="pt")["pixel_values"].to(self._device)
        with torch.inference_mode():
            rows: NDArray[np.float32] = self._embedding(pixels).float().cpu().numpy()
        return rows

    def _embedding(self, pixels: Any) -> Any:
        """Return a model's image embedding, or the class token of a vision transformer, which has none."""
        if hasattr(self._model, "get_image_features"):
            found = self._model.get_image_features(pixel_values=pixels)
            return getattr(found, "pooler_output", found)
        output = self._model(pixel_values=pixels)
        if getattr(output, "pooler_output", None) is not None and output.pooler_output.ndim == 2:
            return output.pooler_output
        if output.last_hidden_state.ndim == 3:
            return output.last_hidden_state[:, 0]
        return output.last_hidden_state.mean(dim=(2, 3))  # a convolutional network: (N, D, H, W)

    def _chosen(self, crops: Iterable[Aligned]) -> Iterator[Aligned]:
        """Choose the frames nearest to ``k / rate``; every frame is cut, since crops are smoothed over time."""
        row, step = 0, self._frame_rate / self._settings.rate
        for crop in crops:
            if crop.slot >= round(row * step):
                yield crop
            while round(row * step) <= crop.slot:
                row += 1


def _load(settings: AppearanceSettings, media: MediaSettings, device: str) -> ImageEncoder:
    return ImageEncoder(settings, media.frame_rate, device)


STAGE = Stage(
    name="appearance",
    row="1 / `rate` s of frames",
    settings=AppearanceSettings,
    reads=(Input.CROPS,),
    columns=lambda width: [numbered("e", width)],
    row_rate=lambda settings, media: settings.rate,
    load=_load,
    packages=("av", "opencv-python-headless", "torch", "torchvision", "transformers"),
    model_identity=model_identity,
    identified=frozenset({"model", "revision"}),
    resolve=resolve_model,
    keep_resolved=keep_model,
    download=lambda settings: download(settings, lambda found: _load(found, MediaSettings(), "cpu")),
    attributes=lambda settings: {"input": settings.input},
)
