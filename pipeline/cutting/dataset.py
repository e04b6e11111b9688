"""The data set that cuts make: its clips, their manifest, and the reasons of what was left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from triptych.extractors.base import ExtractionError
from triptych.pipeline.cutting.cuts import Cut
from triptych.pipeline.cutting.files import FOLDER, ClipFile, MadeFile, Mode, make_files
from triptych.pipeline.manifest.clips import Clip, Manifest
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.manifest.transcripts import TimedText
from triptych.pipeline.manifest.writing import load_transcripts, write_manifest
from triptych.pipeline.storage.ledger import LedgerLine, LedgerWriter

EARLY = 0.5  # a copy begins at most this much before its span [s]
MOVED = 0.25  # a clip whose ends moved by more has another transcript [s]
STAGE = "cut"  # in the ledger


@dataclass(frozen=True)
class Recording:
    """A recording and what is known of it.

    Attributes
    ----------
    id
        Its name in the table of cuts, and the ``video_id`` of its clips.
    clip
        Its file, as the sources gave it.
    digest
        SHA-256 of its content.
    seconds
        Its length [s].
    pieces
        Its transcript with times, where one lies beside it.
    quiet
        Before each span of speech, since when nobody speaks and the shot is the same: pairs of that time and the
        begin of the speech [s].
    """

    id: str
    clip: Clip
    digest: str
    seconds: float
    pieces: tuple[TimedText, ...] = ()
    quiet: tuple[tuple[float, float], ...] = ()

    def earliest(self, start: float) -> float:
        """Return how early a copy of a span may begin [s]."""
        for since, speech in self.quiet:
            if since <= start <= speech:
                return max(since, start - EARLY)
        return start

    def text(self, start: float, end: float) -> str | None:
        """Return the pieces of the transcript that are spoken in a span, more inside of it than outside."""
        inside = [
            piece.text
            for piece in self.pieces
            if min(piece.end, end) - max(piece.start, start) > (piece.end - piece.start) / 2
        ]
        return " ".join(inside) or None


@dataclass(frozen=True)
class Written:
    """A data set that was written.

    Attributes
    ----------
    manifest
        Its clips.
    copied, encoded
        How many of their files have the recording's own packets, and how many were encoded.
    errors
        Clips whose files could not be made.
    new_texts
        Clips whose span has changed so that their transcript was removed or should be looked at.
    """

    manifest: Manifest
    copied: int
    encoded: int
    errors: Mapping[str, ExtractionError]
    new_texts: tuple[str, ...]


def write_dataset(
    dataset: Path,
    recordings: Sequence[Recording],
    cuts: Sequence[Cut],
    before: Sequence[Cut],
    *,
    mode: Mode,
    quality: int,
    jobs: int,
    watch: Callable[[str], object] = lambda _: None,
) -> Written:
    """Make the clips of a data set, write its manifest, and log what was left out.

    Transcripts, labels and splits of clips that were there before stay. Where a span has moved, a transcript by a
    recogniser is removed, and one by a person is reported.

    Parameters
    ----------
    before
        The cuts that the data set was made by until now.
    mode, quality
        How clips are written, and the quality of those that are encoded.
    watch
        Called with the id of every clip whose file was made.
    """
    by_id = {recording.id: recording for recording in recordings}
    chosen = [cut for cut in cuts if cut.keep and cut.recording in by_id]
    files: dict[str, MadeFile] = {}
    errors: dict[str, ExtractionError] = {}
    wanted = [] if mode == "none" else [_file(cut, by_id[cut.recording], mode, quality) for cut in chosen]
    files, errors = make_files(dataset, wanted, jobs, watch)
    clips = [
        _clip(cut, by_id[cut.recording], dataset, files.get(cut.clip_id))
        for cut in chosen
        if cut.clip_id not in errors
    ]
    manifest, new_texts = _merged(dataset, clips, cuts, before)
    write_manifest(manifest, dataset / "manifest.csv")
    _log(dataset, cuts, by_id, errors)
    copied = sum(made.copied for made in files.values())
    return Written(manifest, copied, len(files) - copied, errors, new_texts)


def _file(cut: Cut, recording: Recording, mode: Mode, quality: int) -> ClipFile:
    return ClipFile(
        cut.clip_id,
        str(recording.clip.file.absolute()),
        recording.digest,
        cut.start,
        cut.end,
        recording.earliest(cut.start),
        f"{FOLDER}/{cut.recording}/{cut.id}",
        mode,
        quality,
    )


def _clip(cut: Cut, recording: Recording, dataset: Path, made: MadeFile | None) -> Clip:
    """Return the clip of a cut: a file of its own, or a span of the recording."""
    face = cut.face or None
    text = recording.text(cut.start, cut.end)
    if made is None:
        return replace(recording.clip, id=cut.clip_id, text=text, start=cut.start, end=cut.end, face=face)
    return replace(
        recording.clip, id=cut.clip_id, path=made.path, root=str(dataset.absolute()), text=text, face=face
    )


def _merged(
    dataset: Path, clips: Sequence[Clip], cuts: Sequence[Cut], before: Sequence[Cut]
) -> tuple[Manifest, tuple[str, ...]]:
    """Take transcripts, labels and splits from the data set's manifest."""
    path = dataset / "manifest.csv"
    has_clips = path.is_file() and bool(load_transcripts(path))
    old = load_manifest(path, check_files=False) if has_clips else Manifest(())
    rows = {clip.id: clip for clip in old.clips}
    now, then = ({cut.clip_id: cut for cut in each} for each in (cuts, before))
    merged, changed = [], []
    for clip in clips:
        row = rows.get(clip.id)
        if row is None:
            merged.append(clip)
            continue
        moved = clip.id in then and _moved(now[clip.id], then[clip.id])
        by_machine = (row.text_source or "").startswith("asr:")
        text, source, confidence = row.text, row.text_source, row.text_confidence
        if text is None or (moved and by_machine):
            text, source, confidence = clip.text, clip.text_source, clip.text_confidence
        if moved and row.text is not None:
            changed.append(clip.id)
        labels = {name: getattr(row, name) for name in ("label", "label_T", "label_A", "label_V")}
        merged.append(
            replace(
                clip, text=text, text_source=source, text_confidence=confidence, split=row.split, **labels
            )
        )
    return replace(old, clips=tuple(merged)), tuple(changed)


def _moved(a: Cut, b: Cut) -> bool:
    return abs(a.start - b.start) > MOVED or abs(a.end - b.end) > MOVED


def _log(
    dataset: Path,
    cuts: Sequence[Cut],
    recordings: Mapping[str, Recording],
    errors: Mapping[str, ExtractionError],
) -> None:
    """Write a line of the ledger for each span: a clip, or the reason why it is none."""
    with LedgerWriter(dataset) as ledger:
        for cut in cuts:
            span = f"{cut.start:.3f} s to {cut.end:.3f} s"
            error = errors.get(cut.clip_id)
            if error is not None:
                outcome, reason, detail = "failed", str(error.reason), f"{span}: {error.detail}"
            elif cut.keep:
                outcome, reason, detail = "done", "", span
            else:
                outcome, reason = "absent", cut.reason or "left_out"
                detail = f"{span}: {cut.detail or 'left out by hand'}"
            digest = recordings[cut.recording].digest if cut.recording in recordings else ""
            ledger.write(LedgerLine(cut.clip_id, STAGE, outcome, reason, detail, cut.seconds, "", digest))  # type: ignore[arg-type]
