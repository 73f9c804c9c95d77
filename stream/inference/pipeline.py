"""The pipeline: a `Frame` and the audio round it in, a `Heatmap` out.

An audio pass, an image encoder and a sync policy put together. The audio pass runs once a hop, on
one thread; a heatmap is made once a frame, on one thread, which may be another. Nothing here
knows devices or screens.

Axes: K heads, H W the feature grid.
"""

from collections.abc import Callable
from dataclasses import replace
from time import monotonic

import numpy as np

from denseav.export.runtime.bundle import TOKEN_SPAN_SAMPLES, Manifest
from denseav.export.runtime.session import AudioWay, Features, Session
from denseav.stream.inference.audio_pass import (
    SILENT_DBFS,
    AudioPass,
    AudioTokens,
    StreamingAudio,
    WindowedAudio,
    token_end,
)
from denseav.stream.inference.hop_controller import HopController
from denseav.stream.inference.image_encoder import ImageEncoder
from denseav.stream.inference.sync_policy import Sync, SyncPolicy
from denseav.stream.inference.validity import TokenAudio, valid_heads
from denseav.stream.types import AudioBlock, Frame, Heatmap

LATEST = Sync()


class Pipeline:
    """What turns frames and audio into heatmaps.

    Parameters
    ----------
    session : a loaded bundle.
    manifest : that bundle's manifest.
    audio : how it is encoded; the session was opened for it.
    sync : how frames and tokens meet.
    hop_controller : chooses the hop on a machine that is too slow; None encodes every token.
    cameras : how many give frames.
    audio_good_since : says since when audio has been good, on the blocks' clock; None while it
        is not. Without it all of it is.

    Attributes
    ----------
    audio : the audio pass.
    sync : the sync policy.
    energy_floor_dbfs : quieter audio is silence; may be set from any thread.
    images : the image encoder of each camera; live, and where a frame need not meet its own
        moment, it uses features again while nothing moves.
    """

    def __init__(
        self,
        session: Session,
        manifest: Manifest,
        *,
        audio: AudioWay = "window",
        sync: Sync = LATEST,
        hop_controller: HopController | None = None,
        cameras: int = 1,
        audio_good_since: Callable[[], float | None] = lambda: float("-inf"),
    ) -> None:
        self.audio: AudioPass
        if audio == "streaming":  # a longer hop would spare it nothing
            self.audio = StreamingAudio(session, manifest)
        else:
            # An exact frame's token must not be gone before it had its look-ahead.
            hop_limit = manifest.audio.tokens - sync.lookahead if sync.exact else None
            self.audio = WindowedAudio(session, manifest, hop_controller, hop_limit)
        self.sync = SyncPolicy(sync, self.audio)
        self._session = session
        self._manifest = manifest
        self.energy_floor_dbfs = manifest.audio.energy_floor_dbfs
        live = hop_controller is not None
        reuse = live and not sync.exact
        self.images = [ImageEncoder(session, manifest.image, reuse=reuse) for _ in range(cameras)]
        self._controller = hop_controller
        self._audio_good_since = audio_good_since

    def push(self, block: AudioBlock) -> None:
        """Take some audio. Callable from any thread."""
        self.audio.push(block)

    def encode_audio(self, timeout_s: float = 0.0) -> bool:
        """Run one audio pass if a hop has completed since the last, waiting for it so long.

        Returns whether one was run. Called by one thread only.
        """
        before = self.audio.newest
        if not self.audio.run(timeout_s):
            return False
        after = self.audio.newest
        assert after is not None
        self.sync.note_pass(before, after)
        return True

    def heatmap(self, frame: Frame, features: bool = False) -> Heatmap:
        """Compare one frame with its token. Called by one thread only.

        `features` asks for the picture's dense features too.
        """
        begun_s = monotonic()
        image = self.images[frame.camera].encode(frame)
        tokens = self.audio.newest
        token = self.sync.token_of(frame, tokens)
        if tokens is None or token is None:
            heatmap = self._without_audio(frame)
        else:
            heatmap = self._compared(frame, image, tokens, token)
            if self._controller is not None:
                self._controller.note_frame(heatmap.ready_s - begun_s, frame.camera)
        if features:
            heatmap = replace(heatmap, features_KCHW=self._session.dense(image))
        return heatmap

    def _compared(self, frame: Frame, image: Features, tokens: AudioTokens, token: int) -> Heatmap:
        heat_KHW = self._session.heatmap(image, tokens.features, tokens.position(token))
        end = token_end(token)
        audio = TokenAudio(
            start_s=self.audio.time_of(end - TOKEN_SPAN_SAMPLES),
            end_s=self.audio.time_of(end),
            rms_dbfs=tokens.rms_dbfs(token),
        )
        valid_K = valid_heads(
            heat_KHW,
            audio,
            capture_s=frame.capture_s,
            energy_floor_dbfs=self.energy_floor_dbfs,
            good_since_s=self._audio_good_since(),
        )
        return Heatmap(
            frame=frame,
            heat_KHW=heat_KHW,
            valid_K=valid_K,
            audio_start_s=audio.start_s,
            audio_end_s=audio.end_s,
            rms_dbfs=audio.rms_dbfs,
            ready_s=monotonic(),
        )

    def _without_audio(self, frame: Frame) -> Heatmap:
        heads, grid = len(self._manifest.heads), self._manifest.image
        shape = (heads, grid.grid_height, grid.grid_width)
        return Heatmap(
            frame=frame,
            heat_KHW=np.zeros(shape, dtype=np.float32),
            valid_K=(False,) * heads,
            audio_start_s=None,
            audio_end_s=None,
            rms_dbfs=SILENT_DBFS,
            ready_s=monotonic(),
        )
