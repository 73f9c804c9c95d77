"""The command line of `denseav-live`: arguments in, checked `LiveOptions` out.

What does not go together is refused here, before anything is opened.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from denseav.export.command_line import (
    CompletionAction,
    count,
    positive,
    record,
    size,
    whole_number,
)
from denseav.export.runtime.devices import DEVICES, check_device_name
from denseav.export.version_report import VersionAction
from denseav.stream.errors import UsageError
from denseav.stream.options import (
    BenchOptions,
    DisplayOptions,
    FeedOptions,
    LiveOptions,
    ModelOptions,
    PageOptions,
    RoomOptions,
    SourceOptions,
)

CALIBRATION_MAX_S = 120.0
CAMERAS_MAX = 16
_CAMERA_ID = re.compile(r"[A-Za-z0-9._-]{1,25}")  # the feed's topics have no more room
OFFSET_MAX_MS = 1000.0
HEAT_MAX = 1e9  # beyond it, a ceiling above a threshold is no longer another number

_RECORD = (
    "mp4: what the window shows, with its sound; m3u8: the same as an HLS playlist, to be watched "
    "while it grows; gif, webp: a small one, of a minute at most; "
    "mcap: frames, audio, heat and figures as data, for Foxglove, Rerun and ROS tools, and for "
    "--source"
)
_CODES = """\
on a machine that is too slow, frames are dropped first, down to 5 a second; then the audio
pass moves on by 2, 4 or 8 tokens of 180 ms instead of 1; what gave way is on the screen

