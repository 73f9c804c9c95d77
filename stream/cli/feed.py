"""`denseav-feed`: options in; watches, records, replays and checks a feed, and keeps its keys.

Subscribers receive on threads of their own; all else is on the main one. It ends with one line for
people and a documented exit code.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from types import FrameType
from typing import NoReturn

from rich.live import Live

from denseav.export.command_line import CompletionAction, ends_in_a_line, positive, record
from denseav.export.terminal_text import safe_console, safe_text
from denseav.export.version_report import VersionAction
from denseav.stream.errors import (
    OutputError,
    SourceError,
    StreamError,
)
from denseav.stream.feed import keys as feed_keys
from denseav.stream.feed.client import (
    FeedError,
    FeedRefusedError,
    FeedStaleError,
    HeatmapSubscriber,
    HeatMessage,
    StatusSubscriber,
)
from denseav.stream.feed.conformance import Check
from denseav.stream.feed.errors import FeedAuthError
from denseav.stream.feed.recording import Recording, check_whole
from denseav.stream.feed.replay import replay
from denseav.stream.feed.sockets import Endpoint, FeedSockets, resolve
from denseav.stream.feed.watch_table import Watch

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5557"
_CODES = """\
exit codes: 0 ended as asked (also by Ctrl-C), 2 usage, 3 the feed or the recording cannot be
            read or is not as FEED.md says, 5 keys or authorisation, 7 an output cannot be made"""
_STEP_S = 0.1
_SYNC_S = 0.5  # what a power cut may take from a recording


@dataclass(frozen=True)
class WatchOptions:
    """A feed to read: its endpoint, the key file that it asks for, and which of its cameras."""

    endpoint: str
    keys: Path | None
    camera: str


@dataclass(frozen=True)
class RecordOptions(WatchOptions):
    """A feed to keep in a file, for some seconds or until it is ended."""

    file: Path
    seconds: float | None


@dataclass(frozen=True)
class CheckOptions(WatchOptions):
    """A feed to hold against its description, for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class ReplayOptions:
    """A recording to send again."""

    file: Path
    endpoint: str
    publish_keys: Path | None
    insecure: bool


@dataclass(frozen=True)
class KeysOptions:
    """The folder of a publisher's keys."""

    folder: Path


@dataclass(frozen=True)
class ClientOptions(KeysOptions):
    """A client in that folder."""

    name: str


@dataclass(frozen=True)
class NewClientOptions(ClientOptions):
    """A client to authorise, and the file that its key goes into."""

    out: Path | None


@ends_in_a_line("denseav-feed")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    handler = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _code(arguments)
    finally:
        signal.signal(signal.SIGTERM, handler)


def _code(arguments: Sequence[str] | None) -> int:
    given = _parser().parse_args(arguments)
    try:
        given.act(record(given.options, given))
    except KeyboardInterrupt:
        return 0
    except StreamError as error:
        return _failed(error, error.exit_code)
    except FeedRefusedError as error:
        return _failed(error, FeedAuthError.exit_code)
    except FeedError as error:
        return _failed(error, SourceError.exit_code)
    return 0


def _failed(error: Exception, code: int) -> int:
    _say(f"error: {error}")
    return code


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="denseav-feed",
        description="Watch, record, replay and check the feed of denseav-live, and keep its keys.",
        epilog=_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=VersionAction)
    parser.add_argument("--print-completion", action=CompletionAction)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    watch = verbs.add_parser("watch", help="show a live table")
    _add_endpoint(watch)
    watch.set_defaults(act=_watch, options=WatchOptions)
    kept = verbs.add_parser("record", help="keep the very bytes")
    kept.add_argument("file", type=Path, metavar="FILE", help="to make")
    kept.add_argument("--seconds", type=positive, metavar="N", help="end after N seconds")
    _add_endpoint(kept)
    kept.set_defaults(act=_record, options=RecordOptions)
    again = verbs.add_parser("replay", help="send the very bytes again, once somebody subscribes")
    again.add_argument("file", type=Path, metavar="FILE", help="made by record")
    again.add_argument("endpoint", nargs="?", default=DEFAULT_ENDPOINT, help="to publish at")
    again.add_argument("--publish-keys", type=Path, metavar="DIR", help="made by keys init")
    again.add_argument("--insecure", action="store_true", help="let other machines read, unchecked")
    again.set_defaults(act=_replay, options=ReplayOptions)
    check = verbs.add_parser("check", help="hold a feed against FEED.md")
    check.add_argument("--seconds", type=positive, default=3.0, metavar="N", help="default: 3")
    _add_endpoint(check)
    check.set_defaults(act=_check, options=CheckOptions)
    _add_keys(verbs.add_parser("keys", help="who may read").add_subparsers(required=True))
    return parser


def _add_endpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("endpoint", nargs="?", default=DEFAULT_ENDPOINT, help="of the heatmaps")
    parser.add_argument("--keys", type=Path, metavar="FILE.client", help="from keys add-client")
    parser.add_argument(
        "--camera", default="", metavar="NAME", help="one of several, by its --camera-id"
    )


