"""A run from `LiveOptions`: put together, run and taken apart again; its figures out."""

import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from denseav.export.hub import fetch_bundle, is_on_hub
from denseav.export.runtime.bundle import (
    Bundle,
    Manifest,
    default_folder,
    demo_folder,
    open_bundle,
)
from denseav.export.runtime.session import AudioWay, Interrupted, Session
from denseav.export.terminal_text import safe_text
from denseav.stream.app.audio_choice import open_for_audio
from denseav.stream.app.live_loop import LiveRun
from denseav.stream.app.mosaic import Mosaic
from denseav.stream.app.offline_loop import run_offline
from denseav.stream.app.page import BROWSER, RunState, browser_camera, open_page
from denseav.stream.app.sinks import Say
from denseav.stream.app.tuning import Tuning
from denseav.stream.app.view import View
from denseav.stream.calibration.av_offset import CALIBRATION_S, watch, words, write_clip
from denseav.stream.calibration.room_noise import learn, with_settings, words_of_room
from denseav.stream.display.hud import Hud
from denseav.stream.display.overlay import Overlay
from denseav.stream.display.rerun_viewer import RerunDisplay
from denseav.stream.display.timeline import Strip
from denseav.stream.display.window import Screen
from denseav.stream.display.window_process import display_available
from denseav.stream.errors import UsageError
from denseav.stream.feed.message import Origin, default_camera_id
from denseav.stream.feed.publisher import CameraFeed, Publisher
from denseav.stream.inference.hop_controller import HopController
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.inference.sync_policy import Sync
from denseav.stream.inference.timed_session import TimedSession
from denseav.stream.inference.validity import FiniteCheck
from denseav.stream.options import DisplayOptions, FeedOptions, LiveOptions, SourceOptions
from denseav.stream.recording.foxglove_channels import ONE_CAMERA, Inputs
from denseav.stream.sources.media_file import Clip
from denseav.stream.sources.open import (
    camera_size,
    described,
    films_of,
    most_microphones,
    open_file,
    open_sources,
    supervised,
)
from denseav.stream.stats.json_lines import StatsLines, check_destination
from denseav.stream.stats.source_health import SourceHealth
from denseav.stream.stats.stats import Stats
from denseav.stream.types import Film, Heatmap, Source
from denseav.stream.web.foxglove_server import FoxgloveServer

if TYPE_CHECKING:
    from denseav.stream.web.browser_camera import BrowserCamera
    from denseav.stream.web.server import PageServer


_POLL_S = 0.1  # how long it is waited at most before it is looked whether the run is over


class Consumer(Protocol):
    """Another program that takes the heatmaps of a run."""

    def begin(self, manifest: Manifest) -> None:
        """Take note of the model that runs, before the first heatmap."""

    def heatmap(self, heatmap: Heatmap) -> None:
        """Take a heatmap on the thread that makes them: live it must not wait, offline it may."""


def print_line(line: str) -> None:
    """Print a line for people, as the command does."""
    print(f"denseav-live: {safe_text(line)}", file=sys.stderr, flush=True)  # noqa: T201


def print_ready(inputs: str) -> None:
    """Print the line that scripts wait for."""
    print(f"denseav-live READY {inputs}", file=sys.stderr, flush=True)  # noqa: T201


