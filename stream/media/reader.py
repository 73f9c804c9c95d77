"""One file of pictures and sound in; pictures as shown with their times, sound as heard out.

What live runs, preparation, training and evaluation know of such a file they know from here. Any
file that FFmpeg decodes will do. A packet that cannot be decoded costs itself, a track in an
unknown codec too; time stamps, channels and shapes are mended as `timeline`, `sound` and `picture`
say, and what had to be mended is noted. Pictures and sound each have a pass of their own, on the
caller's thread, so that a file that stores them far apart needs no memory for what lies between.

Times are seconds from the file's start. H W pixels, S samples.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.codec.context import Flags as CodecFlags
from av.container import InputContainer
from av.format import Flags
from av.stream import Disposition
from numpy.typing import NDArray

from denseav.export.outside_files import ffmpeg_name, require_file
from denseav.export.process_limits import patiently
from denseav.stream.media.errors import MediaError
from denseav.stream.media.mended_faults import Mends
from denseav.stream.media.picture import LARGEST_SIDE, Display, Order
from denseav.stream.media.sound import Channel, Hearing, Sound
from denseav.stream.media.time_stamps import Timeline, stamp

Kind = Literal["video", "audio"]

CUT_S = 1.0
"""A track that ends so long before its declared end was cut short."""
BROKEN_READS = 100
"""So many packets in a row that cannot be read end a file."""
AHEAD_PACKETS, AHEAD_BYTES = 256, 32 * 2**20
"""How far ahead a doubtful time stamp is compared with others."""
USUAL_FPS = 25.0
_LAYOUTS = {3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_FAULTS = (av.FFmpegError, OSError, ValueError)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture that is on the screen from `time_s` on, until the next one."""

    time_s: float
    _frame: av.VideoFrame
    _display: Display

    def shown(self, order: Order) -> NDArray[np.uint8]:
        """Return it as players show it, [H, W, 3]."""
        return self._display.show(self._frame, order)


