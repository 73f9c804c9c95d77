"""One connection to a network camera: an address in, its pictures one by one out, by FFmpeg.

RTSP, MJPEG over HTTP, HLS and whatever else FFmpeg opens. HLS segments are played at the pace of
their own time stamps. The size of a picture is bounded before it is decoded; one that cannot be
decoded costs itself, and where pictures come faster than they are decoded, some are left out, so
that none that is shown is old. Sound comes along, where it is wanted, on the stream's one clock.
What an address leads to, as a playlist does, is opened over the network alone. An address that
gives a single picture is asked again and again (`SnapshotCapture`). Runs on the thread that calls
it.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic
from typing import Any

import av
import av.logging
import numpy as np
from av.audio.resampler import AudioResampler
from av.codec.context import Flags as CodecFlags
from numpy.typing import NDArray

from denseav.stream.errors import SourceError
from denseav.stream.media.errors import MediaError
from denseav.stream.media.mended_faults import Mends
from denseav.stream.media.picture import Display
from denseav.stream.sources.sample_clock import SampleClock
from denseav.stream.types import AudioBlock

OPEN_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 5.0  # the first whole picture can take as long
SEGMENTS_TIMEOUT_S = 30.0  # segments of HLS may last for 10 s
LARGEST_PIXELS = 8192 * 8192 // 2  # 8K, and as much of other shapes
SNAPSHOT_S = 0.2
SEGMENTED = ("hls", "dash")
UNAWAITED_S = 1.0  # when no packet had to be waited for so long, pictures may wait themselves
AWAITED_S = 0.005  # a packet that takes longer was waited for
LOOK_S = 0.05  # so long it is looked how many there are
BEHIND = 8  # pictures that wait are too many: the oldest go
GROUP_MAX = 60  # without one to begin at, so many may wait
SLIP_S = 10.0  # time stamps that jump so far begin a new count
OPTIONS = {
    "rtsp_transport": "tcp",  # UDP loses pictures without a word
    "max_pixels": str(LARGEST_PIXELS),
}
UNPROBED = {"fpsprobesize": "0", "probesize": "32768"}

SOUND_LOST_S = 0.02  # by how much a stamp is ahead before that is a gap
CHANNELS_MAX = 2
SAMPLES_MAX = 1 << 20  # of one frame of sound
STAMPS_HZ = 90_000  # in which a stream's time stamps are counted here
# What a stream of each kind may open further, as a playlist's segments: never a file.
REACHES = {
    "http": "http,https,tcp,tls,httpproxy,crypto",
    "https": "http,https,tcp,tls,httpproxy,crypto",
    "rtsp": "rtsp,rtp,srtp,udp,tcp,tls",
    "rtsps": "rtsp,rtp,srtp,udp,tcp,tls",
    "rtp": "rtp,srtp,udp",
    "udp": "udp",
    "tcp": "tcp",
    "srt": "srt",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,tls,tcp",
}

Image = NDArray[np.uint8]


class NetworkCapture:
    """A stream that is open: a `Capture`.

    Parameters
    ----------
    url : with user and password, where it needs them.
    name : the same for people.
    stopping : ends what waits.
    sound : whether the stream's sound is wanted.

    Attributes
    ----------
    fps : as the stream says it; 0 when it does not.
    sound : the stream's, where it has some and it is wanted.
    left_out : how many pictures came faster than they could be decoded, and were not.
    hear : called with audio, on the thread that grabs; may be set at any time.

    Raises
    ------
    SourceError
        When it cannot be opened or has no picture.
    """

    def __init__(self, url: str, name: str, stopping: threading.Event, sound: bool = False) -> None:
        av.logging.set_level(None)  # FFmpeg's own words hold the address
        self._url, self._name, self._wants_sound = url, name, sound
        self._broken = self.left_out = 0
        self._has_stamp = False
        self._stopping = stopping
        self._anchor_s: float | None = None
        self._last_pts_s = 0.0
        self._frames: deque[av.VideoFrame] = deque()
        self._frame: av.VideoFrame | None = None
        self._clock = SampleClock(STAMPS_HZ)
        self.hear: Callable[[AudioBlock], None] = lambda _: None
        self._open(None)

    def _open(self, form: str | None) -> None:
        """Open the stream, in a format of FFmpeg's or in the one that it finds."""
        url, name = self._url, self._name
        segmented = url.partition("?")[0].endswith((".m3u8", ".mpd"))
        read_s = SEGMENTS_TIMEOUT_S if segmented else READ_TIMEOUT_S
        options = options_for(url) | ({} if form is None else UNPROBED)
        try:
            self._container = av.open(
                url, format=form, options=options, timeout=(OPEN_TIMEOUT_S, read_s)
            )
        except (av.FFmpegError, OSError, ValueError) as error:
            raise SourceError(
                f"camera {name} cannot be opened; check its address and password, and that it is "
                f"switched on ({_reason(error)})"
            ) from None
        self._format = self._container.format.name.partition(",")[0]
        video = next(iter(self._container.streams.video), None)
        if video is None or video.codec_context is None:
            self.release()
            raise SourceError(
                f"camera {name} sends no pictures that can be decoded ({self._format}); "
                "check its address"
            )
        video.codec_context.options = {"max_pixels": str(LARGEST_PIXELS)}
        video.codec_context.flags |= CodecFlags.unaligned.value  # the left edge is cropped too
        video.codec_context.thread_type = "SLICE"  # by frames, each would come some frames late
        if video.codec_context.name == "h264":
            # Where the first picture comes in two packets, of all later ones slices are missing.
            video.codec_context.thread_count = 1
        self.fps = float(video.average_rate or 0)
        self._display = Display(name, video.sample_aspect_ratio, Mends(), one_size=False)
        self._last_picture_s = monotonic()
        audio = next(iter(self._container.streams.audio), None) if self._wants_sound else None
        self.sound: NetworkSound | None = None
        if audio is not None and audio.codec_context is not None:
            self.sound = NetworkSound(audio, self._time_of)
        self._packets = self._container.demux(*([video] if self.sound is None else [video, audio]))
        self._ahead: deque[Any] = deque()  # packets that waited, in their order
        self._begins_anew = False
        self._awaited_s = self._last_picture_s

    def grab(self) -> bool:
        """Wait for the next packet and decode it; False when none will come."""
        self._frame = None
        try:
            if not self._frames:
                packet = self._next_of_pictures()
                if packet is None:
                    return False
                self._decode(packet)
                if not (self._frames or packet.size):  # the mark of the stream's end
                    return False
        except (StopIteration, av.FFmpegError, OSError):
            return False
        except IndexError:  # a new track, which only a new connection knows
            return False
        if self._frames:
            self._frame = self._frames.popleft()
            if self._format in SEGMENTED:
                self._stopping.wait(self._early_s(self._frame))
        return True

    @property
    def known(self) -> str:
        """What could not be decoded; empty while all was well."""
        known = ""
        if self._broken:
            known += (
                f", {self._broken} pictures could not be decoded, or were larger than "
                f"{LARGEST_PIXELS // 1_000_000} million pixels"
            )
        if self.left_out:
            known += f", {self.left_out} were left out: they came faster than they are decoded"
        return known and self._format + known

    def captured_s(self) -> float:
        """Return the time: networks do not say when a picture was captured."""
        return monotonic()

    def stamp_s(self, captured_s: float) -> float:
        """Return the time of the picture in hand: with sound beside it, by the stream's clock."""
        if self.sound is None or self._frame is None or self._frame.time is None:
            return captured_s
        return min(captured_s, self._time_of(float(self._frame.time)) or captured_s)

    def retrieve(self) -> Image | None:
        """Return the picture in hand as shown, uint8 [H, W, 3]; None when it was not decoded."""
        if self._frame is None:
            return None
        try:
            return self._display.show(self._frame, "bgr24")
        except (MediaError, av.FFmpegError):  # one bad picture costs itself
            self._broken += 1
            return None

    def first(self) -> Image | None:
        """Return the first picture that can be decoded; None when there is none for long."""
        image_HW3 = self._first()
        if image_HW3 is None and self._format == "mpjpeg" and not self._stopping.is_set():
            # FFmpeg takes no parts that are called image/jpg, or nothing: the pictures themselves
            # are looked for, and each is known to be whole when the next one begins.
            self.release()
            with suppress(SourceError):
                self._open("mjpeg")
                image_HW3 = self._first()
        return image_HW3

    def _first(self) -> Image | None:
        end_s = monotonic() + READ_TIMEOUT_S
        while self.grab() and not self._stopping.is_set() and monotonic() < end_s:
            if self._frame is not None:
                return self.retrieve()
        return None

    def release(self) -> None:
        """Close the connection. May be called twice."""
        self._container.close()

    def _next_of_pictures(self) -> Any:
        """Return the next packet of the picture, with the sound before it given away.

        None when only sound has come for long.
        """
        while True:
            packet = self._next_packet()
            is_picture = packet.stream.type == "video"
            if is_picture and self._begins_anew and not packet.is_keyframe:
                self.left_out += 1
            elif is_picture:
                self._begins_anew = False
                self._last_picture_s = monotonic()
                if packet.pts is not None and self.sound is not None:
                    self._observe(float(packet.pts * packet.time_base))
                return packet
            if monotonic() - self._last_picture_s > READ_TIMEOUT_S or self._stopping.is_set():
                return None
            if not is_picture and self.sound is not None:
                if packet.pts is not None:
                    end = packet.pts + (packet.duration or 0)
                    self._observe(float(end * packet.time_base))
                for block in self.sound.blocks(packet):
                    self.hear(block)

    def _next_packet(self) -> Any:
        behind = monotonic() - self._awaited_s > UNAWAITED_S and self._format not in SEGMENTED
        if behind and not self._ahead:
            self._look_ahead()
        return self._ahead.popleft() if self._ahead else self._awaited()

    def _awaited(self) -> Any:
        begun_s = monotonic()
        packet = next(self._packets)
        if monotonic() - begun_s > AWAITED_S:
            self._awaited_s = monotonic()
        return packet

    def _look_ahead(self) -> None:
        """Take what waits; of too many pictures keep those from the last on that needs no other.

        Where there is none, they are decoded in their order, until so many wait that no picture is
        better than an old one.
        """
        before_s, end_s = self._awaited_s, monotonic() + LOOK_S
        with suppress(StopIteration, av.FFmpegError, OSError, IndexError):  # said by the next read
            while self._awaited_s == before_s and monotonic() < end_s:
                self._ahead.append(self._awaited())
        pictures = [each for each in self._ahead if each.stream.type == "video"]
        whole = [number for number, each in enumerate(pictures) if each.is_keyframe]
        self._begins_anew = not whole and len(pictures) > GROUP_MAX
        first = len(pictures) if self._begins_anew else max(whole, default=0)
        if len(pictures) > BEHIND and first:
            left_out = set(map(id, pictures[:first]))
            self._ahead = deque(each for each in self._ahead if id(each) not in left_out)
            self.left_out += first

    def _observe(self, stamp_s: float) -> None:
        self._clock.observe(round(stamp_s * STAMPS_HZ), monotonic())
        self._has_stamp = True

    def _time_of(self, stamp_s: float) -> float | None:
        """Return a stamp of the stream on the monotonic clock; None before any is known."""
        if self._format in SEGMENTED:
            return None if self._anchor_s is None else self._anchor_s + stamp_s
        return self._clock.time_of(round(stamp_s * STAMPS_HZ)) if self._has_stamp else None

    def _decode(self, packet: Any) -> None:
        try:
            self._frames.extend(packet.decode())
        except av.FFmpegError:  # one bad packet costs itself
            self._broken += 1

    def _early_s(self, frame: av.VideoFrame) -> float:
        """Return how long a picture of a segment should wait, so that all come evenly."""
        now_s = monotonic()
        pts_s = self._last_pts_s if frame.time is None else frame.time
        jumped = abs(pts_s - self._last_pts_s) > SLIP_S
        if self._anchor_s is None or jumped or now_s > self._anchor_s + pts_s:
            self._anchor_s = now_s - pts_s
        self._last_pts_s = pts_s
        return self._anchor_s + pts_s - now_s


