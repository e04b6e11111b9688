"""What a user can do about each reason for which a stage of a clip has no features."""

from __future__ import annotations

from triptych.extractors.base import Reason

_SLOWLY = "Try again alone: `extract --retry-failed -j 1`"

REMEDIES: dict[Reason, str] = {
    Reason.FILE_MISSING: "Restore the file, or correct its path in the manifest, and run extract again",
    Reason.NOT_A_FILE: "Replace it by a media file, or remove it from the manifest",
    Reason.NOT_MEDIA: "Name the clips themselves; playlists, scripts and images are not read",
    Reason.UNDECODABLE: "Check that the file plays; copy it again, or convert it with ffmpeg",
    Reason.TRUNCATED: "Copy the file again, or accept what can be decoded: --set media.truncated=note",
    Reason.TOO_LONG: "Cut the clip, or raise the limit: --set media.max_seconds=SECONDS --retry-failed",
    Reason.TOO_LARGE: "Scale the clip down, or raise the limit: --set media.max_pixels=NUMBER --retry-failed",
    Reason.NO_VIDEO_STREAM: "Nothing to do: a clip that has sound alone has no faces",
    Reason.NO_AUDIO_STREAM: "Nothing to do if the clip has no sound; otherwise check the file",
    Reason.EMPTY_AUDIO: "The stream holds no sound; check the file",
    Reason.NON_FINITE_AUDIO: "The sound has invalid samples; convert the file to 16-bit PCM with ffmpeg",
    Reason.NO_FACE: "Check that a face is visible, upright and at least about 20 pixels high",
    Reason.NO_TRANSCRIPT: "Add a transcript beside the clip or in the manifest",
    Reason.NOT_ALIGNED: "Check that the transcript is that of the clip, and in the language of words.model",
    Reason.NO_SPEECH: "Nothing to do if nobody speaks; otherwise write the transcript by hand",
    Reason.OPENFACE_CRASHED: "Run `triptych doctor`; --set vision.backend=facemesh needs no OpenFace",
    Reason.OPENFACE_SHORT: "Check the free space in /dev/shm and TMPDIR, then use --retry-failed",
    Reason.TIMEOUT: f"Raise --clip-timeout if the clip needs longer. {_SLOWLY}",
    Reason.FRAME_TOO_SMALL: "The frames are too small for OpenFace; use clips with larger frames",
    Reason.NO_SCRATCH_SPACE: "Free space in /dev/shm, or set TMPDIR to a larger disk; then use --retry-failed",
    Reason.OUTSIDE_FILE: "Correct start and end of the clip in the manifest",
    Reason.FILE_CHANGED: "Run extract again when the file no longer changes",
    Reason.WORKER_KILLED: f"A library crashed on the clip; check that the file plays. {_SLOWLY}",
    Reason.OUT_OF_MEMORY: f"Use fewer workers (-j) or a smaller --buffer-mib. {_SLOWLY}",
    Reason.NOT_IN_FILE: "The imported file has no rows for the clip",
    Reason.UNEXPECTED: "An error in the code of a stage; report it with the detail shown here",
}
"""By reason: one sentence, without a full stop."""
