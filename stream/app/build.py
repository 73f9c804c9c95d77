"""Options enter, a run is put together from them, made and taken apart again."""

import argparse
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from denseav.export.runtime.bundle import (
    Bundle,
    Manifest,
    default_folder,
    demo_folder,
    open_bundle,
)
from denseav.export.runtime.open_session import open_session
from denseav.export.runtime.session import Interrupted, Session
from denseav.stream.app.live_loop import LiveRun
from denseav.stream.app.offline_loop import run_offline
from denseav.stream.app.sinks import View
from denseav.stream.audio.level_normalizer import LevelNormalizer
from denseav.stream.calibration.av_offset import CALIBRATION_S, watch, words, write_clip
from denseav.stream.calibration.room_noise import learn, with_settings, words_of_room
from denseav.stream.display.hud import Hud
from denseav.stream.display.overlay import Overlay
from denseav.stream.display.rerun_viewer import RerunDisplay
from denseav.stream.display.timeline import Strip
from denseav.stream.display.window import Screen, display_available
from denseav.stream.errors import UsageError, without_secrets
from denseav.stream.feed.message import Origin, default_camera_id
from denseav.stream.feed.publisher import Publisher
from denseav.stream.inference.hop_controller import HopController
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.inference.timed_session import TimedSession
from denseav.stream.sources.health import SourceHealth
from denseav.stream.sources.media_file import Clip
from denseav.stream.sources.open import described, open_sources, supervised
from denseav.stream.stats.json_lines import StatsLines, check_destination
from denseav.stream.stats.stats import Stats
from denseav.stream.types import Heatmap, Source


