"""The image encoder: a `Frame` of any size in, its dense features out; one thread only.

Where a pass takes longer than a frame lasts, a frame in which nothing moved since the one that was
encoded last has that one's features, for a second at most.

Axes: H W pixels, h w cells of a quarter of a patch.
"""

from time import monotonic

import cv2
import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import ImageInput
from denseav.export.runtime.session import Features, Session
from denseav.stream.types import Frame

QUICK_PASS_S = 1 / 30  # it can be run for every frame
STALE_MAX_S = 1.0
MOVED_LEVELS = 6  # of 255, in a cell's mean: noise of the sensor stays below it


class ImageEncoder:
    """Encodes frames; one that looks like the last has the same features.

    Parameters
    ----------
    session : a loaded bundle.
    size : what its image graph takes.
    reuse : whether features are used again where a slow pass would find that nothing moved;
        otherwise only for the very same picture.

    Attributes
    ----------
    reused : how many frames, in which something differed, had another's features.
    """

    def __init__(self, session: Session, size: ImageInput, *, reuse: bool = False) -> None:
        self.reused = 0
        self._session = session
        self._size = (size.width, size.height)
        self._cells = (2 * size.grid_width, 2 * size.grid_height)
        self._reuse = reuse
        self._image_HW3: NDArray[np.uint8] | None = None
        self._capture_s = 0.0
        self._took_s = 0.0
        self._features: Features = None

    def encode(self, frame: Frame) -> Features:
        """Return the frame's features, which stay on the session's device."""
        image_HW3 = self._fitted(frame.image_HW3)
        if self._image_HW3 is not None:
            if np.array_equal(image_HW3, self._image_HW3):
                return self._features
            if self._still(image_HW3, frame.capture_s - self._capture_s):
                self.reused += 1
                return self._features
        begun_s = monotonic()
        self._features = self._session.encode_image(image_HW3)
        self._took_s = monotonic() - begun_s
        self._image_HW3, self._capture_s = image_HW3, frame.capture_s
        return self._features

    def _still(self, image_HW3: NDArray[np.uint8], age_s: float) -> bool:
        """Return whether nothing moved since the picture that was encoded, not long ago."""
        if not self._reuse or self._took_s <= QUICK_PASS_S or not 0 <= age_s <= STALE_MAX_S:
            return False
        assert self._image_HW3 is not None
        now_hw3, then_hw3 = (
            cv2.resize(each, self._cells, interpolation=cv2.INTER_AREA)
            for each in (image_HW3, self._image_HW3)
        )
        return bool(cv2.absdiff(now_hw3, then_hw3).max() <= MOVED_LEVELS)

    def _fitted(self, image_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Fit the whole picture into the model's size, so that no edge of the view goes unseen.

        Another aspect ratio is squeezed; training crops vary it by a third either way as well.
        """
        smaller = image_HW3.shape[0] > self._size[1]
        how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        resized = cv2.resize(image_HW3, self._size, interpolation=how)
        return np.ascontiguousarray(resized[..., ::-1], dtype=np.uint8)
