"""A frame and the sound around it enter, a heatmap leaves.

The audio pass runs once a hop and leaves the newest features behind; the image pass runs once
a frame and asks them what it shows. Nothing here knows threads, devices or screens: offline the
two are called in turn, live each has a thread of its own.
"""

import math
from dataclasses import dataclass
from time import monotonic

import cv2
import numpy as np
from numpy.typing import NDArray

from denseav.export.bundle import TOKEN_HOP_SAMPLES, TOKEN_SPAN_SAMPLES, Manifest
from denseav.export.session import Features, Session
from denseav.stream.flow import AudioBlock, Frame, Heatmap
from denseav.stream.rolling import RollingWindow

_SILENT_DBFS = -120.0  # what digital silence is called, so that loudness stays a number


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """One audio pass: its features, and the newest token's interval and loudness."""

    features: Features
    end_sample: int
    start_s: float
    end_s: float
    rms_dbfs: float


class Pipeline:
    """A session, the rolling sound, and what was heard last.

    Parameters
    ----------
    session : a loaded bundle.
    manifest : that bundle's manifest.
    """

    def __init__(self, session: Session, manifest: Manifest) -> None:
        self._session = session
        self._manifest = manifest
        self._rolling = RollingWindow(manifest.audio.window_samples)
        self._heard: Heard | None = None
        self._hops_skipped = 0

    @property
    def hops_skipped(self) -> int:
        """How many hops had no audio pass because a newer one was already due."""
        return self._hops_skipped

    def listen(self, block: AudioBlock) -> None:
        """Take some sound into the rolling window. Callable from any thread."""
        self._rolling.push(block)

    def hear(self, timeout_s: float = 0.0) -> bool:
        """Run one audio pass if a hop has completed since the last; wait for it if told to.

        Returns whether a pass was run. Called by one thread only.
        """
        last = self._heard.end_sample if self._heard else None
        end = self._rolling.wait(last, timeout_s)
        if end is None:
            return False
        if last is not None:
            self._hops_skipped += (end - last) // TOKEN_HOP_SAMPLES - 1
        wave_S = self._rolling.window(end)
        self._heard = Heard(
            features=self._session.audio(wave_S),
            end_sample=end,
            start_s=self._rolling.time_of(end - TOKEN_SPAN_SAMPLES),
            end_s=self._rolling.time_of(end),
            rms_dbfs=loudness_dbfs(wave_S[-TOKEN_SPAN_SAMPLES:]),
        )
        return True

    def see(self, frame: Frame) -> Heatmap:
        """Compare one frame with the newest token heard. Called by one thread only."""
        image = self._session.image(self._resize(frame.image_HW3))
        heard = self._heard
        heads, grid = len(self._manifest.heads), self._manifest.image
        if heard is None:
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
        newest = self._manifest.audio.tokens - 1
        loud = heard.rms_dbfs > self._manifest.audio.energy_floor_dbfs
        return Heatmap(
            frame=frame,
            heat_KHW=self._session.heatmap(image, heard.features, newest),
            valid_K=(loud,) * heads,
            audio_start_s=heard.start_s,
            audio_end_s=heard.end_s,
            rms_dbfs=heard.rms_dbfs,
            ready_s=monotonic(),
        )

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