def run(
    options: LiveOptions,
    stop: threading.Event,
    opened: threading.Event,
    *,
    stats: Stats | None = None,
    on_ready: Callable[[str], None] = print_ready,
    say: Say = print_line,
    film: Film | None = None,
    consumer: Consumer | None = None,
) -> dict[str, Any]:
    """Open what the options name, run until it ends or `stop` is set, and close everything.

    Parameters
    ----------
    options : checked.
    stop : set from any thread to end the run.
    opened : is set when all is open: from then on there is something to close.
    stats : takes the figures; None for one of its own.
    on_ready : called with what runs at the first heatmap that is worth announcing.
    say : called with each line for people.
    film : is played in place of what the options name.
    consumer : takes every heatmap.

    Returns
    -------
    report : the run's figures, as `Stats.report` has them.

    Raises
    ------
    StreamError, BundleError
        What could not be opened, read or written; the figures are written all the same.
    """
    if options.stats_json is not None:
        check_destination(options.stats_json)
    bundle = open_model(options, say)
    model, given = options.model, options.sources
    sync = Sync(exact=model.sync == "exact", lookahead=model.lookahead)
    sync.check(bundle.manifest.audio.tokens)
    session, audio = open_for_audio(bundle, model, say, most_microphones(given))
    bundle, room = _in_this_room(options, bundle, session, audio, stop=stop, say=say)
    manifest, stats = bundle.manifest, stats or Stats()
    health = SourceHealth(say)
    report = partial(_report, stats, health, session, manifest, audio)
    with ExitStack() as outputs:
        _open_monitors(options, stats, report, outputs, say=say)
        if film is None and given.offline and given.source is not None:
            film = open_file(given)
        clip = film if given.offline else None
        camera, sources = None, list[Source]()
        if not clip:
            camera, sources = _open_live(given, film, health, stats)
        outputs.callback(_say_mended, [clip] if clip else films_of(sources), say)
        for source in sources:
            outputs.callback(source.stop)
        names = [item.name for item in ([clip] if clip else sources)]
        say("looking at and listening to " + " and ".join(names))
        _interrupt_when(stop, session)
        ids = _camera_ids(options, names)
        cameras = [stats.camera(each) for each in ids] if len(ids) > 1 else [stats]
        own_microphones = _have_own_microphones(given, sources)
        pipeline = Pipeline(
            TimedSession(session, stats),
            manifest,
            audio=audio,
            sync=sync,
            hop_controller=None if clip else HopController(),
            cameras=len(cameras),
            own_microphones=own_microphones,
            audio_good_since=partial(_audio_good_since, health, given.av_offset_s),
        )
        shown = _shown_names(names, len(ids), own_microphones)
        hud = Hud(session.backend, session.precision, shown, health.states, room)
        mosaic = _mosaic(sources[: len(ids)], health)
        page, run_state = None, RunState(hud, stats, health)
        if options.page.serve is not None:
            features = options.display.view == "features"
            page = open_page(options.page, manifest, run_state, camera, features, mosaic)
            outputs.enter_context(closing(page))
        inputs = ONE_CAMERA if mosaic is None else _inputs_of(ids, own_microphones)
        view = _open_view(options.display, manifest, hud, stats, page, mosaic, inputs, say=say)
        outputs.enter_context(closing(view))
        run_state.view = view
        takers = [FiniteCheck([head.name for head in manifest.heads], say).heatmap]
        settle = [view.scale.settle]
        if consumer is not None:
            consumer.begin(manifest)
            takers.append(consumer.heatmap)
        if options.feed.publish is not None:
            feeds = [
                CameraFeed(
                    origin=Origin(
                        camera_id=each,
                        heads=manifest.heads,
                        model=bundle.sha256,
                        backend=session.backend,
                        precision=session.precision,
                    ),
                    snapshot=cameras[number].snapshot,
                    sources=partial(health.states_of, number, number if own_microphones else 0),
                )
                for number, each in enumerate(ids)
            ]
            publisher = _open_publisher(options.feed, feeds, stats, say=say)
            takers.append(outputs.enter_context(closing(publisher)).heatmap)
            settle.append(publisher.settle)
        view.tuning = Tuning(manifest, pipeline, settle, say)
        opened.set()
        if clip:
            with suppress(Interrupted):
                run_offline(
                    clip,
                    pipeline,
                    view,
                    stats,
                    stop=stop,
                    seconds=options.seconds,
                    publish=takers,
                    av_offset_s=given.av_offset_s,
                )
        else:
            LiveRun(
                sources,
                pipeline,
                view,
                stats,
                stop=stop,
                seconds=options.seconds,
                ready=_announcer(session, sources, given.mic != "none", on_ready),
                publish=takers,
                av_offset_s=given.av_offset_s,
                health=health,
                cameras=cameras,
            ).run()
    return report(final=True)


def calibrate(options: LiveOptions, stop: threading.Event, opened: threading.Event) -> str:
    """Return, for people, how much later the sound arrives than the picture.

    Raises
    ------
    StreamError
        When a source cannot be opened or fails, or too little was seen.
    """
    if options.display.record is not None:
        opened.set()
        write_clip(options.display.record)
        return (
            f"{options.display.record} written: play it before the camera, "
            "and run --calibrate-av again"
        )
    seconds = options.seconds or CALIBRATION_S
    with ExitStack() as outputs:
        if options.sources.cameras == (BROWSER,):
            camera = browser_camera(SourceHealth(print_line), Stats())
            page = open_page(options.page, None, camera=camera)
            outputs.enter_context(closing(page))
            sources: list[Source] = [camera]
            opened.set()
            while not (stop.is_set() or camera.has_come.wait(_POLL_S)):
                pass
        else:
            sources = open_sources(options.sources)
            opened.set()
        print_line(f"watching for flashes that click, for {seconds:g} s")
        offset = watch(sources, seconds, stop, options.sources.av_offset_s)
    return words(offset, options.sources.av_offset_ms)


