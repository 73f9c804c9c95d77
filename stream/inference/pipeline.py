"""A frame and the sound around it enter, a heatmap leaves.

The audio pass runs once a hop and leaves the newest features behind; the image pass runs once
a frame and asks them what it shows. Nothing here knows threads, devices or screens: offline the
two are called in turn, live each has a thread of its own.
"""

import math
from collections import deque
from dataclasses import dataclass, replace
from time import monotonic

import cv2
import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import TOKEN_HOP_SAMPLES, TOKEN_SPAN_SAMPLES, Manifest
from denseav.export.runtime.session import Features, Session
from denseav.stream.audio.level_normalizer import LevelNormalizer
from denseav.stream.audio.rolling_window import RollingWindow
from denseav.stream.inference.hop_controller import HOP_TOKENS_MAX, TOKEN_S, HopController
from denseav.stream.types import AudioBlock, Frame, Heatmap

HELD_MAX_S = 2.0  # frames wait no longer for their token, however slow the machine is
GRACE_S = 0.3  # how long a frame waits for a token that takes longer than others lately did
_HOPS_LOOKED_AT = 32  # for how long tokens take until they are heard
_SILENT_DBFS = -120.0  # what digital silence is called, so that loudness stays a number


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """One audio pass: the window, where it ends, and the features of its tokens."""

    wave_S: NDArray[np.float32]
    end_sample: int
    features: Features