keys in the window: q quit, space pause, v view, h heads, t strip, r record, s snapshot
exit codes: 0 ended as asked (also by q or Ctrl-C), 1 a library is missing, 2 usage,
            3 a source cannot be read, 4 the model or the device cannot be used,
            5 the feed's keys are missing or unsafe, 6 slower than --slo-ms,
            7 an output cannot be written"""


def parse(arguments: Sequence[str] | None = None) -> LiveOptions:
    """Return the checked options.

    Raises
    ------
    UsageError
        When an option is unknown or its value senseless, two contradict each other, or nothing
        was named to look at.
    """
    given = _parser().parse_args(arguments)
    given.cameras, given.camera_ids = tuple(given.cameras or ()), tuple(given.camera_ids or ())
    if not given.list_devices and given.check_device is None:
        _check(given)
    if given.serve is not None and not given.serve[0]:
        host = "0.0.0.0" if "browser" in given.cameras else "127.0.0.1"
        given.serve = (host, given.serve[1])
    given.thresholds, given.over = dict(given.threshold), dict(given.bench_over or [])
    return LiveOptions(
        sources=record(SourceOptions, given),
        model=record(ModelOptions, given),
        room=record(RoomOptions, given),
        display=record(DisplayOptions, given),
        feed=record(FeedOptions, given),
        page=record(PageOptions, given),
        bench=record(BenchOptions, given),
        list_devices=given.list_devices,
        check_device=given.check_device,
        calibrate_av=given.calibrate_av,
        seconds=given.seconds,
        stats_json=given.stats_json,
        prometheus=given.prometheus,
    )


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see: denseav-live --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="denseav-live",
        description="Show on live video where the sound comes from and what the speech is about.",
        epilog=_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=VersionAction)
    parser.add_argument("--print-completion", action=CompletionAction)
    _add_sources(parser.add_argument_group("what to look at and listen to"))
    model = parser.add_argument_group("the model and where it runs")
    model.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="a bundle from denseav-export, or one of a hub: hf:owner/name",
    )
    model.add_argument(
        "--device",
        default="auto",
        type=_device,
        metavar="NAME",
        help=f"{DEVICES}; default: auto",
    )
    model.add_argument(
        "--check-device",
        type=lambda text: text if text == "all" else _device(text),
        metavar="NAME",
        help="have a device, or all, reproduce the model's probes, print a table, and end",
    )
    model.add_argument(
        "--on-mismatch",
        default="error",
        choices=("error", "rebuild", "onnx"),
        help="when engines do not fit, or a device computes wrongly; default: error",
    )
    model.add_argument(
        "--threads",
        type=count,
        metavar="N",
        help="for each pass on a CPU; default: 1 where that encodes 30 pictures a second, else "
        "both passes share all cores but one, an audio step with as many as it needs",
    )
    model.add_argument(
        "--audio",
        choices=("window", "streaming"),
        help="encode the whole window of audio at each token, or each token alone upon what is "
        "remembered; default: window, where a pass takes a quarter of its 180 ms at most",
    )
    _add_timing(parser.add_argument_group("picture and sound"))
    _add_room(parser.add_argument_group("the room"))
    output = parser.add_argument_group("where it goes")
    _add_display(output)
    output.add_argument(
        "--record", type=_recording, metavar="FILE.mp4|m3u8|gif|webp|mcap", help=_RECORD
    )
    output.add_argument("--seconds", type=positive, metavar="N", help="end after N seconds")
    _add_page(parser.add_argument_group("a page for browsers"))
    _add_figures(parser.add_argument_group("figures"))
    _add_feed(parser.add_argument_group("a feed for other programs"))
    return parser


def _add_display(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--headless", action="store_true", help="open no window")
    group.add_argument(
        "--display",
        default="window",
        choices=("window", "rerun", "foxglove"),
        help="rerun: Rerun's viewer; with --headless it serves viewers on 127.0.0.1; "
        "foxglove: a server there for Foxglove; default: window",
    )
    group.add_argument(
        "--view",
        default="overlay",
        choices=("overlay", "sound", "speech", "both", "features"),
        help="all heads on the picture, one of them, both side by side, or the dense features; "
        "default: overlay",
    )
    group.add_argument(
        "--strip",
        default=True,
        action=argparse.BooleanOptionalAction,
        help="the last 10 s of sound and heads under the picture; default: with it",
    )


def _add_sources(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--camera",
        dest="cameras",
        action="append",
        metavar="SPEC",
        help="0, /dev/video2, rtsp://… (or http, https, srt, udp, tcp), or browser; "
        "@FILE or env:NAME where it holds a password; once for each of several cameras",
    )
    group.add_argument("--camera-size", type=_size, metavar="WxH", help="ask the camera for it")
    group.add_argument("--camera-fps", type=positive, metavar="N", help="ask the camera for it")
    group.add_argument(
        "--mic",
        metavar="SPEC",
        help="default, a number, a name, camera (each camera's own; the default where all have "
        "sound), or none",
    )
    group.add_argument("--source", type=Path, metavar="FILE", help="a file with picture and sound")
    group.add_argument(
        "--offline", action="store_true", help="run FILE as fast as it goes and drop nothing"
    )
    group.add_argument(
        "--audio-track",
        metavar="N|LANGUAGE",
        help="of FILE, as in 2 or eng; default: the one that the file gives as default",
    )
    group.add_argument(
        "--channel",
        choices=("left", "right", "mix"),
        help="of FILE's audio; default: the mix, or the left where left and right cancel",
    )
    group.add_argument("--demo", action="store_true", help="the clip in the package, looped")
    group.add_argument("--list-devices", action="store_true", help="cameras and microphones")


def _add_timing(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--sync",
        default="latest",
        choices=("latest", "exact"),
        help="compare a picture with the newest sound, or hold it until the sound of its own "
        "moment has been heard; default: latest",
    )
    group.add_argument(
        "--lookahead",
        type=whole_number,
        default=0,
        metavar="TOKENS",
        help="of 180 ms, heard after the one that is used; default: 0",
    )
    group.add_argument(
        "--av-offset-ms",
        type=_offset,
        default=0.0,
        metavar="MS",
        help="how much later the sound arrives than the picture, negative when it comes first; "
        "default: 0",
    )
    group.add_argument(
        "--calibrate-av",
        action="store_true",
        help="measure that: watch flashes that click, 20 s or --seconds; with --record FILE.mp4 "
        "alone, write a clip of them to play before the camera",
    )


def _add_room(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--calibrate",
        type=float,
        metavar="SECONDS",
        help="learn the room first: keep quiet for so long; what was learned is printed",
    )
    group.add_argument(
        "--energy-floor-dbfs",
        type=float,
        metavar="DBFS",
        help="quieter sound is silence, in which no head is active; default: the model's",
    )
    group.add_argument(
        "--threshold",
        nargs="+",
        type=_threshold,
        default=[],
        metavar="HEAD=HEAT",
        help="from which a head shows, as --calibrate prints it; default: the model's",
    )


def _add_page(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--serve",
        type=_host_and_port,
        metavar="[HOST:]PORT",
        help="show the run in browsers; without HOST, of this machine alone, but of any with "
        "--camera browser; other machines are served by HTTPS, to whoever has the address with "
        "its token",
    )
    group.add_argument(
        "--serve-control", action="store_true", help="let viewers record and set thresholds"
    )
    group.add_argument(
        "--serve-cert",
        type=Path,
        metavar="FILE.pem",
        help="certificate and key; default: one made at the first start, and kept",
    )


def _add_figures(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--stats-json",
        metavar="PATH|-",
        help="JSON lines: one a second over the last 10 s, and one at the end over the run",
    )
    group.add_argument(
        "--prometheus", type=_port, metavar="PORT", help="serve metrics on 127.0.0.1:PORT"
    )
    group.add_argument(
        "--bench", type=positive, metavar="SECONDS", help="measure for so long, print a table"
    )
    group.add_argument(
        "--bench-over",
        nargs="+",
        type=_setting,
        metavar="OPTION=A,B",
        help="once with each value, as in threads=1,2 device=cpu,cuda model=DIR1,DIR2",
    )
    group.add_argument("--cdf", metavar="FILE.csv", help="with --bench: every latency")
    group.add_argument(
        "--slo-ms", type=positive, metavar="MS", help="with --bench: fail when the p99 is over it"
    )


def _add_feed(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--publish", metavar="ENDPOINT", help="as in tcp://127.0.0.1:5557")
    group.add_argument(
        "--camera-id",
        dest="camera_ids",
        action="append",
        type=_camera_id,
        metavar="NAME",
        help="in the feed's topics, once for each camera in their order; default: one of the "
        "camera and this machine",
    )
    group.add_argument("--publish-preview", action="store_true", help="send the pictures too")
    group.add_argument("--publish-keys", type=Path, metavar="DIR", help="from denseav-feed keys")
    group.add_argument(
        "--insecure", action="store_true", help="let other machines read without keys"
    )


def _check(options: argparse.Namespace) -> None:
    _check_source(options)
    if not options.cameras:
        for option in ("camera_size", "camera_fps", "mic"):
            if getattr(options, option) is not None:
                raise UsageError(f"--{option.replace('_', '-')} goes with --camera only")
    if options.publish is None:
        for option in ("publish_preview", "publish_keys", "insecure", "camera_ids"):
            if getattr(options, option):
                raise UsageError(
                    f"--{option.replace('_', '-').removesuffix('s')} goes with --publish only"
                )
    elif options.offline:
        raise UsageError("--publish goes with live input: leave --offline out")
    elif options.mic == "none":
        raise UsageError("--publish sends what was compared with sound; leave --mic none out")
    _check_several(options)
    _check_browser(options)
    _check_page(options)
    _check_timing(options)
    _check_room(options)
    _check_figures(options)


def _check_source(options: argparse.Namespace) -> None:
    named = [bool(options.cameras), options.source is not None, options.demo]
    if options.calibrate_av and options.record is not None:
        if any(named):
            raise UsageError("--calibrate-av watches a source or writes a clip to --record")
    elif sum(named) != 1:
        raise UsageError("name one thing to look at: --camera 0, --source FILE, or --demo")
    for option in ("offline", "audio_track", "channel"):
        if getattr(options, option) and options.source is None:
            raise UsageError(f"--{option.replace('_', '-')} goes with --source FILE only")


def _check_several(options: argparse.Namespace) -> None:
    cameras, ids = options.cameras, options.camera_ids
    if any(option == "camera" for option, _ in options.bench_over or ()):  # each in turn
        return
    if len(set(ids)) < len(ids):
        raise UsageError("two cameras have the same --camera-id; give each its own")
    if ids and max(1, len(cameras)) != len(ids):
        raise UsageError("give as many --camera-id as there are --camera, in their order, or none")
    if len(cameras) > 1:
        _check_goes_with_several(options)


def _check_goes_with_several(options: argparse.Namespace) -> None:
    cameras = options.cameras
    if len(cameras) > CAMERAS_MAX:
        raise UsageError(f"{len(cameras)} cameras are more than the {CAMERAS_MAX} of one run")
    if options.calibrate_av:
        raise UsageError("--calibrate-av watches one camera; leave the others out")


def _check_browser(options: argparse.Namespace) -> None:
    if "browser" not in options.cameras:
        return
    if options.serve is None:
        raise UsageError("--camera browser comes in by the page: add --serve 8443")
    alone = len(options.cameras) == 1
    if alone and options.mic not in (None, "camera", "none"):
        raise UsageError("a browser brings its own microphone; leave --mic out, or --mic none")
    for option in ("camera_size", "camera_fps", "calibrate"):
        if getattr(options, option) is not None and (alone or option == "calibrate"):
            name = option.replace("_", "-")
            raise UsageError(f"--{name} does not go with --camera browser; leave it out")


def _check_page(options: argparse.Namespace) -> None:
    if options.serve is None:
        for option in ("serve_control", "serve_cert"):
            if getattr(options, option):
                raise UsageError(f"--{option.replace('_', '-')} goes with --serve only")
        return
    for option in ("offline", "bench"):
        if getattr(options, option):
            raise UsageError(f"--serve shows a live run; leave --{option.replace('_', '-')} out")


def _check_timing(options: argparse.Namespace) -> None:
    if options.calibrate_av and (options.seconds or 0) > CALIBRATION_MAX_S:
        raise UsageError(f"--seconds is at most {CALIBRATION_MAX_S:g} with --calibrate-av")
    asked = "--calibrate-av" if options.calibrate_av else "--sync exact"
    if options.mic == "none" and (options.sync == "exact" or options.calibrate_av):
        raise UsageError(f"{asked} needs sound; leave --mic none out")
    for option in ("offline", "demo", "publish", "bench"):
        if options.calibrate_av and getattr(options, option):
            raise UsageError(f"--{option} does not go with --calibrate-av; leave it out")


def _check_room(options: argparse.Namespace) -> None:
    floor_dbfs = options.energy_floor_dbfs
    if floor_dbfs is not None and not -120 <= floor_dbfs <= 0:
        raise UsageError(f"--energy-floor-dbfs {floor_dbfs:g} is not within -120 and 0")
    if options.calibrate is None:
        return
    if not 0 < options.calibrate <= CALIBRATION_MAX_S:
        raise UsageError(
            f"--calibrate {options.calibrate:g} is not a number of seconds up to "
            f"{CALIBRATION_MAX_S:g}"
        )
    if options.mic == "none":
        raise UsageError("--calibrate needs sound; leave --mic none out")
    for option in ("offline", "bench", "calibrate_av"):
        if getattr(options, option):
            name = option.replace("_", "-")
            raise UsageError(f"--{name} does not go with --calibrate; leave it out")


def _check_figures(options: argparse.Namespace) -> None:
    if options.bench is None:
        for option in ("bench_over", "cdf", "slo_ms"):
            if getattr(options, option) is not None:
                raise UsageError(f"--{option.replace('_', '-')} goes with --bench only")
        return
    for option in ("offline", "record", "seconds"):
        if getattr(options, option):
            raise UsageError(f"--{option} does not go with --bench, which runs live; leave it out")


def _recording(text: str) -> Path:
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"{text!r} is an address, and recordings are files: record NAME.m3u8 and send that on "
            "(ffmpeg -i NAME.m3u8 -c copy -f rtsp URL); --serve and --publish send a run too"
        )
    return Path(text)


def _size(text: str) -> tuple[int, int]:
    return size(text, "WIDTHxHEIGHT, as in 640x480")


def _offset(text: str) -> float:
    try:
        value_ms = float(text)
    except ValueError:
        value_ms = float("nan")
    if not -OFFSET_MAX_MS <= value_ms <= OFFSET_MAX_MS:
        raise argparse.ArgumentTypeError(f"{text!r} is not within {OFFSET_MAX_MS:g} ms of 0")
    return value_ms


def _camera_id(text: str) -> str:
    if not _CAMERA_ID.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no camera's name: at most 25 letters, digits, dots and dashes"
        )
    return text


def _threshold(text: str) -> tuple[str, float]:
    head, _, value = text.partition("=")
    try:
        heat = float(value)
    except ValueError:
        heat = float("nan")
    if not head or not abs(heat) < HEAT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEAD=HEAT as in sound=5.5")
    return head, heat


def _port(text: str) -> int:
    port = count(text)
    if port > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return port


def _host_and_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if colon and not host:
        raise argparse.ArgumentTypeError(f"{text!r} has no host before its colon")
    return host.strip("[]"), _port(port)


def _device(text: str) -> str:
    try:
        return check_device_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _setting(text: str) -> tuple[str, tuple[str, ...]]:
    option, _, values = text.partition("=")
    given = tuple(values.split(","))
    if not option or not all(given):
        raise argparse.ArgumentTypeError(f"{text!r} is not OPTION=VALUE,VALUE as in threads=1,2")
    return option, given