def _add_keys(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    init = verbs.add_parser("init", help="make the publisher's keys")
    init.set_defaults(act=_init, options=KeysOptions)
    add = verbs.add_parser("add-client", help="authorise a client and write its key file")
    add.add_argument("--out", type=Path, metavar="FILE", help="default: NAME.client")
    add.set_defaults(act=_add_client, options=NewClientOptions)
    shown = verbs.add_parser("list", help="name who is authorised")
    shown.set_defaults(act=_list, options=KeysOptions)
    revoke = verbs.add_parser("revoke", help="take a client's authorisation away")
    revoke.set_defaults(act=_revoke, options=ClientOptions)
    for parser in (add, revoke):
        parser.add_argument("name", metavar="NAME")
    folder = feed_keys.default_folder()
    for parser in (init, add, shown, revoke):
        parser.add_argument(
            "--folder", type=Path, default=folder, metavar="DIR", help=f"default: {folder}"
        )


def _endpoint(text: str) -> Endpoint:
    try:
        return resolve(text)
    except OutputError as error:
        raise SourceError(str(error)) from None


def _watch(options: WatchOptions) -> None:
    endpoint, watch = _endpoint(options.endpoint), Watch()
    with (
        HeatmapSubscriber(endpoint.heat, options.keys, watch.add, options.camera) as heat,
        StatusSubscriber(endpoint.status, options.keys, camera=options.camera) as status,
        Live(auto_refresh=False, console=safe_console()) as live,
    ):
        while True:
            live.update(watch.table(heat, status), refresh=True)
            sleep(_STEP_S)


def _record(options: RecordOptions) -> None:
    endpoint = _endpoint(options.endpoint)
    failures: list[OutputError] = []
    end_s = monotonic() + (options.seconds or float("inf"))
    with closing(Recording(options.file)) as recording:

        def keep(message: HeatMessage) -> None:
            """Keep it; the receiving thread must go on, so the reading one hears of a failure."""
            try:
                if not failures:
                    recording.add(message)
            except OutputError as error:
                failures.append(error)

        with (
            suppress(KeyboardInterrupt),
            HeatmapSubscriber(endpoint.heat, options.keys, keep, options.camera) as heat,
        ):
            while monotonic() < end_s and not failures:
                with suppress(FeedStaleError):
                    heat.read_latest(max_age_ms=200, timeout_ms=0)
                recording.sync()
                sleep(_SYNC_S)
    for failure in failures:
        raise failure
    if not recording.count:
        raise SourceError(f"nothing came from {options.endpoint}, so there is no recording")
    _say(f"{recording.count} messages kept in {options.file}; gaps: {recording.gaps}")


def _replay(options: ReplayOptions) -> None:
    contents = check_whole(options.file)
    cameras = [message.header["camera"] for message in contents.firsts]
    sockets = FeedSockets(options.endpoint, cameras, options.publish_keys, options.insecure)
    if not contents.finished:
        _say(f"{options.file} was not finished; its {contents.count} messages are whole")
    with closing(sockets):
        _say(f"waiting for a subscriber at {sockets.endpoint.heat}")
        _say(f"{replay(options.file, contents.firsts, sockets)} messages sent")


def _check(options: CheckOptions) -> None:
    endpoint, check = _endpoint(options.endpoint), Check()
    with (
        HeatmapSubscriber(endpoint.heat, options.keys, check.heat, options.camera) as heat,
        StatusSubscriber(endpoint.status, options.keys, check.status, options.camera) as status,
    ):
        next(heat)
        next(status)
        sleep(options.seconds)
        heat.read_latest(max_age_ms=1000)
    check.end(options.seconds)
    if check.found:
        raise SourceError("not as FEED.md says: " + "; ".join(sorted(check.found)))
    _say(f"{check.heats} heat and {check.statuses} status messages are as FEED.md says")


def _init(options: KeysOptions) -> None:
    feed_keys.init(options.folder)
    _say(f"keys made; publish with: denseav-live --publish … --publish-keys {options.folder}")


def _add_client(options: NewClientOptions) -> None:
    out = options.out or Path(f"{options.name}.client")
    feed_keys.add_client(options.folder, options.name, out)
    _say(f"{options.name} is authorised; move {out} to that machine, and keep no copy")


def _list(options: KeysOptions) -> None:
    for key, name in sorted(feed_keys.clients(options.folder).items(), key=lambda item: item[1]):
        print(f"{name}\t{key.decode()}")  # noqa: T201


def _revoke(options: ClientOptions) -> None:
    feed_keys.revoke(options.folder, options.name)
    _say(f"{options.name} is no longer authorised")


def _say(line: str) -> None:
    try:
        print(f"denseav-feed: {safe_text(line)}", file=sys.stderr, flush=True)  # noqa: T201
    except OSError:  # nobody reads it any more, which is no reason to fail
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), sys.stderr.fileno())
