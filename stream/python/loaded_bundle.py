"""A model for arrays: images and audio of another program's in, heat for each token out.

Nothing is live here: no clock, no thread, no dropped frame. Axes: N clips, K heads, T tokens of
180 ms, h w cells of the maps, H W pixels, S samples.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import (
    SAMPLE_RATE_HZ,
    TOKEN_HOP_SAMPLES,
    TOKEN_SPAN_SAMPLES,
    Head,
    Manifest,
)
from denseav.export.runtime.open_session import open_session
from denseav.export.runtime.session import Session
from denseav.stream.app.build import open_model
from denseav.stream.audio.resampler import Resampler
from denseav.stream.errors import UsageError
from denseav.stream.inference.image_encoder import ImageEncoder
from denseav.stream.options import LiveOptions, ModelOptions
from denseav.stream.python.array_film import checked_audio, checked_image
from denseav.stream.types import Frame


class LoadedBundle:
    """A bundle on a device; `load_bundle` opens it. Call it from one thread at a time.

    Attributes
    ----------
    heads : in the order of the maps, each with its name and the heat that it shows from.
    grid : rows and columns of a map.
    window_s : how much audio one window holds.
    """

    def __init__(self, session: Session, manifest: Manifest) -> None:
        self.heads: tuple[Head, ...] = manifest.heads
        self.grid = manifest.image.grid_height, manifest.image.grid_width
        self.window_s = manifest.audio.window_samples / SAMPLE_RATE_HZ
        self._session = session
        self._manifest = manifest
        self._images = ImageEncoder(session, manifest.image)

    def heatmaps(
        self,
        image: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
        audio: NDArray[Any] | Sequence[NDArray[Any]],
        rate_hz: int = SAMPLE_RATE_HZ,
    ) -> NDArray[np.float32]:
        """Compare images with audio; one of each, or as many of both.

        Parameters
        ----------
        image : uint8 `[H, W, 3]`, blue-green-red; or of clips, `[N, H, W, 3]` or a sequence.
        audio : float32 in [-1, 1] or int16, `[S]`; or of clips, `[N, S]` or a sequence. At most
            `window_s` long. It is normalised as in training.
        rate_hz : samples a second.

        Returns
        -------
        heat
            float32 `[K, T, h, w]`, or of clips `[N, K, T, h, w]`: raw similarity, which means
            something from each head's `threshold` on. T is how many tokens the audio holds.

        Raises
        ------
        UsageError
            When an array is not so, or there are not as many images as pieces of audio.
        """
        if isinstance(image, np.ndarray) and image.ndim < 4:
            return self._heat(image, audio, rate_hz)
        if len(image) != len(audio) or not len(image):
            raise UsageError(f"{len(image)} images do not go with {len(audio)} pieces of audio")
        clips = [self._heat(*clip, rate_hz) for clip in zip(image, audio, strict=True)]
        if len({clip_KThw.shape for clip_KThw in clips}) > 1:
            raise UsageError("audio of clips has one length; give those of another on their own")
        return np.stack(clips)

    def _heat(self, image_HW3: Any, audio: Any, rate_hz: int) -> NDArray[np.float32]:
        wave_S = self._wave(audio, rate_hz)
        tokens, whole = self._tokens(wave_S), self._manifest.audio
        window_S = np.zeros(whole.window_samples, np.float32)
        used = TOKEN_SPAN_SAMPLES + TOKEN_HOP_SAMPLES * (tokens - 1)
        window_S[-used:] = wave_S[:used]
        heard = self._session.encode_audio(window_S)
        seen = self._images.encode(Frame(checked_image(image_HW3), 0, 0.0))
        places = range(whole.tokens - tokens, whole.tokens)
        return np.stack([self._session.heatmap(seen, heard, token) for token in places], axis=1)

    def _wave(self, audio: Any, rate_hz: int) -> NDArray[np.float32]:
        """Return the audio of one clip, mono at 16 kHz."""
        samples_SC = checked_audio(audio)
        if samples_SC.shape[1] > 1:
            raise UsageError("audio of a clip is [samples]; give audio.mean(axis=1)")
        if rate_hz == SAMPLE_RATE_HZ:
            return samples_SC[:, 0]
        if not isinstance(rate_hz, int) or rate_hz <= 0:
            raise UsageError(f"rate_hz is a number of samples a second, not {rate_hz!r}")
        resampler = Resampler(rate_hz)
        return np.concatenate([resampler.push(samples_SC), resampler.finish()])

    def _tokens(self, wave_S: NDArray[np.float32]) -> int:
        """Return how many whole tokens there are, at least one and no more than a window has."""
        tokens = 1 + (len(wave_S) - TOKEN_SPAN_SAMPLES) // TOKEN_HOP_SAMPLES
        if tokens < 1 or tokens > self._manifest.audio.tokens:
            least_s = TOKEN_SPAN_SAMPLES / SAMPLE_RATE_HZ
            raise UsageError(
                f"audio of a clip lasts {least_s:g} to {self.window_s:g} s, "
                f"not {len(wave_S) / SAMPLE_RATE_HZ:.3g}; for more: denseav.live(offline=True)"
            )
        return tokens


def load_bundle(
    model: str | Path | None = None, *, device: str = "auto", threads: int = 1
) -> LoadedBundle:
    """Open a model for arrays.

    Parameters
    ----------
    model : a bundle's folder, or one of a hub as `hf:owner/name`; without it the exported one,
        else the demo's.
    device : as `denseav-live --device` has it.
    threads : how many one pass may use on a CPU.

    Raises
    ------
    BundleError
        When the model or the device cannot be used.
    """
    folder = None if model is None else Path(model)
    bundle = open_model(LiveOptions(model=ModelOptions(model=folder)), lambda _: None)
    return LoadedBundle(open_session(bundle, device, threads), bundle.manifest)
