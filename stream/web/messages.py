"""What the page is sent: a `Heatmap`, a picture, features and loudness in, messages' bytes out.

Heat stays data: a map is the raw similarity with the two ends of its scale, and the page blends
it. A map and the picture that it belongs to carry the same sequence number. Little-endian; the
first byte says what a message is. The text messages are JSON and small. Nothing here knows sockets.

Axes: K heads, H W the feature grid, N columns of time.
"""

import struct
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from denseav.stream.types import Heatmap

MAP, PICTURE, LOUDNESS, FEATURES = 1, 2, 3, 4
LONGEST_SIDE = 1280  # a page is not larger for long
_QUALITY = 80

# kind, heads, a bit for each valid head, grid height and width, sequence, loudness, capture_s
_MAP = struct.Struct("<BBHHHIfd")
_PICTURE = struct.Struct("<BxxxI")
_FEATURES = struct.Struct("<BxHHxxI")  # kind, grid height and width, sequence
_LOUDNESS = struct.Struct("<BxxxId")  # kind, columns, time of the first


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """A heatmap with the scale that it shows by.

    Attributes
    ----------
    sequence : counts what was shown in this run.
    threshold_K, ceiling_K : the raw heat that shows as 0 and as 1; float32.
    """

    sequence: int
    heatmap: Heatmap
    threshold_K: NDArray[np.float32]
    ceiling_K: NDArray[np.float32]


def map_message(scaled: Scaled) -> bytes:
    """Return a heatmap's message: a header of 24 bytes, thresholds, ceilings, heat as float32."""
    heatmap = scaled.heatmap
    heads, height, width = heatmap.heat_KHW.shape
    valid = sum(1 << k for k, is_valid in enumerate(heatmap.valid_K) if is_valid)
    header = _MAP.pack(
        MAP,
        heads,
        valid,
        height,
        width,
        scaled.sequence,
        heatmap.rms_dbfs,
        heatmap.frame.capture_s,
    )
    parts = (scaled.threshold_K, scaled.ceiling_K, heatmap.heat_KHW)
    return b"".join([header, *(part.astype("<f4").tobytes() for part in parts)])


def picture_message(scaled: Scaled) -> bytes:
    """Return the heatmap's frame as a JPEG, its long side at most 1280."""
    image_HW3 = scaled.heatmap.frame.image_HW3
    height, width = image_HW3.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image_HW3 = cv2.resize(image_HW3, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    _, jpeg = cv2.imencode(".jpg", image_HW3, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return _PICTURE.pack(PICTURE, scaled.sequence) + jpeg.tobytes()


def features_message(scaled: Scaled, colours_HW3: NDArray[np.uint8]) -> bytes:
    """Return the colours of the heatmap's features, given blue-green-red, as red-green-blue."""
    height, width = colours_HW3.shape[:2]
    header = _FEATURES.pack(FEATURES, height, width, scaled.sequence)
    return header + np.ascontiguousarray(colours_HW3[..., ::-1]).tobytes()


def loudness_message(begin_s: float, peak_N: NDArray[np.float32]) -> bytes:
    """Return the audio's peaks, of columns that begin at `begin_s`; the root of each is a byte."""
    root_N = np.asarray(np.rint(255 * np.sqrt(np.clip(peak_N, 0, 1))), np.uint8)
    return _LOUDNESS.pack(LOUDNESS, len(root_N), begin_s) + root_N.tobytes()
