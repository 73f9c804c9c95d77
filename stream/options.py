"""What a live run is asked for: checked, frozen records, one for each part that reads them.

`cli.live_options` makes them from a command line; nothing else knows of one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # a command line is understood before what runs is loaded
    from denseav.export.runtime.devices import OnMismatch
    from denseav.export.runtime.session import AudioWay
    from denseav.stream.media.sound import Channel


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What is looked at and listened to.

    Attributes
    ----------
    cameras, camera_size, camera_fps : the cameras' names or addresses, and what they are asked for.
    mic : `default`, a number, a name, `camera` for each camera's own, or `none`; None for their
        own where all have one, else the default.
    source : a file with pictures and sound; `offline`, as fast as it goes.
    audio_track, channel : which of the file's audio, as `media.reader.MediaReader` takes them.
    demo : the clip in the package, looped.
    av_offset_ms : how much later the sound arrives than the picture.
    """

    cameras: tuple[str, ...] = ()
    camera_size: tuple[int, int] | None = None
    camera_fps: float | None = None
    mic: str | None = None
    source: Path | None = None
    offline: bool = False
    audio_track: str | None = None
    channel: "Channel | None" = None
    demo: bool = False
    av_offset_ms: float = 0.0

    @property
    def av_offset_s(self) -> float:
        """How much later the sound arrives than the picture, in seconds."""
        return self.av_offset_ms / 1000


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What computes, and how frames and audio meet.

    Attributes
    ----------
    model : the bundle's folder; None for the exported one, else the demo's.
    device, on_mismatch : as `open_session` takes them.
    threads : the same; None for what a picture needs on this machine.
    audio : the same; None for what this machine can afford.
    sync, lookahead : as `inference.sync_policy.Sync` has them.
    """

    model: Path | None = None
    device: str = "auto"
    on_mismatch: "OnMismatch" = "error"
    threads: int | None = None
    audio: "AudioWay | None" = None
    sync: Literal["latest", "exact"] = "latest"
    lookahead: int = 0


@dataclass(frozen=True, kw_only=True)
class RoomOptions:
    """What counts as silence, and from which heat a head shows.

    Attributes
    ----------
    calibrate : for how many seconds the room is learned; None for not.
    energy_floor_dbfs, thresholds : in place of the model's.
    """

    calibrate: float | None = None
    energy_floor_dbfs: float | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DisplayOptions:
    """What is shown and recorded."""

    headless: bool = False
    display: Literal["window", "rerun", "foxglove"] = "window"
    view: str = "overlay"
    strip: bool = True
    record: Path | None = None


@dataclass(frozen=True, kw_only=True)
class FeedOptions:
    """What is published: nothing without an endpoint.

    Attributes
    ----------
    camera_ids : each camera's name in topics; none for those made of the cameras' own.
    """

    publish: str | None = None
    camera_ids: tuple[str, ...] = ()
    publish_preview: bool = False
    publish_keys: Path | None = None
    insecure: bool = False


@dataclass(frozen=True, kw_only=True)
class PageOptions:
    """The page for browsers: none without `serve`.

    Attributes
    ----------
    serve : host and port; any other host than this machine's own needs TLS and a token.
    serve_control : whether viewers may change the run.
    serve_cert : certificate and key, as PEM; None for one that is made once and kept.
    """

    serve: tuple[str, int] | None = None
    serve_control: bool = False
    serve_cert: Path | None = None


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What is measured: nothing without `bench`, the seconds of each setting.

    Attributes
    ----------
    over : options, each with the values it takes in turn.
    cdf : a file for every latency.
    slo_ms : the p99 that is too slow.
    """

    bench: float | None = None
    over: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cdf: str | None = None
    slo_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class LiveOptions:
    """One run of `denseav-live`.

    Attributes
    ----------
    list_devices, check_device, calibrate_av : to be done in place of a run.
    seconds : how long it lasts; None until its source ends or a person quits.
    stats_json, prometheus : where figures go.
    """

    sources: SourceOptions = SourceOptions()
    model: ModelOptions = ModelOptions()
    room: RoomOptions = field(default_factory=RoomOptions)
    display: DisplayOptions = DisplayOptions()
    feed: FeedOptions = FeedOptions()
    page: PageOptions = PageOptions()
    bench: BenchOptions = field(default_factory=BenchOptions)
    list_devices: bool = False
    check_device: str | None = None
    calibrate_av: bool = False
    seconds: float | None = None
    stats_json: str | None = None
    prometheus: int | None = None