def _in_this_room(
    options: LiveOptions,
    bundle: Bundle,
    session: Session,
    audio: AudioWay,
    *,
    stop: threading.Event,
    say: Say,
) -> tuple[Bundle, str | None]:
    """Say what runs, and return it with what the room or the options ask for, in words too."""
    manifest, room = bundle.manifest, None
    trained = "" if manifest.trained else " (untrained: random weights)"
    say(f"model {manifest.model}{trained} on {session.backend}, {session.precision}")
    asked = options.room
    manifest = with_settings(manifest, asked.energy_floor_dbfs, asked.thresholds)
    if asked.calibrate is not None:
        say(f"learning the room for {asked.calibrate:g} s: keep quiet")
        sources = open_sources(options.sources)
        learned = learn(
            sources,
            session,
            manifest,
            audio=audio,
            seconds=asked.calibrate,
            stop=stop,
            cameras=max(1, len(options.sources.cameras)),
            own_microphones=_have_own_microphones(options.sources, sources),
        )
        if learned is not None:
            say(words_of_room(manifest, learned))
            manifest = learned.settle(manifest)
            floor_dbfs = manifest.audio.energy_floor_dbfs
            room = f"noise {learned.noise_dbfs:.0f} dBFS, silent below {floor_dbfs:.0f} dBFS"
    return replace(bundle, manifest=manifest), room


def _camera_ids(options: LiveOptions, names: Sequence[str]) -> Sequence[str]:
    """Return each camera's name in topics and figures; what is no camera is one as well."""
    given, ids = options.sources, options.feed.camera_ids
    specs = given.cameras or (str(given.source or "demo"),)
    if ids or (len(specs) == 1 and options.feed.publish is None):
        return ids or ("",)
    return [default_camera_id(name, spec) for name, spec in zip(names, specs, strict=False)]


def _open_live(
    options: SourceOptions, film: Film | None, health: SourceHealth, stats: Stats
) -> "tuple[BrowserCamera | None, list[Source]]":
    """Return what the options name, kept going, and which of it comes in by the page."""
    if BROWSER not in options.cameras:
        return None, supervised(open_sources(options, film), health, stats)
    number = options.cameras.index(BROWSER)
    browser = browser_camera(health, stats, number)
    others = tuple(each for each in options.cameras if each != BROWSER)
    if len(others) < len(options.cameras) - 1:
        raise UsageError("one browser can be a camera; name it once")
    opened = open_sources(replace(options, cameras=others))
    opened.insert(number, browser)
    browser.audio = options.mic != "none" and len(opened) == len(options.cameras)
    return browser, supervised(opened, health, stats)


def _have_own_microphones(options: SourceOptions, sources: Sequence[Source]) -> bool:
    """Return whether several cameras each have their own: there is none beside them."""
    several = len(options.cameras) > 1
    return several and options.mic != "none" and len(sources) == len(options.cameras)


def _shown_names(names: Sequence[str], cameras: int, own_microphones: bool) -> Sequence[str]:
    """Return what the figures name; of several cameras, tiles have their names."""
    if cameras == 1:
        return names
    with_sound = " with their own sound" if own_microphones else ""
    return [f"{cameras} cameras{with_sound}", *names[cameras:]]


def _inputs_of(ids: Sequence[str], own_microphones: bool) -> Inputs:
    return Inputs(cameras=ids, microphones=ids if own_microphones else (None,))


def _audio_good_since(health: SourceHealth, av_offset_s: float, microphone: int) -> float | None:
    """Return since when a microphone's audio has been good, by its corrected times."""
    since_s = health.running_since_s("microphone", microphone)
    return None if since_s is None else since_s - av_offset_s


def _open_monitors(
    options: LiveOptions,
    stats: Stats,
    report: Callable[..., dict[str, Any]],
    outputs: ExitStack,
    *,
    say: Say,
) -> None:
    """Begin to write figures where they were asked for; closed last, they know how it ended."""
    if options.prometheus is not None:
        from denseav.stream.stats.prometheus import (
            Metrics,  # loads an HTTP server that few runs need
        )

        what = report(final=False)
        names = ("backend", "precision", "model", "trained")
        metrics = Metrics(options.prometheus, stats, {name: str(what[name]) for name in names})
        outputs.enter_context(closing(metrics))
        say(f"metrics at {metrics.url}")
    if options.stats_json is not None:
        lines = StatsLines(options.stats_json, report, say)
        outputs.enter_context(closing(lines))


