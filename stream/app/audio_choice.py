"""What a machine can afford: a bundle and options in, an opened session and its audio pass out.

Threads: a picture that one thread encodes in time has one; otherwise all cores but one work at a
pass, and that one is left to capture, drawing, and the other pass. Audio: whole windows are what
the network was trained on, so they are taken where the machine can afford them; elsewhere, and
where the bundle can, audio is streamed.
"""

import os
import sys
from collections.abc import Callable
from time import monotonic

import numpy as np

from denseav.export.runtime.bundle import TOKEN_SPAN_SAMPLES, Bundle, BundleError
from denseav.export.runtime.open_session import open_session
from denseav.export.runtime.session import AudioWay, Level, Session
from denseav.stream.inference.hop_controller import TOKEN_S, WORTH_SHARE
from denseav.stream.inference.image_encoder import QUICK_PASS_S
from denseav.stream.options import ModelOptions

KEEPS_UP_SHARE = 0.8  # of a token, which a step may take beside the other passes
_PASSES = 3


def open_for_audio(
    bundle: Bundle, options: ModelOptions, say: Callable[[str], None]
) -> tuple[Session, AudioWay]:
    """Open the bundle for the audio pass that was asked for, or that suits this machine.

    Raises
    ------
    BundleError
        When it cannot be opened, or has no graph for the pass that was asked for.
    """
    threads = options.threads or 1

    def opened(audio: AudioWay) -> Session:
        return open_session(
            bundle,
            device=options.device,
            threads=threads,
            on_mismatch=options.on_mismatch,
            audio=audio,
        )

    session = opened(options.audio or "window")
    spare = _cores() - 1
    if options.threads is None and spare > 1:
        took_s = _image_s(session, bundle)
        if took_s > QUICK_PASS_S:
            say(f"{spare} threads for each pass: with one a picture takes {1000 * took_s:.0f} ms")
            threads = spare
            session = opened(options.audio or "window")
    if options.audio is not None:
        if options.audio == "streaming":
            _say_if_it_lags(session, say)
        return session, options.audio
    if bundle.manifest.audio_step is None:
        return session, "window"
    share = _window_s(session, bundle) / TOKEN_S
    taken = f"a whole window takes {share:.0%} of its {1000 * TOKEN_S:.0f} ms here"
    if share <= WORTH_SHARE:
        say(f"audio by the window: {taken}")
        return session, "window"
    try:
        streaming = opened("streaming")
    except BundleError as error:  # not every device can
        say(f"audio by the window, although {taken}: {error}")
        return session, "window"
    say(f"audio is streamed: {taken}; to have it all the same: --audio window")
    _say_if_it_lags(streaming, say)
    return streaming, "streaming"


def _say_if_it_lags(session: Session, say: Callable[[str], None]) -> None:
    share = _step_s(session) / TOKEN_S
    if share > KEEPS_UP_SHARE:
        say(
            f"audio will lag: a step takes {share:.0%} of its {1000 * TOKEN_S:.0f} ms here, where "
            "pictures are encoded beside it; export with --precision int8, or give --threads"
        )


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