def run(
    options: argparse.Namespace,
    stop: threading.Event,
    opened: threading.Event,
    stats: Stats | None = None,
    on_ready: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Open what the options name, run until it ends or `stop` is set, and close everything.

    Parameters
    ----------
    options : checked.
    stop : set from any thread to end the run.
    opened : is set when all is open: from then on there is something to close.
    stats : takes the figures; None for one of its own.
    on_ready : called on the seeing thread at the first heatmap that is worth announcing.

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
    bundle = _open_model(options)
    session = open_session(bundle, options.device, options.threads, options.on_mismatch)
    bundle, room = _in_this_room(options, bundle, session, stop)
    manifest, stats = bundle.manifest, stats or Stats()
    health = SourceHealth(_say)
    report = partial(_report, stats, health, session, manifest)
    with ExitStack() as outputs:
        _open_monitors(options, stats, report, outputs)
        clip = Clip(options.source) if options.offline else None
        sources = [] if clip else supervised(open_sources(options), health, stats)
        for source in sources:
            outputs.callback(source.stop)
        names = [item.name for item in ([clip] if clip else sources)]
        _say("looking at and listening to " + " and ".join(names))
        _interrupt_when(stop, session)
        pipeline = _open_pipeline(options, TimedSession(session, stats), manifest)
        hud = Hud(session.backend, session.precision, names, health.states, room)
        view = outputs.enter_context(closing(_open_view(options, manifest, hud, stats)))
        publish = None
        if options.publish is not None:
            publisher = _open_publisher(options, bundle, session, stats, health, names[0])
            publish = outputs.enter_context(closing(publisher)).heatmap
        opened.set()
        av_offset_s = options.av_offset_ms / 1000
        if clip:
            with suppress(Interrupted):
                run_offline(clip, pipeline, view, stats, stop, options.seconds, av_offset_s)
        else:
            ready = _announcer(session, sources, hears=options.mic != "none", then=on_ready)
            LiveRun(
                *(sources, pipeline, view, stats, stop, options.seconds),
                *(ready, publish, av_offset_s, health),
            ).run()
    return report(final=True)


def calibrate(options: argparse.Namespace, stop: threading.Event, opened: threading.Event) -> str:
    """Return, for people, how much later the sound arrives than the picture.

    Raises
    ------
    StreamError
        When a source cannot be opened or fails, or too little was seen.
    """
    if options.record is not None:
        opened.set()
        write_clip(options.record)
        return f"{options.record} written: play it before the camera, and run --calibrate-av again"
    sources = open_sources(options)
    opened.set()
    seconds = options.seconds or CALIBRATION_S
    _say(f"watching for flashes that click, for {seconds:g} s")
    offset = watch(sources, seconds, stop, options.av_offset_ms / 1000)
    return words(offset, options.av_offset_ms)


def _in_this_room(
    options: argparse.Namespace, bundle: Bundle, session: Session, stop: threading.Event
) -> tuple[Bundle, str | None]:
    """Say what runs, and return it with what the room or the options ask for, in words too."""
    manifest, room = bundle.manifest, None
    trained = "" if manifest.trained else " (untrained: random weights)"
    _say(f"model {manifest.model}{trained} on {session.backend}, {session.precision}")
    manifest = with_settings(manifest, options.energy_floor_dbfs, dict(options.threshold))
    if options.calibrate is not None:
        _say(f"learning the room for {options.calibrate:g} s: keep quiet")
        learned = learn(open_sources(options), session, manifest, options.calibrate, stop)
        if learned is not None:
            _say(words_of_room(manifest, learned))
            manifest = learned.settle(manifest)
            floor_dbfs = manifest.audio.energy_floor_dbfs
            room = f"noise {learned.noise_dbfs:.0f} dBFS, silent below {floor_dbfs:.0f} dBFS"
    return replace(bundle, manifest=manifest), room


def _open_pipeline(options: argparse.Namespace, session: Session, manifest: Manifest) -> Pipeline:
    tokens = manifest.audio.tokens
    if options.lookahead >= tokens:
        raise UsageError(
            f"--lookahead {options.lookahead} is beyond this model's window of {tokens} tokens"
        )
    return Pipeline(
        session,
        manifest,
        exact=options.sync == "exact",
        lookahead=options.lookahead,
        throttle=None if options.offline else HopController(),
        loudness=None if options.offline else LevelNormalizer(manifest.audio.energy_floor_dbfs),
    )


def _open_monitors(
    options: argparse.Namespace,
    stats: Stats,
    report: Callable[..., dict[str, Any]],
    outputs: ExitStack,
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
        _say(f"metrics at {metrics.url}")
    if options.stats_json is not None:
        lines = StatsLines(options.stats_json, report, _say)
        outputs.enter_context(closing(lines))


def _interrupt_when(stop: threading.Event, session: Session) -> None:
    def wait() -> None:
        stop.wait()
        session.interrupt()

    threading.Thread(target=wait, name="interrupter", daemon=True).start()


def _report(
    stats: Stats, health: SourceHealth, session: Session, manifest: Manifest, final: bool
) -> dict[str, Any]:
    report = stats.report(
        final=final,
        backend=session.backend,
        precision=session.precision,
        model=manifest.model,
        trained=manifest.trained,
    )
    return report | {"sources": health.report()}


def _open_model(options: argparse.Namespace) -> Bundle:
    if options.model is not None:
        return open_bundle(options.model)
    if options.demo:
        return open_bundle(demo_folder())
    if default_folder().is_dir():
        return open_bundle(default_folder())
    _say(
        "no exported model yet, so the small demo model runs; for the released weights, in a "
        "clone of denseav: pip install '.[export]' && "
        "denseav-export hf:mhamilton723/DenseAV-sound-language"
    )
    return open_bundle(demo_folder())


def _open_view(options: argparse.Namespace, manifest: Manifest, hud: Hud, stats: Stats) -> View:
    overlay = Overlay(manifest.heads, manifest.trained, options.view)
    strip = Strip(manifest.heads, options.strip)
    window = not options.headless and display_available()
    screen = rerun = None
    if options.display == "rerun":
        rerun = RerunDisplay(manifest.heads, window)
        _say(f"Rerun's viewer is at {rerun.url}; others connect with: rerun {rerun.url}")
    elif window:
        screen = Screen("denseav")
    if not (options.headless or window):
        _say("no display here, so running headless")
    return View(overlay, hud, stats, screen, options.record, _say, strip, rerun)


def _open_publisher(
    options: argparse.Namespace,
    bundle: Bundle,
    session: Session,
    stats: Stats,
    health: SourceHealth,
    camera: str,
) -> Publisher:
    spec = options.camera or str(options.source or "demo")
    origin = Origin(
        camera_id=options.camera_id or default_camera_id(camera, spec),
        heads=bundle.manifest.heads,
        model=bundle.sha256,
        backend=session.backend,
        precision=session.precision,
    )
    publisher = Publisher(
        options.publish,
        origin,
        stats.snapshot,
        keys=options.publish_keys,
        insecure=options.insecure,
        preview=options.publish_preview,
        stats=stats,
        sources=health.states,
    )
    _say(f"publishing heatmaps at {publisher.endpoint}")
    return publisher


def _announcer(
    session: Session,
    sources: Sequence[Source],
    *,
    hears: bool,
    then: Callable[[], None] | None = None,
) -> Callable[[Heatmap], bool]:
    """Return what prints the READY line: at the first heatmap with sound, if there is to be any."""
    inputs = " ".join(map(described, sources))

    def ready(heatmap: Heatmap) -> bool:
        if hears and heatmap.audio_end_s is None:
            return False
        backend = f"{session.backend}-{session.precision}"
        print(f"denseav-live READY backend={backend} {inputs}", file=sys.stderr, flush=True)  # noqa: T201
        if then is not None:
            then()
        return True

    return ready


def _say(line: str) -> None:
    print(f"denseav-live: {without_secrets(line)}", file=sys.stderr, flush=True)  # noqa: T201
