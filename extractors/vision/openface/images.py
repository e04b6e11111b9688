"""A clip's images as the program reads them: BMP files in a folder, numbered."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from triptych.extractors.base import ExtractionError, Reason
from triptych.extractors.vision.openface.scratch import Scratch, disk_root, memory_root

# The program aborts on images of about 24 pixels, and gives no usable result for smaller faces.
SMALLEST_SIDE = 32


def bmp(image: NDArray[np.uint8]) -> bytes:
    """Encode an image, RGB, shape (H, W, 3), without loss or compression."""
    done, data = cv2.imencode(".bmp", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError(f"OpenCV cannot encode an image of shape {image.shape}")
    return bytes(data.data)


class ImageFolder:
    """The folder of one clip: in memory while it is small and memory is free, else in the temporary folder.

    Parameters
    ----------
    name
        The folder's name, and that of its CSV.
    in_memory
        Largest size in bytes in memory-backed space; with 0 it is never used.
    """

    def __init__(self, scratch: Scratch, name: str, in_memory: int) -> None:
        self._scratch, self._name, self._in_memory = scratch, name, in_memory
        self.count = self.bytes = 0
        self.root = memory_root(in_memory) if in_memory else None
        self.folder = self._make()

    def _make(self) -> Path:
        try:
            folder = self._scratch.under(self.root or disk_root()) / self._name
            folder.mkdir()
        except OSError as error:
            if self.root is None:
                raise _no_room(error) from error
            self.root = None
            return self._make()
        return folder

    def append(self, image: NDArray[np.uint8]) -> None:
        """Write the next image.

        Raises
        ------
        ExtractionError
            ``frame_too_small``, or ``no_scratch_space``.
        """
        if min(image.shape[:2]) < SMALLEST_SIDE:
            raise ExtractionError(
                Reason.FRAME_TOO_SMALL,
                f"an image of {image.shape[1]} x {image.shape[0]} pixels, where OpenFace needs {SMALLEST_SIDE}",
            )
        data = bmp(image)
        if self.root is not None and self.bytes + len(data) > self._in_memory:
            self._leave_memory()
        self._write(data)
        self.count += 1
        self.bytes += len(data)

    def _write(self, data: bytes) -> None:
        try:
            # The program reads the names in alphabetical order, hence the zeros.
            (self.folder / f"{self.count:08d}.bmp").write_bytes(data)
        except OSError as error:
            if self.root is None:
                raise _no_room(error) from error
            self._leave_memory()
            self._write(data)

    def _leave_memory(self) -> None:
        before, self.root = self.folder, None
        self.folder = self._make()
        try:
            for file in before.iterdir():
                shutil.copyfile(file, self.folder / file.name)
        except OSError as error:
            raise _no_room(error) from error
        finally:
            shutil.rmtree(before, ignore_errors=True)

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _no_room(error: OSError) -> ExtractionError:
    return ExtractionError(
        Reason.NO_SCRATCH_SPACE,
        f"the images for OpenFace cannot be written ({error.strerror or error}) in {disk_root()}; make room "
        "there, or name a folder with more by TMPDIR",
    )
