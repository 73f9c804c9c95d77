"""The picture as one stream: readable by who begins, and bounded for who does not keep up."""

import asyncio
from typing import Any

import av
import numpy as np
import pytest

from denseav.stream.web.picture_stream import (
    WAITING,
    Encoded,
    PictureEncoder,
    PictureTrack,
    stamp,
)


def decoded(packets: list[Encoded]) -> list[int]:
    decoder: Any = av.CodecContext.create("vp8", "r")
    frames = [frame for each in packets for frame in decoder.decode(av.Packet(each.data))]
    return [int(frame.to_ndarray(format="bgr24").mean()) for frame in frames]


def test_who_begins_gets_a_whole_picture_and_so_does_another_size() -> None:
    encoder = PictureEncoder()
    greys, packets = [40, 80, 120, 160], []
    for index, grey in enumerate(greys):
        image_HW3 = np.full((61, 81, 3), grey, np.uint8)  # odd sides lose a pixel
        packets.append(encoder.encode(image_HW3, 1 + index / 25, whole=index == 2))
    assert [each.is_whole for each in packets] == [True, False, True, False]
    assert decoded(packets) == pytest.approx(greys, abs=4)
    assert decoded(packets[2:]) == pytest.approx(greys[2:], abs=4)
    assert packets[1].stamp - packets[0].stamp == 3600
    assert encoder.encode(np.zeros((120, 60, 3), np.uint8), 2.0, whole=False).is_whole


def test_timestamps_go_round_as_rtp_has_them() -> None:
    assert stamp(2**32 / 90_000 + 1) == pytest.approx(90_000, abs=1)


def test_a_viewer_that_is_late_loses_pictures_until_a_whole_one() -> None:
    async def run() -> list[int]:
        track = PictureTrack(lambda _: None)
        for number in range(1, 3):
            track.put(Encoded(b"part", number, is_whole=False))  # nothing to depend on
        track.put(Encoded(b"whole", 3, is_whole=True))
        assert not track.wants_whole
        for number in range(4, 12):
            track.put(Encoded(b"part", number, is_whole=False))
        assert track.wants_whole, "it asks for one"
        track.put(Encoded(b"whole", 12, is_whole=True))
        track.put(Encoded(b"part", 13, is_whole=False))
        return [int((await track._pictures.get()).stamp) for _ in range(track._pictures.qsize())]

    assert asyncio.run(run()) == [12, 13]
    assert WAITING < 8
