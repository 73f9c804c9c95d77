"""A frame with its heat: the heads are those of the feed, places and masks agree."""

from typing import Any

import numpy as np

from denseav.stream.feed.client import decode
from denseav.stream.feed.message import Envelope, Origin, heat_fields
from denseav.stream.python.heat_frame import HeatFrame, Painter
from denseav.stream.types import Frame, Heatmap
from tests.support.fake_session import fake_manifest
from tests.support.media import grey

MANIFEST = fake_manifest()
HEAT_KHW = np.array([[[-1, -1, 2], [-1, 0.5, 1]], [[-2, -1, -1], [-1, -1, -3]]], np.float32)


def framed(**changes: Any) -> HeatFrame:
    frame = Frame(grey(90, 60, 40), 7, 5.0)
    given: dict[str, Any] = {"valid_K": (True, True), "audio_start_s": 4.5, "audio_end_s": 4.75}
    heatmap = Heatmap(frame, HEAT_KHW, rms_dbfs=-20.0, ready_s=5.5, **given | changes)
    return HeatFrame.of(heatmap, MANIFEST.heads, Painter(MANIFEST.heads, trained=True))


def test_its_heads_are_those_that_a_reader_of_the_feed_gets() -> None:
    frame = framed()
    origin = Origin(camera_id="a", heads=MANIFEST.heads, model="", backend="", precision="")
    fields, maps_KHW = heat_fields(origin, frame._heatmap, {})
    message = decode(Envelope("heat", "a", bytes(16)).seal(fields, maps_KHW))
    assert dict(frame.heads) == message.heads
    for name, head in frame.heads.items():
        assert head.heat.dtype == message.heads[name].heat.dtype == np.float32
        np.testing.assert_array_equal(head.heat, message.heads[name].heat)


def test_places_are_pixels_and_masks_are_the_cells_from_the_threshold_on() -> None:
    speech, sound = framed().heads.values()
    assert speech.peak == (50, 10)
    assert speech.box == (20, 0, 60, 40)
    mask_HW = speech.mask(framed().image)
    expected_HW = np.zeros((40, 60), bool)
    expected_HW[:20, 40:] = expected_HW[20:, 20:] = True
    np.testing.assert_array_equal(mask_HW, expected_HW)
    assert sound.peak is not None
    assert sound.box is None
    assert not sound.mask(framed().image).any()


def test_a_mask_follows_the_image_that_it_is_asked_for() -> None:
    head = framed().heads["speech"]
    for height, width in ((2, 3), (7, 11), (100, 31)):
        mask_HW = head.mask(np.zeros((height, width)))
        assert mask_HW.shape == (height, width)
        share = (head.heat >= 0).mean()
        assert abs(mask_HW.mean() - share) < 0.2


def test_a_head_that_is_not_valid_is_nowhere() -> None:
    speech = framed(valid_K=(False, True)).heads["speech"]
    assert (speech.valid, speech.peak, speech.box) == (False, None, None)
    assert not speech.mask(framed().image).any()
    assert speech.heat.max() == speech.score == 2


def test_times_are_those_of_the_heatmap_and_drawing_leaves_the_frame_alone() -> None:
    frame = framed()
    assert (frame.index, frame.capture_s, frame.ready_s, frame.skew_s) == (7, 5.0, 5.5, -0.25)
    assert framed(audio_start_s=None, audio_end_s=None).skew_s is None
    drawn = frame.draw()
    assert drawn.shape == (40, 60, 3)
    assert (drawn != frame.image).any()
    assert (frame.image == 90).all()