class NetworkSound:
    """Decodes one stream's audio: packets in, blocks out.

    A block's time is by the stream's own time stamps, which it shares with the pictures. Samples
    are counted on by their number; a stamp that is further ahead than that is lost audio, and
    becomes a jump of the count. A packet that cannot be decoded costs itself.

    Parameters
    ----------
    stream : of the open container.
    time_of : a stamp of the stream, in seconds, to the monotonic clock; None while not known.

    Attributes
    ----------
    rate_hz : at which it begins.
    broken : how many packets could not be decoded.
    """

    def __init__(self, stream: Any, time_of: Callable[[float], float | None]) -> None:
        self.rate_hz = int(stream.codec_context.sample_rate or 0)
        self.broken = 0
        self._time_of = time_of
        self._resampler: AudioResampler | None = None
        self._kind: tuple[Any, ...] = ()
        self._next = 0  # the count of the next sample
        self._due_s: float | None = None  # the stamp that it should have

    def blocks(self, packet: Any) -> Iterator[AudioBlock]:
        """Yield what a packet holds."""
        try:
            frames = packet.decode()
        except (av.FFmpegError, ValueError):
            self.broken += 1
            return
        for frame in frames:
            if 0 < frame.samples <= SAMPLES_MAX and frame.sample_rate > 0:
                block = self._block(frame)
                if block is not None:
                    yield block

    def _block(self, frame: Any) -> AudioBlock | None:
        rate_hz = int(frame.sample_rate)
        stamp_s = self._due_s if frame.time is None else float(frame.time)
        capture_s = None if stamp_s is None else self._time_of(stamp_s)
        if stamp_s is None or capture_s is None:
            return None
        if self._due_s is not None and stamp_s - self._due_s > SOUND_LOST_S:
            self._next += round((stamp_s - self._due_s) * rate_hz)
        samples_SC = self._samples(frame)
        block = AudioBlock(samples_SC, rate_hz, self._next, capture_s)
        self._next += len(samples_SC)
        self._due_s = stamp_s + len(samples_SC) / rate_hz
        return block

    def _samples(self, frame: Any) -> Any:
        """Return float32 `[S, C]`, whatever the stream's format has become."""
        channels = min(CHANNELS_MAX, frame.layout.nb_channels)
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._resampler is None or kind != self._kind:
            layout = "mono" if channels == 1 else "stereo"
            self._resampler = AudioResampler("flt", layout, frame.sample_rate)
            if self._kind and kind[2] != self._kind[2]:  # counted at another rate from here on
                self._next = round(self._next * kind[2] / self._kind[2])
            self._kind = kind
        parts = [
            each.to_ndarray().reshape(-1, channels) for each in self._resampler.resample(frame)
        ]
        samples_SC = np.concatenate(parts) if parts else np.zeros((0, channels), np.float32)
        return np.nan_to_num(np.asarray(samples_SC, np.float32), posinf=0.0, neginf=0.0)


