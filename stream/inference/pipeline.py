"""The pipeline: a `Frame` and the audio round it in, a `Heatmap` out.

Audio passes, image encoders and sync policies put together. An audio pass runs once a hop, on one
thread, on which microphones take turns; a heatmap is made once a frame, on one thread, which may be
another. Nothing here knows devices or screens.

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
from denseav.stream.inference.latest_slot import LatestSlot
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
    own_microphones : whether each camera's frames are compared with its own microphone's audio,
        and not with that of the one they share.
    audio_good_since : says since when a microphone's audio has been good, on the blocks' clock;
        None while it is not. Without it all of it is.

    Attributes
    ----------
    audio, sync : the audio pass and the sync policy of each microphone.
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
        own_microphones: bool = False,
        audio_good_since: Callable[[int], float | None] = lambda _: float("-inf"),
    ) -> None:
        # An exact frame's token must not be gone before it had its look-ahead.
        hop_limit = manifest.audio.tokens - sync.lookahead if sync.exact else None

        def opened(microphone: int) -> AudioPass:
            if audio == "streaming":  # a longer hop would spare it nothing
                return StreamingAudio(session, manifest)
            return WindowedAudio(session, manifest, hop_controller, hop_limit, microphone)

        self.audio = [opened(each) for each in range(cameras if own_microphones else 1)]
        self.sync = [SyncPolicy(sync, each) for each in self.audio]
        self._own_microphones = own_microphones
        self._heard: LatestSlot[int] = LatestSlot(lambda microphone: microphone)
        self._session = session
        self._manifest = manifest
        self.energy_floor_dbfs = manifest.audio.energy_floor_dbfs
        live = hop_controller is not None
        reuse = live and not sync.exact
        self.images = [ImageEncoder(session, manifest.image, reuse=reuse) for _ in range(cameras)]
        self._controller = hop_controller
        self._audio_good_since = audio_good_since

    @property
    def hop_s(self) -> float:
        """How far the last pass moved on, of the microphone where that is most."""
        return max(each.hop_s for each in self.audio)

    @property
    def hop_share(self) -> float:
        """How much of their time the passes took, all together; above 1 they do not keep up."""
        return sum(each.hop_share for each in self.audio)

    @property
    def hops_skipped(self) -> int:
        """How many tokens had no pass although the hop asked for one, all together."""
        return sum(each.hops_skipped for each in self.audio)

    def sync_of(self, frame: Frame) -> SyncPolicy:
        """Return the policy by which a frame meets its microphone's audio."""
        return self.sync[self._microphone_of(frame)]

    def push(self, block: AudioBlock) -> None:
        """Take some audio. Callable from any thread."""
        self.audio[block.microphone].push(block)
        self._heard.put(block.microphone)

    def encode_audio(self, timeout_s: float = 0.0) -> bool:
        """Run one audio pass where a hop has completed since the last, waiting for it so long.

        Returns whether one was run. Called by one thread only.
        """
        end_s = monotonic() + timeout_s
        while (microphone := self._heard.get(max(0.0, end_s - monotonic()))) is not None:
            audio = self.audio[microphone]
            before = audio.newest
            if audio.run():
                assert audio.newest is not None
                self.sync[microphone].note_pass(before, audio.newest)
                return True
        return False

    def heatmap(self, frame: Frame, features: bool = False) -> Heatmap:
        """Compare one frame with its token. Called by one thread only.

        `features` asks for the picture's dense features too.
        """
        begun_s = monotonic()
        image = self.images[frame.camera].encode(frame)
        microphone = self._microphone_of(frame)
        tokens = self.audio[microphone].newest
        token = self.sync[microphone].token_of(frame, tokens)
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
        microphone, end = self._microphone_of(frame), token_end(token)
        audio = TokenAudio(
            start_s=self.audio[microphone].time_of(end - TOKEN_SPAN_SAMPLES),
            end_s=self.audio[microphone].time_of(end),
            rms_dbfs=tokens.rms_dbfs(token),
        )
        valid_K = valid_heads(
            heat_KHW,
            audio,
            capture_s=frame.capture_s,
            energy_floor_dbfs=self.energy_floor_dbfs,
            good_since_s=self._audio_good_since(microphone),
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

    def _microphone_of(self, frame: Frame) -> int:
        return frame.camera if self._own_microphones else 0

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
