"""RTP timestamps to our clock: by arrivals first, by the sender's reports then."""

import pytest
from aiortc import RTCRtpCodecParameters
from aiortc.jitterbuffer import JitterFrame

from denseav.stream.web.rtp_clock import EncodedFrames, RtpClock, SenderClock, is_whole


class Link:
    """A sender whose clock is 1,000 s ahead of ours, and whose streams are delayed differently."""

    def __init__(self) -> None:
        self.now_s = 0.0
        sender = SenderClock()
        self.video = RtpClock(90_000, sender, lambda: self.now_s)
        self.audio = RtpClock(48_000, sender, lambda: self.now_s)

    def came(self, clock: RtpClock, at_s: float, delay_s: float, start: int) -> int:
        """What was captured at a moment of our clock comes later; return its count."""
        rate_hz = 90_000 if clock is self.video else 48_000
        self.now_s = at_s + delay_s
        return clock.map((start + round(at_s * rate_hz)) % 2**32)

    def report(self, clock: RtpClock, at_s: float, delay_s: float, start: int) -> None:
        rate_hz = 90_000 if clock is self.video else 48_000
        self.now_s = at_s + delay_s
        clock.report((start + round(at_s * rate_hz)) % 2**32, 1000 + at_s)


def test_counts_go_on_where_32_bits_end_and_late_ones_go_back() -> None:
    clock = Link().video
    counts = [clock.map(value) for value in (2**32 - 3000, 0, 6000, 3000)]
    assert [count - counts[0] for count in counts] == [0, 3000, 9000, 6000]


def test_before_a_report_time_is_that_of_the_least_delayed_arrival() -> None:
    link = Link()
    count = link.came(link.video, 5.0, 0.2, start=77)
    assert link.video.time_of(count) == pytest.approx(5.2)
    count = link.came(link.video, 6.0, 0.05, start=77)
    count = link.came(link.video, 7.0, 0.3, start=77)
    assert link.video.time_of(count) == pytest.approx(7.05)
    assert not link.video.has_report


def test_with_reports_picture_and_sound_share_one_clock_whatever_their_delays() -> None:
    link = Link()
    for step in range(40):
        at_s = 1 + 0.1 * step
        seen = link.came(link.video, at_s, 0.2 + 0.01 * (step % 7), start=2**32 - 100_000)
        heard = link.came(link.audio, at_s, 0.03 + 0.01 * (step % 5), start=12_345)
        if step == 10:
            link.report(link.video, at_s, 0.02, start=2**32 - 100_000)
        if step == 20:
            link.report(link.audio, at_s, 0.25, start=12_345)
    link.now_s += 1
    assert link.video.time_of(seen) == pytest.approx(at_s + 0.02, abs=1e-4)
    assert link.audio.time_of(heard) == pytest.approx(link.video.time_of(seen), abs=1e-4)


def test_nothing_was_captured_later_than_now() -> None:
    link = Link()
    link.came(link.video, 1.0, 0.0, start=0)
    link.report(link.video, 1.0, 0.5, start=0)
    count = link.came(link.video, 2.0, 0.0, start=0)
    assert link.video.time_of(count) == link.now_s == 2.0


def test_a_decoder_that_is_too_slow_begins_anew_with_a_whole_frame() -> None:
    lost: list[int] = []
    waiting = EncodedFrames(3, lost.append)
    vp8 = RTCRtpCodecParameters("video/VP8", 90_000)
    whole, part = ((vp8, JitterFrame(data, 0)) for data in (b"\x00", b"\x01"))
    for item in (whole, part, part, part, part, whole, part):
        waiting.put(item)
    assert lost == [4, 1]
    assert [waiting.get_nowait() for _ in range(2)] == [whole, part]
    for item in (part, part, part, None):
        waiting.put(item)
    assert [waiting.get_nowait() for _ in range(4)] == [part, part, part, None]


def test_which_frames_are_whole() -> None:
    h264 = RTCRtpCodecParameters("video/H264", 90_000)
    assert is_whole(h264, JitterFrame(b"\0\0\0\1\x67a\0\0\0\1\x65b", 0))
    assert not is_whole(h264, JitterFrame(b"\0\0\0\1\x61b", 0))
    assert not is_whole(RTCRtpCodecParameters("video/VP8", 90_000), JitterFrame(b"", 0))
    assert is_whole(RTCRtpCodecParameters("audio/opus", 48_000, 2), JitterFrame(b"a", 0))