class SnapshotCapture:
    """An address that gives one picture, asked again and again: a `Capture`.

    Parameters
    ----------
    url, name, stopping : as in `NetworkCapture`.
    fps : how often to ask, in pictures a second; it is done less often when answers take longer.
    """

    def __init__(self, url: str, name: str, stopping: threading.Event, fps: float) -> None:
        self.fps = fps
        self.known = f"single pictures, asked for {fps:g} times a second"
        self.left_out = 0
        self._asked = (url, name, stopping)
        self._due_s = monotonic() + 1 / fps
        self._image_HW3: Image | None = None

    def grab(self) -> bool:
        """Ask for the next picture when it is due. Always True: the next answer may bring one."""
        self._asked[2].wait(max(0.0, self._due_s - monotonic()))
        self._due_s = max(self._due_s, monotonic()) + 1 / self.fps
        self._image_HW3 = None
        try:
            capture = NetworkCapture(*self._asked)
        except SourceError as error:  # one refusal costs itself
            self.known = str(error)
            return True
        self._image_HW3 = capture.first()
        capture.release()
        return True

    def captured_s(self) -> float:
        """Return the time: networks do not say when a picture was captured."""
        return monotonic()

    def stamp_s(self, captured_s: float) -> float:
        """Return the same."""
        return captured_s

    def retrieve(self) -> Image | None:
        """Return the picture in hand, uint8 [H, W, 3]; None when there was no answer."""
        return self._image_HW3

    def first(self) -> Image | None:
        """Return the picture of one answer."""
        self.grab()
        return self._image_HW3

    def release(self) -> None:
        """Nothing stays open between two pictures."""


def options_for(url: str) -> dict[str, str]:
    """Return FFmpeg's options for an address: over the network, and no further than its kind."""
    scheme = url.partition("://")[0].lower()
    # Of RTSP the codec says how many pictures a second come: twenty need not be waited for.
    probing = {"fpsprobesize": "0"} if scheme in ("rtsp", "rtsps") else {}
    return {**OPTIONS, **probing, "protocol_whitelist": REACHES.get(scheme, scheme)}


def _reason(error: Exception) -> str:
    """Return an error by FFmpeg's words, without the address."""
    return str(getattr(error, "strerror", None) or type(error).__name__)
