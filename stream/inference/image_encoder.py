"""The image encoder: a `Frame` of any size in, its dense features out; one thread only.

Axes: H W pixels.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import ImageInput
from denseav.export.runtime.session import Features, Session
from denseav.stream.types import Frame


class ImageEncoder:
    """Encodes frames; one that looks like the last has the same features.

    Parameters
    ----------
    session : a loaded bundle.
    size : what its image graph takes.
    """

    def __init__(self, session: Session, size: ImageInput) -> None:
        self._session = session
        self._size = (size.width, size.height)
        self._image_HW3: NDArray[np.uint8] | None = None
        self._features: Features = None

    def encode(self, frame: Frame) -> Features:
        """Return the frame's features, which stay on the session's device."""
        image_HW3 = self._fitted(frame.image_HW3)
        if self._image_HW3 is None or not np.array_equal(image_HW3, self._image_HW3):
            self._features = self._session.encode_image(image_HW3)
            self._image_HW3 = image_HW3
        return self._features

    def _fitted(self, image_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Fit the whole picture into the model's size, so that no edge of the view goes unseen.

        Another aspect ratio is squeezed; training crops vary it by a third either way as well.
        """
        smaller = image_HW3.shape[0] > self._size[1]
        how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        resized = cv2.resize(image_HW3, self._size, interpolation=how)
        return np.ascontiguousarray(resized[..., ::-1], dtype=np.uint8)