class Pipeline:
    """A session, the rolling sound, and what was heard last.

    Parameters
    ----------
    session : a loaded bundle.
    manifest : that bundle's manifest.
    exact : compare a frame with the token that covers its capture, which has to be waited for,
        and not with the newest one.
    lookahead : how many tokens must have been heard after the one that is used.
    throttle : chooses the hop on a machine that is too slow; None hears every token.
    loudness : what windows are normalised by; None normalises each by itself, as in training.
    """

    def __init__(
        self,
        session: Session,
        manifest: Manifest,
        *,
        exact: bool = False,
        lookahead: int = 0,
        throttle: HopController | None = None,
        loudness: LevelNormalizer | None = None,
    ) -> None:
        self.exact = exact
        self._session = session
        self._manifest = manifest
        self._lookahead = lookahead
        self._throttle = throttle
        self._loudness = loudness
        self._rolling = RollingWindow(manifest.audio.window_samples)
        self._heard: Heard | None = None
        self._hops_skipped = 0
        self._hop_s = TOKEN_S
        self._picture_HW3: NDArray[np.uint8] | None = None
        self._image: Features = None
        self._held_s = (1 + lookahead) * TOKEN_S
        self._delays_s: deque[float] = deque(maxlen=_HOPS_LOOKED_AT)

    @property
    def hops_skipped(self) -> int:
        """How many hops had no audio pass because a newer one was already due."""
        return self._hops_skipped

    @property
    def hop_s(self) -> float:
        """How far the last audio pass moved on; more than a token when the machine is slow."""
        return self._hop_s

    def listen(self, block: AudioBlock) -> None:
        """Take some sound into the rolling window. Callable from any thread."""
        self._rolling.push(block)

    def hear(self, timeout_s: float = 0.0) -> bool:
        """Run one audio pass if a hop has completed since the last; wait for it if told to.

        Returns whether a pass was run. Called by one thread only.
        """
        last = None if self._heard is None else self._heard.end_sample
        wanted = None if last is None else last + (self._hop_tokens - 1) * TOKEN_HOP_SAMPLES
        end = self._rolling.wait(wanted, timeout_s)
        if end is None:
            return False
        begun_s = monotonic()
        wave_S = self._rolling.window(end)
        least = 0.0 if self._loudness is None else self._loudness.least_deviation(wave_S, end)
        self._heard = Heard(wave_S, end, self._session.encode_audio(wave_S, least))
        if self._throttle is not None:
            self._throttle.heard(monotonic() - begun_s)
        self._note_hop(end - TOKEN_HOP_SAMPLES if last is None else last, end)
        return True

    def wait_s(self, frame: Frame) -> float:
        """Return how many seconds a frame should still be held, at least; 0 when it is due.

        With `exact`, frames are held for as long as tokens lately took until they were heard, so
        that they go on as evenly as they came. Callable from any thread.
        """
        if not self.exact:
            return 0.0
        left_s = frame.capture_s + self._held_s - monotonic()
        if left_s <= -GRACE_S or (left_s <= 0 and self.covers(frame)):
            return 0.0
        return max(left_s, 0.005)

    def covers(self, frame: Frame) -> bool:
        """Return whether what a frame is to be compared with has been heard."""
        return self._tokens_back(frame, self._heard) is not None

    def see(self, frame: Frame, features: bool = False) -> Heatmap:
        """Compare one frame with its token. Called by one thread only.

        `features` asks for the picture's dense features too.
        """
        heatmap = self._compare(frame)
        if features:
            heatmap = replace(heatmap, features_KCHW=self._session.dense(self._image))
        return heatmap

    def _compare(self, frame: Frame) -> Heatmap:
        begun_s = monotonic()
        image = self._features(frame)
        heard = self._heard
        back = self._tokens_back(frame, heard)
        if heard is None or back is None:
            return self._deaf(frame)
        end = heard.end_sample - back * TOKEN_HOP_SAMPLES
        stop = len(heard.wave_S) - back * TOKEN_HOP_SAMPLES
        rms_dbfs = loudness_dbfs(heard.wave_S[max(0, stop - TOKEN_SPAN_SAMPLES) : stop])
        loud = rms_dbfs > self._manifest.audio.energy_floor_dbfs
        newest = self._manifest.audio.tokens - 1
        heatmap = Heatmap(
            frame=frame,
            heat_KHW=self._session.heatmap(image, heard.features, newest - back),
            valid_K=(loud,) * len(self._manifest.heads),
            audio_start_s=self._rolling.time_of(end - TOKEN_SPAN_SAMPLES),
            audio_end_s=self._rolling.time_of(end),
            rms_dbfs=rms_dbfs,
            ready_s=monotonic(),
        )
        if self._throttle is not None:
            self._throttle.saw(heatmap.ready_s - begun_s)
        return heatmap

    @property
    def _hop_tokens(self) -> int:
        return 1 if self._throttle is None else self._throttle.hop_tokens

    def _note_hop(self, last: int, end: int) -> None:
        """Remember how far a pass went, and how long its oldest new token had to wait for it."""
        tokens = (end - last) // TOKEN_HOP_SAMPLES
        self._hops_skipped += tokens - 1
        self._hop_s = tokens * TOKEN_S
        if tokens > HOP_TOKENS_MAX:
            return  # sound was missing meanwhile, and says nothing about how long passes take
        oldest_start = last - (self._lookahead - 1) * TOKEN_HOP_SAMPLES - TOKEN_SPAN_SAMPLES
        self._delays_s.append(monotonic() - self._rolling.time_of(oldest_start))
        self._held_s = min(HELD_MAX_S, max(self._delays_s))

    def _tokens_back(self, frame: Frame, heard: Heard | None) -> int | None:
        """Return how far before the pass's newest token the frame's lies; None when not in it."""
        if heard is None:
            return None
        back = self._lookahead
        if self.exact:
            token = self._rolling.sample_at(frame.capture_s) // TOKEN_HOP_SAMPLES
            end = token * TOKEN_HOP_SAMPLES + TOKEN_SPAN_SAMPLES
            back = (heard.end_sample - end) // TOKEN_HOP_SAMPLES
        begun = heard.end_sample - back * TOKEN_HOP_SAMPLES >= TOKEN_SPAN_SAMPLES
        return back if begun and self._lookahead <= back < self._manifest.audio.tokens else None

    def _deaf(self, frame: Frame) -> Heatmap:
        heads, grid = len(self._manifest.heads), self._manifest.image
        shape = (heads, grid.grid_height, grid.grid_width)
        return Heatmap(
            frame=frame,
            heat_KHW=np.zeros(shape, dtype=np.float32),
            valid_K=(False,) * heads,
            audio_start_s=None,
            audio_end_s=None,
            rms_dbfs=_SILENT_DBFS,
            ready_s=monotonic(),
        )

    def _features(self, frame: Frame) -> Features:
        """Encode a frame; one that looks like the last has the same features."""
        picture_HW3 = self._resize(frame.image_HW3)
        if self._picture_HW3 is None or not np.array_equal(picture_HW3, self._picture_HW3):
            self._image = self._session.encode_image(picture_HW3)
            self._picture_HW3 = picture_HW3
        return self._image

    def _resize(self, image_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Fit the whole picture into the model's size, so that no edge of the view goes unseen.

        Another aspect ratio is squeezed; training crops vary it by a third either way as well.
        """
        size = self._manifest.image
        smaller = image_HW3.shape[0] > size.height
        how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        resized = cv2.resize(image_HW3, (size.width, size.height), interpolation=how)
        return np.ascontiguousarray(resized[..., ::-1], dtype=np.uint8)


def loudness_dbfs(wave_S: NDArray[np.float32]) -> float:
    """Return the root mean square in decibels of full scale, at least -120."""
    rms = float(np.sqrt(np.mean(np.square(wave_S), dtype=np.float64)))
    return max(_SILENT_DBFS, 20 * math.log10(max(rms, 1e-12)))
