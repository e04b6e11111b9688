"""Open a media file, choose its streams and decode one of them."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import av
from av.stream import Disposition

from triptych.extractors.base import ExtractionError, Reason

# The demuxers that read frames and sound from the one file that they are given. Playlists, concat scripts, image
# sequences, subtitles and capture devices are left out: they name other files, or are no clip.
FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,apac,ape,apm,apng,aptx,asf,asf_o,au,av1,avi,avs2,avs3,bink,bit,caf,"
    "cavsvideo,cdxl,cine,dhav,dirac,dnxhd,dsf,dss,dts,dtshd,dv,dxa,eac3,evc,f32be,f32le,f64be,f64le,"
    "film_cpk,flac,flic,flv,g722,gif,gsm,gxf,h261,h263,h264,hevc,iff,ilbc,ircam,ivf,kux,live_flv,loas,"
    "lvf,lxf,m4v,matroska,mjpeg,mlp,mm,mov,mp3,mp4,mpc,mpc8,mpeg,mpegts,mpegvideo,msf,mtv,mv,mxf,nc,"
    "nistsphere,nsv,nut,nuv,obu,ogg,oma,pva,pvf,qcp,rl2,rm,roq,rso,sbc,shn,sln,smjpeg,smk,sox,spdif,"
    "swf,tak,tmv,truehd,tta,ty,usm,vc1,vc1test,vivo,voc,vqf,vvc,w64,wav,webm,wsaud,wsvqa,wtv,wv,xwma,"
    "yop,yuv4mpegpipe"
)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a clip's file, and only that: nothing that it names is read.

    Raises
    ------
    ExtractionError
        ``file_missing``, ``not_a_file`` (a FIFO, a socket or a device), ``not_media`` (a playlist or a script) or
        ``undecodable``.
    """
    _check_file(path)
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    container = None
    try:
        # "file:" keeps a colon in a name from being read as a protocol. Titles are often not UTF-8.
        with av.open(f"file:{path}", metadata_errors="replace", container_options=options) as container:
            yield container
    except av.FFmpegError as error:
        if container is None and error.errno == errno.EINVAL:  # the answer to a format that is not allowed
            raise ExtractionError(
                Reason.NOT_MEDIA, f"{path}: a playlist, script, subtitle or image, not a clip"
            ) from error
        raise ExtractionError(Reason.UNDECODABLE, f"{path}: {error.strerror}") from error


def _check_file(path: Path) -> None:
    """Raise unless a path is a file with content: to open a FIFO would wait for its writer."""
    try:
        status = path.stat()
    except OSError as error:
        broken = path.is_symlink() and isinstance(error, FileNotFoundError)
        what = "a link to a file that does not exist" if broken else "file not found"
        raise ExtractionError(Reason.FILE_MISSING, f"{path}: {what}") from error
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        raise ExtractionError(Reason.FILE_MISSING, f"{path}: a folder, not a file")
    if not stat.S_ISREG(mode):
        kinds = {stat.S_ISFIFO: "a FIFO", stat.S_ISSOCK: "a socket"}
        kind = next((name for test, name in kinds.items() if test(mode)), "a device")
        raise ExtractionError(Reason.NOT_A_FILE, f"{path}: {kind}, not a file")
    if status.st_size == 0:
        raise ExtractionError(Reason.UNDECODABLE, f"{path}: the file is empty (0 bytes)")


def best_streams(container: Any) -> tuple[Any, Any]:
    """Return the video and the audio stream that FFmpeg thinks best, cover art aside; None where there is none.

    Of several programmes in one file, the sound is of the one that the frames are of.
    """
    video, audio = _best(container, "video"), _best(container, "audio")
    if video is not None and audio is not None:
        audio = container.streams.best("audio", related=video) or audio
        # Where the programme of the frames has no sound, FFmpeg takes that of another, which has frames of its own.
        if container.streams.best("video", related=audio) != container.streams.best("video"):
            audio = None
    return video, audio


def _best(container: Any, kind: Literal["video", "audio"]) -> Any:
    streams = [s for s in getattr(container.streams, kind) if not s.disposition & Disposition.attached_pic]
    best = container.streams.best(kind)
    return best if best in streams else next(iter(streams), None)


def chosen_stream(container: Any, kind: Literal["video", "audio"], path: Path) -> Any:
    """Return one of `best_streams`, for decoding in this thread alone.

    Raises
    ------
    ExtractionError
        ``no_video_stream``, ``no_audio_stream`` or ``undecodable``.
    """
    stream = best_streams(container)[0 if kind == "video" else 1]
    if stream is None:
        if not any(best_streams(container)):
            raise ExtractionError(Reason.UNDECODABLE, f"{path}: has neither frames nor sound")
        reason = Reason.NO_VIDEO_STREAM if kind == "video" else Reason.NO_AUDIO_STREAM
        elsewhere = (
            " in the programme of its frames" if getattr(container.streams, kind) and kind == "audio" else ""
        )
        raise ExtractionError(reason, f"{path}: has no {kind} stream{elsewhere}")
    if stream.codec_context is None:
        raise ExtractionError(Reason.UNDECODABLE, f"{path}: FFmpeg has no decoder for its {kind} stream")
    stream.codec_context.thread_count = 1
    return stream


def packets(container: Any, *streams: Any) -> Iterator[Any]:
    """Yield the packets of a file in their order, of some of its streams or of all.

    Raises
    ------
    av.FFmpegError
        The file cannot be read further.
    """
    # At the end, PyAV looks up streams that were not in the header but in the file.
    with suppress(IndexError):
        yield from container.demux(*streams)
