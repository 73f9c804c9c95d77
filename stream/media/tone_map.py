"""Pictures of high dynamic range (PQ, HLG; BT.2020) to those of ordinary screens, as players do.

FFmpeg's `haldclut` applies a table that is made here once, by the formulas of BT.2100: signal to
light, BT.2020's colours to BT.709's, light to the signal of BT.1886. What is as bright as a white
page (203 cd/m², 75 % of HLG's signal; BT.2408) and darker keeps its light up to half of that, and
is then bent to leave room for what shines. HLG's light is the scene's, without the dimming that
its screens add; PQ's is the screen's.

H W pixels.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import av
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

PQ, HLG = 16, 18
"""FFmpeg's numbers of these transfer characteristics."""

LEVEL = 6
"""The table has LEVEL² values of each colour."""
WHITE_CD_M2 = 203.0
WHITE_HLG = 0.265
BRIGHTEST_CD_M2 = 1000.0
KNEE = 0.5
_TO_709 = ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187))

Values = NDArray[np.float64]


class ToneMap:
    """A filter graph for pictures of one size and format; called from one thread.

    Parameters
    ----------
    frame : the first picture.
    """

    def __init__(self, frame: av.VideoFrame) -> None:
        self.fits = _form(frame)
        table = av.VideoFrame.from_ndarray(_table(int(frame.color_trc)), format="rgb48le")
        table.pts, table.time_base = 0, frame.time_base
        graph = Graph()
        self._in: Any = _buffer(graph, frame)
        tables: Any = _buffer(graph, table)
        wide, apply = graph.add("format", "rgb48le"), graph.add("haldclut")
        self._out: Any = graph.add("buffersink")
        self._in.link_to(wide)
        wide.link_to(apply, 0, 0)
        tables.link_to(apply, 0, 1)
        apply.link_to(self._out)
        graph.configure()
        tables.push(table)
        tables.push(None)
        self._graph = graph

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return a picture for ordinary screens, rgb48le."""
        self._in.push(frame)
        mapped: av.VideoFrame = self._out.pull()
        return mapped

    def is_for(self, frame: av.VideoFrame) -> bool:
        """Whether this graph takes a picture."""
        return self.fits == _form(frame)


def is_hdr(frame: av.VideoFrame) -> bool:
    """Whether a picture is of high dynamic range."""
    return int(frame.color_trc) in (PQ, HLG)


def _form(frame: av.VideoFrame) -> tuple[Any, ...]:
    return frame.width, frame.height, frame.format.name, int(frame.color_trc)


def _buffer(graph: Graph, frame: av.VideoFrame) -> Any:
    return graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )


@cache
def _table(transfer: int) -> NDArray[np.uint16]:
    """Return FFmpeg's picture of a table: red goes round fastest, blue slowest."""
    light, peak = _LIGHT[transfer]
    axis_N = np.linspace(0, 1, LEVEL**2)
    blue, green, red = np.meshgrid(axis_N, axis_N, axis_N, indexing="ij")
    light_2020_N3 = light(np.stack([red, green, blue], axis=-1).reshape(-1, 3))
    light_N3 = _bent(np.maximum(0, light_2020_N3 @ np.array(_TO_709).T), peak)
    signal_N3 = np.round(65535 * np.clip(light_N3, 0, 1) ** (1 / 2.4))
    return signal_N3.astype(np.uint16).reshape(LEVEL**3, LEVEL**3, 3)


def _hlg_light(signal: Values) -> Values:
    """Return the scene's light, 1 being a white page (BT.2100, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    light: Values = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return light / WHITE_HLG


def _pq_light(signal: Values) -> Values:
    """Return the screen's light, 1 being a white page (BT.2100, table 4)."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = signal ** (1 / m2)
    light: Values = 10_000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    return light / WHITE_CD_M2


def _bent(light: Values, peak: float) -> Values:
    """Leave light below the knee, and bend the rest so that the peak becomes 1 (a Möbius map)."""
    a = -(KNEE**2) * (peak - 1) / (KNEE**2 - 2 * KNEE + peak)
    b = (KNEE**2 - 2 * KNEE * peak + peak) / (peak - 1)
    bright = np.maximum(light, KNEE)
    bent = (b * b + 2 * b * KNEE + KNEE**2) / (b - a) * (bright + a) / (bright + b)
    return np.where(light > KNEE, bent, light)


_LIGHT: dict[int, tuple[Callable[[Values], Values], float]] = {
    PQ: (_pq_light, BRIGHTEST_CD_M2 / WHITE_CD_M2),
    HLG: (_hlg_light, 1 / WHITE_HLG),
}
