"""The choice of the audio pass: a bundle and options in, an opened session and its way out.

Whole windows are what the network was trained on, so they are taken where the machine can afford
them; elsewhere, and where the bundle can, audio is streamed.
"""

from collections.abc import Callable
from time import monotonic

import numpy as np

from denseav.export.runtime.bundle import Bundle, BundleError
from denseav.export.runtime.open_session import open_session
from denseav.export.runtime.session import AudioWay, Session
from denseav.stream.inference.hop_controller import TOKEN_S, WORTH_SHARE
from denseav.stream.options import ModelOptions


def open_for_audio(
    bundle: Bundle, options: ModelOptions, say: Callable[[str], None]
) -> tuple[Session, AudioWay]:
    """Open the bundle for the audio pass that was asked for, or that suits this machine.

    Raises
    ------
    BundleError
        When it cannot be opened, or has no graph for the pass that was asked for.
    """

    def opened(audio: AudioWay) -> Session:
        return open_session(
            bundle,
            device=options.device,
            threads=options.threads,
            on_mismatch=options.on_mismatch,
            audio=audio,
        )

    if options.audio is not None:
        return opened(options.audio), options.audio
    session = opened("window")
    if bundle.manifest.audio_step is None:
        return session, "window"
    share = _pass_s(session, bundle.manifest.audio.window_samples) / TOKEN_S
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
    return streaming, "streaming"


def _pass_s(session: Session, window_samples: int) -> float:
    """Return how long a pass takes; one that is slow the first time is not asked twice."""
    wave_S = np.zeros(window_samples, np.float32)
    took_s = float("inf")
    for _ in range(3):
        begun_s = monotonic()
        session.encode_audio(wave_S)
        took_s = min(took_s, monotonic() - begun_s)
        if took_s > 1:
            break
    return took_s
