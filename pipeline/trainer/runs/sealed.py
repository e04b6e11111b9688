"""The bytes of a checkpoint with their SHA-256, and what is checked of them before torch reads any.

A checkpoint is the zip file that ``torch.save`` writes; the checksum is the zip's comment, so that ``torch.load`` reads
it as usual. torch itself checks no checksum, so that a flipped bit would become another weight.
"""

from __future__ import annotations

import hashlib
import io
import zipfile

LABEL = b"triptych sha256:"
COMMENT = len(LABEL) + 64


def sealed(archive: bytes) -> bytes:
    """Add the checksum of an archive without a comment as its comment."""
    whole = archive[:-2] + COMMENT.to_bytes(2, "little")  # the comment's length is a zip file's last field
    return whole + LABEL + hashlib.sha256(whole).hexdigest().encode()


def has_seal(data: bytes) -> bool:
    """Return whether some bytes end in a seal, which need not fit."""
    return data[-COMMENT:].startswith(LABEL)


def seal_problem(data: bytes) -> str:
    """Compare a checkpoint with its checksum, and the size of its parts with its own; empty where both fit."""
    whole, comment = data[:-COMMENT], data[-COMMENT:]
    if comment != LABEL + hashlib.sha256(whole).hexdigest().encode():
        return "damaged: its bytes do not fit its checksum"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        return f"not a checkpoint ({error})"
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        return "not a checkpoint: its parts are compressed"
    if sum(part.file_size for part in parts) > len(data):
        return "not a checkpoint: its parts are longer than the file"
    return ""
