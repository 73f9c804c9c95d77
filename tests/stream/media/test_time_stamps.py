"""Time stamps that restart, jump or are wrong, on one timeline."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace

import pytest

from denseav.stream.media.mended_faults import Mends
from denseav.stream.media.time_stamps import Timeline, stamp

VIDEO, AUDIO = 0, 1


@dataclass
class Packet:
    """What a timeline knows of one, in milliseconds."""

    stream_index: int
    dts: int | None
    pts: int | None
    duration: int = 40
    time_base: Fraction = Fraction(1, 1000)

    @property
    def stream(self) -> SimpleNamespace:
        return SimpleNamespace(index=self.stream_index)


def packets(times_ms: Iterable[int], stream: int = VIDEO) -> list[Packet]:
    return [Packet(stream, time_ms, time_ms) for time_ms in times_ms]


def placed(given: Sequence[Packet], *, broadcast: bool = True) -> tuple[list[int | None], Mends]:
    mends = Mends()
    timeline = Timeline(0.0, broadcast, {VIDEO: 0.001, AUDIO: 0.001}, mends)
    for at, packet in enumerate(given):
        rest = [later for later in given[at + 1 :] if later.stream.index == packet.stream.index]
        stamps = [stamp_s for later in rest[:50] if (stamp_s := stamp(later, 0.001)) is not None]
        timeline.place(packet, lambda stamps=stamps: stamps)  # type: ignore[misc]
    return [packet.pts for packet in given], mends


def even(count: int, start: int = 0) -> list[int]:
    return [start + 40 * index for index in range(count)]


def test_even_stamps_stay_as_they_are() -> None:
    times, mends = placed(packets(even(50)))
    assert times == even(50)
    assert mends.lines() == []


@pytest.mark.parametrize("broadcast", [True, False])
@pytest.mark.parametrize("start", [0, -900_000, 900_000])
def test_a_clock_that_begins_anew_goes_on(start: int, broadcast: bool) -> None:
    times, mends = placed(packets([*even(50), *even(50, 2_000 + start)]), broadcast=broadcast)
    assert times == even(100) if start else times[:50] == even(50)
    assert ("the clock jumps" in str(mends.lines())) is (start != 0)


@pytest.mark.parametrize("wrong_ms", [600_000, 3_000, -3_000, -600_000])
def test_one_wrong_stamp_moves_nothing_else(wrong_ms: int) -> None:
    stamps = even(100)
    stamps[50] += wrong_ms
    times, mends = placed(packets(stamps))
    assert times == even(100)
    assert len(mends.lines()) == 1


def test_pictures_and_sound_are_moved_alike() -> None:
    both = [
        packet
        for start in (0, 10)  # the second recording's sound is 20 ms later than its pictures
        for at in even(50)
        for packet in (
            Packet(VIDEO, at + start, at + start),
            Packet(AUDIO, at + 2 * start, at + 2 * start),
        )
    ]
    times, _ = placed(both)
    pairs = list(zip(times[::2], times[1::2], strict=True))
    assert {(sound or 0) - (picture or 0) for picture, sound in pairs[:50]} == {0}
    assert {(sound or 0) - (picture or 0) for picture, sound in pairs[50:]} == {10}


def test_sound_of_the_first_recording_that_comes_late_stays_with_it() -> None:
    first, second = even(50), even(50)
    both = [
        *[p for at in first[:49] for p in (Packet(VIDEO, at, at), Packet(AUDIO, at, at))],
        Packet(VIDEO, 1960, 1960),
        Packet(VIDEO, 0, 0),  # the second one begins
        Packet(AUDIO, 1960, 1960),  # of the first one
        *[p for at in second[1:] for p in (Packet(AUDIO, at - 40, at - 40), Packet(VIDEO, at, at))],
    ]
    placed(both)
    sound = [packet.pts for packet in both if packet.stream_index == AUDIO]
    assert sound == even(99)
    assert [packet.pts for packet in both if packet.stream_index == VIDEO] == even(100)


def test_a_picture_that_stays_while_sound_goes_on_is_believed() -> None:
    sound = packets(even(1000), AUDIO)
    given = [Packet(VIDEO, 0, 0), *sound, Packet(VIDEO, 40_000, 40_000)]
    times, mends = placed(given)
    assert times[-1] == 40_000
    assert mends.lines() == []


def test_a_hole_in_everything_is_believed_up_to_a_minute() -> None:
    for hole_ms, believed in ((50_000, True), (70_000, False)):
        times, mends = placed(packets([*even(10), *even(10, 400 + hole_ms)]), broadcast=False)
        assert times[10] == (400 + hole_ms if believed else 400)
        assert (mends.lines() == []) is believed


def test_an_absurd_time_of_showing_is_replaced() -> None:
    given = packets(even(3))
    given[1].pts = 900_000
    times, mends = placed(given)
    assert times == even(3)
    assert "absurd" in mends.lines()[0]


@pytest.mark.parametrize("step_ms", [20, 100, 2_000])
def test_pictures_that_are_stored_in_another_order_stay_as_they_are(step_ms: int) -> None:
    """Matroska has no times of decoding: FFmpeg finds them from the third picture on."""
    tenths = [(None, 0), (None, 4), (0, 2), (1, 1), (2, 3), (3, 8), (4, 6)]
    stamps = [(None if dts is None else dts * step_ms, pts * step_ms) for dts, pts in tenths]
    given = [Packet(VIDEO, dts, pts, duration=step_ms) for dts, pts in stamps]
    times, mends = placed(given, broadcast=False)
    assert times == [pts for _, pts in stamps]
    assert mends.lines() == []