class MediaReader:
    """A file; every pass reads it anew from its start.

    Parameters
    ----------
    path : of the file.
    audio_track : its number, from 1 on, or its language; None for the default one.
    channel : which is heard; None for the mean, or the left one where that cancels.
    threads : of each decoder; None for as many as FFmpeg likes.

    Attributes
    ----------
    cut_short : in words, how a pass ended too early; None while none did.
    clock_moved : whether time stamps were moved, so that no declared length means anything.

    Raises
    ------
    MediaError
        From a pass: the file is missing, is not media, lacks what the pass would give, or none of
        it can be decoded.
    """

    def __init__(
        self,
        path: Path,
        *,
        audio_track: str | None = None,
        channel: Channel | None = None,
        threads: int | None = None,
    ) -> None:
        self.path = path
        self.cut_short: str | None = None
        self.clock_moved = False
        self._audio_track = audio_track
        self._channel = channel
        self._threads = threads
        self._mends: dict[Kind, Mends] = {}

    @property
    def mended(self) -> list[str]:
        """What had to be mended so far, a line each."""
        lines = [line for mends in self._mends.values() for line in mends.lines()]
        return list(dict.fromkeys(lines))

    def facts(self) -> "Facts":
        """Return what the file says of itself, for what it may be worth."""
        with self._opened() as container:
            tracks = self._tracks(container)
            video = tracks.get("video")
            fps = video and (video.average_rate or video.guessed_rate)
            return Facts(
                has_pictures=video is not None,
                has_sound="audio" in tracks,
                fps=float(fps or USUAL_FPS),
                duration_s=_declared_s(container, tracks),
            )

    def pictures(self) -> Iterator[Picture]:
        """Yield the pictures in the order of their times."""
        mends = self._begin("video")
        display: Display | None = None
        last_s, step_s = -np.inf, 1 / USUAL_FPS
        for track, frame, time_s in self._decoded("video", mends):
            if display is None:
                display = Display(self.path.name, track.sample_aspect_ratio, mends)
                step_s = 1 / float(track.average_rate or USUAL_FPS)
            # Some old files stamp pictures not at all, or out of order.
            if time_s is None or time_s <= last_s:
                time_s = max(0.0, last_s + step_s)
            last_s = time_s
            yield Picture(time_s, frame, display)

    def sound(self) -> Iterator[Sound]:
        """Yield the sound, without its holes: there the sample number jumps."""
        mends = self._begin("audio")
        hearing = Hearing(self._channel, mends)
        for _, frame, time_s in self._decoded("audio", mends):
            yield from hearing.hear(frame, time_s)
        yield from hearing.finish()

    def _begin(self, kind: Kind) -> Mends:
        self._mends[kind] = Mends()
        return self._mends[kind]

    def _opened(self) -> InputContainer:
        try:
            require_file(self.path)
            return patiently(lambda: av.open(ffmpeg_name(self.path)))
        except FileNotFoundError:
            raise MediaError(f"{self.path} is missing") from None
        except _FAULTS as error:
            raise MediaError(
                f"{self.path.name} is not a media file, or is damaged or cut short "
                f"({_reason(error)})"
            ) from None

    def _tracks(self, container: InputContainer) -> dict[Kind, Any]:
        """Return the tracks that are used."""
        found: dict[Kind, Any] = {}
        if pictures := _usable(container.streams.video):
            found["video"] = pictures[0]
        if sounds := _usable(container.streams.audio):
            found["audio"] = self._asked_track(container, sounds)
        return found

    def _asked_track(self, container: InputContainer, usable: list[Any]) -> Any:
        asked = self._audio_track
        if asked is None:
            return usable[0]
        every = list(container.streams.audio)
        fits = [
            track
            for number, track in enumerate(every, 1)
            if asked == str(number) or _language(track).startswith(asked.lower())
        ]
        chosen = next((track for track in fits if track in usable), None)
        if chosen is None:
            there = ", ".join(
                f"{number} ({_language(track) or 'no language'})"
                for number, track in enumerate(every, 1)
                if track in usable
            )
            raise MediaError(f"{self.path.name} has no audio track {asked}, but has {there}")
        return chosen

    def _decoded(self, kind: Kind, mends: Mends) -> Iterator[tuple[Any, Any, float | None]]:
        """Yield a track, each frame that it decodes to, and its time."""
        found, reached_s = 0, 0.0
        with self._opened() as container:
            tracks = self._tracks(container)
            track = tracks.get(kind)
            if track is None:
                raise MediaError(self._lacking(container, kind))
            self._prepare(track, kind, mends)
            start_s = _start_s(tracks)
            broadcast = bool(Flags.ts_discont in Flags(container.format.flags))
            ticks_s = {each.index: float(each.time_base) for each in tracks.values()}
            timeline = Timeline(start_s, broadcast, ticks_s, mends)
            tick_s = ticks_s[track.index]
            for packet in _placed(_packets(container, tracks, mends), timeline, ticks_s):
                if packet.stream.index != track.index:
                    continue
                for frame in _frames(packet, mends, reached_s):
                    found += 1
                    if frame.is_corrupt:
                        mends.note("what is damaged is given as far as it goes", reached_s)
                    time_s = None if frame.time is None else frame.time - start_s
                    span_s = (frame.duration or 0) * tick_s
                    reached_s = (reached_s if time_s is None else time_s) + span_s
                    yield track, frame, time_s
            if not found:
                raise MediaError(f"{self.path.name} has no {_WORDS[kind]} that can be decoded")
            self.clock_moved |= timeline.moved
            declared_s = _own_s(track)
            if not timeline.moved and declared_s and reached_s < declared_s - CUT_S:
                self.cut_short = f"it ends after {reached_s:.1f} of {declared_s:.1f} s"
                mends.note("cut short: " + self.cut_short, reached_s)

    def _prepare(self, track: Any, kind: Kind, mends: Mends) -> None:
        context = track.codec_context
        if self._threads is None:
            context.thread_type = "AUTO"
        else:
            context.thread_count = self._threads
        if kind == "video":
            # Damaged pictures as FFmpeg's own program does, and the left edge cropped to the pixel.
            context.flags |= CodecFlags.output_corrupt.value | CodecFlags.unaligned.value
            context.options = {"max_pixels": str(LARGEST_SIDE**2 // 2)}
            return
        # PyAV frees an order of channels of a file's own twice: it gets one of FFmpeg's instead.
        layout = context.layout
        if "(" in layout.name:
            context.layout = _LAYOUTS.get(layout.nb_channels, f"{layout.nb_channels} channels")
            mends.note(f"the order of its channels, {layout.name}, is not known: it is guessed")

    def _lacking(self, container: InputContainer, kind: Kind) -> str:
        streams: Any = getattr(container.streams, kind)
        there = [s for s in streams if not s.disposition & Disposition.attached_pic]
        if there:
            return f"{self.path.name} has no {_WORDS[kind]} in a codec that FFmpeg knows"
        return f"{self.path.name} has no {_WORDS[kind]}"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a file says of itself.

    Attributes
    ----------
    has_pictures, has_sound : in codecs that FFmpeg knows.
    fps : pictures a second, on average.
    duration_s : of pictures and sound; None where it is not said, or said of other tracks too.
    """

    has_pictures: bool
    has_sound: bool
    fps: float
    duration_s: float | None


_WORDS: dict[Kind, str] = {"video": "picture", "audio": "sound"}


def _usable(streams: Any) -> list[Any]:
    """Return the tracks that FFmpeg knows how to decode and that are no covers: default first."""
    cover = Disposition.attached_pic | Disposition.timed_thumbnails
    usable = [s for s in streams if s.codec_context is not None and not s.disposition & cover]
    return sorted(usable, key=lambda stream: not stream.disposition & Disposition.default)


def _language(track: Any) -> str:
    return str(track.metadata.get("language", "")).lower()


def _start_s(tracks: dict[Kind, Any]) -> float:
    starts = [t.start_time * t.time_base for t in tracks.values() if t.start_time is not None]
    return float(min(starts, default=0))


def _own_s(track: Any) -> float | None:
    return float(track.duration * track.time_base) if track.duration else None


def _declared_s(container: InputContainer, tracks: dict[Kind, Any]) -> float | None:
    """Return the length of the tracks that are used, where the file says it."""
    lengths = [_own_s(track) for track in tracks.values()]
    if all(lengths) and lengths:
        return max(length for length in lengths if length)
    if len(container.streams) > len(tracks) or not container.duration:
        return None
    return container.duration / av.time_base


def _placed(
    packets: Iterator[Any], timeline: Timeline, ticks_s: Mapping[int, float]
) -> Iterator[Any]:
    """Yield packets with their places on the timeline."""
    ahead: deque[Any] = deque()

    def following(stream: int) -> list[float]:
        held = sum(packet.size for packet in ahead)
        while len(ahead) < AHEAD_PACKETS and held < AHEAD_BYTES:
            if (packet := next(packets, None)) is None:
                break
            held += packet.size
            ahead.append(packet)
        tick_s = ticks_s[stream]
        stamps = [stamp(packet, tick_s) for packet in ahead if packet.stream.index == stream]
        return [stamp_s for stamp_s in stamps if stamp_s is not None]

    while (packet := ahead.popleft() if ahead else next(packets, None)) is not None:
        timeline.place(packet, partial(following, packet.stream.index))
        yield packet


def _packets(container: InputContainer, tracks: Mapping[Kind, Any], mends: Mends) -> Iterator[Any]:
    """Yield packets, and go on behind what cannot be read; last those that empty decoders."""
    flushing: dict[int, Any] = {}
    broken = 0
    while broken < BROKEN_READS:
        try:
            for packet in container.demux(*tracks.values()):
                if not packet.size:
                    flushing[packet.stream.index] = packet
                    continue
                broken = 0
                yield packet
            break
        except IndexError:  # PyAV knows only the tracks that a file begins with
            broken += 1
            mends.note("a track that begins within the file is left out")
        except _FAULTS:
            broken += 1
            mends.note("a part that cannot be read is left out")
    yield from flushing.values()


def _frames(packet: Any, mends: Mends, reached_s: float) -> list[Any]:
    try:
        return list(packet.decode())
    except EOFError:  # a decoder that was emptied before
        return []
    except _FAULTS:
        mends.note("a damaged packet is left out", reached_s)
        return []


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
