"""What a machine can afford: a bundle and options in, an opened session and its audio pass out.

Threads: where one thread encodes pictures in time, each pass has one. Otherwise the two passes
share all cores but one, which is left to capture and drawing: an audio step has as many as it needs
to keep up, a whole window half of them, and pictures have the rest. Audio: whole windows are what
the network was trained on, so they are taken where the machine can afford them; elsewhere, and
where the bundle can, audio is streamed.
"""

import math
import os
import sys
from collections.abc import Callable
from time import monotonic

import numpy as np

from denseav.export.runtime.bundle import TOKEN_SPAN_SAMPLES, Bundle, BundleError
from denseav.export.runtime.open_session import open_session
from denseav.export.runtime.session import AudioWay, Level, Session, Threads
from denseav.stream.inference.hop_controller import TOKEN_S, WORTH_SHARE
from denseav.stream.inference.image_encoder import QUICK_PASS_S
from denseav.stream.options import ModelOptions

KEEPS_UP_SHARE = 0.8  # of a token, which a step may take beside the other passes
_PASSES = 3


def open_for_audio(
    bundle: Bundle, options: ModelOptions, say: Callable[[str], None], microphones: int = 1
) -> tuple[Session, AudioWay]:
    """Open the bundle for the audio pass that was asked for, or that suits this machine.

    Parameters
    ----------
    microphones : whose audio is encoded in turn, at most.

    Raises
    ------
    BundleError
        When it cannot be opened, or has no graph for the pass that was asked for.
    """

    def opened(audio: AudioWay, threads: int | Threads = options.threads or 1) -> Session:
        return open_session(
            bundle,
            device=options.device,
            threads=threads,
            on_mismatch=options.on_mismatch,
            audio=audio,
        )

    def streaming(session: Session) -> Session:
        if shared is not None:
            threads = _step_threads(microphones * _step_s(session), shared)
            session = opened("streaming", Threads(shared - threads, threads))
        _say_if_it_lags(session, microphones, say)
        return session

    session = opened(options.audio or "window")
    shared = None if options.threads else _shared_threads(session, bundle, say)
    if options.audio == "streaming":
        return streaming(session), "streaming"
    if shared is not None:
        session = opened("window", Threads(shared - shared // 2, shared // 2))
    if options.audio == "window" or bundle.manifest.audio_step is None:
        return session, "window"
    share = microphones * _window_s(session, bundle) / TOKEN_S
    taken = f"{_taken('a whole window', 'whole windows', microphones, share)} here"
    if share <= WORTH_SHARE:
        say(f"audio by the window: {taken}")
        return session, "window"
    try:
        streams = opened("streaming")
    except BundleError as error:  # not every device can
        say(f"audio by the window, although {taken}: {error}")
        return session, "window"
    say(f"audio is streamed: {taken}; to have it all the same: --audio window")
    return streaming(streams), "streaming"


def _shared_threads(session: Session, bundle: Bundle, say: Callable[[str], None]) -> int | None:
    """Return how many threads the passes share; None where each has enough with its one."""
    shared = _cores() - 1
    if shared < 2:
        return None
    took_s = _image_s(session, bundle)
    if took_s <= QUICK_PASS_S:
        return None
    say(f"{shared} threads for the passes: with one a picture takes {1000 * took_s:.0f} ms")
    return shared


def _step_threads(alone_s: float, shared: int) -> int:
    """Return how many threads a step needs to keep up, of those shared; more would only wait."""
    needed = math.ceil(alone_s / (KEEPS_UP_SHARE * TOKEN_S))
    return min(needed, shared // 2)


def _say_if_it_lags(session: Session, microphones: int, say: Callable[[str], None]) -> None:
    share = microphones * _step_s(session) / TOKEN_S
    if share > KEEPS_UP_SHARE:
        quicker = "" if session.precision == "int8" else "export with --precision int8, or "
        taken = _taken("a step", "steps", microphones, share)
        say(
            f"audio will lag: {taken} here, where "
            f"pictures are encoded beside it; {quicker}give --threads"
        )


def _taken(one: str, several: str, count: int, share: float) -> str:
    who, whose = (f"{one} takes", "its") if count == 1 else (f"{count} {several} take", "their")
    return f"{who} {share:.0%} of {whose} {1000 * TOKEN_S:.0f} ms"


def _cores() -> int:
    """Return on how many cores this process may run."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _image_s(session: Session, bundle: Bundle) -> float:
    size = bundle.manifest.image
    image_HW3 = np.zeros((size.height, size.width, 3), np.uint8)
    return _pass_s(lambda: session.encode_image(image_HW3))


def _window_s(session: Session, bundle: Bundle) -> float:
    wave_S = np.zeros(bundle.manifest.audio.window_samples, np.float32)
    return _pass_s(lambda: session.encode_audio(wave_S))


def _step_s(session: Session) -> float:
    stream, samples_S = session.audio_stream(), np.zeros(TOKEN_SPAN_SAMPLES, np.float32)
    return _pass_s(lambda: stream.step(samples_S, Level.of(samples_S)))


def _pass_s(run: Callable[[], object]) -> float:
    """Return how long a pass takes; one that is slow the first time is not asked twice."""
    took_s = float("inf")
    for _ in range(_PASSES):
        begun_s = monotonic()
        run()
        took_s = min(took_s, monotonic() - begun_s)
        if took_s > 1:
            break
    return took_s