def _interrupt_when(stop: threading.Event, session: Session) -> None:
    def wait() -> None:
        stop.wait()
        session.interrupt()

    threading.Thread(target=wait, name="interrupter", daemon=True).start()


def _report(
    stats: Stats,
    health: SourceHealth,
    session: Session,
    manifest: Manifest,
    audio: AudioWay,
    final: bool,
) -> dict[str, Any]:
    report = stats.report(
        final=final,
        backend=session.backend,
        precision=session.precision,
        model=manifest.model,
        trained=manifest.trained,
    )
    return report | {"audio": audio, "sources": health.report()}


def open_model(options: LiveOptions, say: Say = print_line) -> Bundle:
    """Open the bundle that the options name, else the exported one, else the demo's."""
    if options.model.model is not None:
        named = options.model.model
        if is_on_hub(named):
            say(f"taking {named.as_posix()} from the hub, or as it was taken before")
            named = fetch_bundle(named)
        return open_bundle(named)
    if options.sources.demo:
        return open_bundle(demo_folder())
    if default_folder().is_dir():
        return open_bundle(default_folder())
    say(
        "no exported model yet, so the small demo model runs; for the released weights, in a "
        "clone of denseav: pip install '.[export]' && "
        "denseav-export hf:mhamilton723/DenseAV-sound-language"
    )
    return open_bundle(demo_folder())


def _mosaic(cameras: Sequence[Source], health: SourceHealth) -> Mosaic | None:
    """Return tiles for cameras, where there are several."""
    names = [camera.name for camera in cameras]
    sizes = [camera_size(camera) for camera in cameras]
    return Mosaic(names, sizes, health.fault_of) if len(cameras) > 1 else None


def _open_view(
    options: DisplayOptions,
    manifest: Manifest,
    hud: Hud,
    stats: Stats,
    page: "PageServer | None",
    mosaic: Mosaic | None,
    inputs: Inputs,
    *,
    say: Say,
) -> View:
    overlay = Overlay(manifest.heads, manifest.trained, options.view)
    strip = Strip(manifest.heads, options.strip)
    window = not options.headless and display_available()
    screen = rerun = foxglove = None
    if options.display == "rerun":
        rerun = RerunDisplay(manifest.heads, window)
        say(f"Rerun's viewer is at {rerun.url}; others connect with: rerun {rerun.url}")
    elif options.display == "foxglove":
        foxglove = FoxgloveServer(manifest.heads, lambda: hud.status(stats.snapshot()), inputs)
        say(f"Foxglove finds the run at {foxglove.url}; its app opens it by {foxglove.app_url}")
    elif window:
        screen = Screen("denseav")
    if not (options.headless or window or foxglove):
        say("no display here, so running headless")
    return View(
        overlay,
        hud,
        stats,
        say=say,
        strip=strip,
        screen=screen,
        record=options.record,
        rerun=rerun,
        foxglove=foxglove,
        page=page,
        mosaic=mosaic,
        inputs=inputs,
    )


def _open_publisher(
    options: FeedOptions, cameras: Sequence[CameraFeed], stats: Stats, *, say: Say
) -> Publisher:
    assert options.publish is not None
    publisher = Publisher(
        options.publish,
        cameras,
        keys=options.publish_keys,
        insecure=options.insecure,
        preview=options.publish_preview,
        stats=stats,
    )
    say(f"publishing heatmaps at {publisher.endpoint}")
    return publisher


def _announcer(
    session: Session, sources: Sequence[Source], audio: bool, announce: Callable[[str], None]
) -> Callable[[Heatmap], bool]:
    """Return what announces the run: at the first heatmap with audio, if there is to be any."""
    inputs = " ".join(map(described, sources))

    def ready(heatmap: Heatmap) -> bool:
        if audio and heatmap.audio_end_s is None:
            return False
        announce(f"backend={session.backend}-{session.precision} {inputs}")
        return True

    return ready


def _say_mended(films: Sequence[Film], say: Callable[[str], None]) -> None:
    for film in films:
        if isinstance(film, Clip) and film.mended:
            say(f"{film.name} was mended: {film.mended}")
