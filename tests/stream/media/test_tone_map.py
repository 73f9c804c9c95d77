"""Pictures of high dynamic range as ordinary screens show them, against BT.2100's formulas."""

from fractions import Fraction

import av
import numpy as np
import pytest

from denseav.stream.media.tone_map import HLG, PQ, ToneMap, is_hdr

WHITE_SIGNAL = {HLG: 0.75, PQ: 0.5806}
"""The signal of a white page: BT.2408, table 1."""


def shown(level: float, transfer: int) -> float:
    """Return how light a grey of that signal is shown, from 0 to 1."""
    grey_HW3 = np.full((16, 16, 3), round(65535 * level), np.uint16)
    frame = av.VideoFrame.from_ndarray(grey_HW3, format="rgb48le")
    frame.color_trc, frame.pts, frame.time_base = transfer, 0, Fraction(1, 25)
    assert is_hdr(frame)
    pixels = ToneMap(frame)(frame).to_ndarray()
    assert np.ptp(pixels) <= 65535 * 0.005
    return float(pixels.mean() / 65535)


@pytest.mark.parametrize("transfer", [HLG, PQ])
def test_a_white_page_is_nearly_white_and_black_is_black(transfer: int) -> None:
    assert 0.86 < shown(WHITE_SIGNAL[transfer], transfer) < 1
    assert shown(0.0, transfer) < 0.005
    assert shown(1.0, transfer) > 0.98


def test_middle_grey_keeps_its_light() -> None:
    signal_hlg = np.sqrt(3 * 0.18 * 0.265)  # BT.2100, table 5, below a twelfth
    assert shown(float(signal_hlg), HLG) == pytest.approx(0.18 ** (1 / 2.4), abs=0.01)
    light = 0.18 * 203 / 10_000
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    signal_pq = ((c1 + c2 * light**m1) / (1 + c3 * light**m1)) ** m2
    assert shown(signal_pq, PQ) == pytest.approx(0.18 ** (1 / 2.4), abs=0.01)


@pytest.mark.parametrize("transfer", [HLG, PQ])
def test_lighter_is_shown_lighter(transfer: int) -> None:
    levels = [shown(level, transfer) for level in np.linspace(0, 1, 12)]
    assert levels == sorted(levels)
