"""A browser as camera and microphone: what it gives, its states, and offers that are refused."""

import asyncio
from collections import Counter
from time import monotonic

import numpy as np
import pytest
from aiortc import RTCPeerConnection, RTCRtpSender

from denseav.stream.calibration.av_offset import Offset, Watcher, match
from denseav.stream.stats.source_health import SourceHealth, State
from denseav.stream.web import browser_camera, rtp_clock
from denseav.stream.web.browser_camera import BrowserCamera
from tests.support.fakes import Collector
from tests.support.screen.pages import page_server
from tests.support.screen.rtc_sender import Clicks, Flashes, Giver, giver


def states(health: SourceHealth) -> list[State]:
    return [each.state for each in health.states()]


def matched(watcher: Watcher) -> list[Offset]:
    flashes_F, frame_s = watcher.flashes()
    offset = match(flashes_F, watcher.clicks(), frame_s)
    return [] if offset is None else [offset]


async def until(condition: object) -> None:
    async with asyncio.timeout(20):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


def test_it_gives_picture_and_sound_on_one_clock_and_goes_on_after_a_loss() -> None:
    said: list[str] = []
    health = SourceHealth(said.append)
    camera, got = BrowserCamera(health), Collector()
    found: list[Offset] = []

    async def first(one: Giver, two: Giver) -> None:
        start_s = monotonic() + 0.1
        picture = Flashes(start_s)
        await one.give(picture, Clicks(start_s))
        await two.socket.send_json({"camera": await two.offer(Flashes(start_s))})
        assert "another browser" in await two.told("ended")
        await until(lambda: states(health) == [State.RUNNING, State.RUNNING])
        given = camera._given
        assert given is not None
        await until(lambda: all(clock.has_report for clock in given._clocks.values()))
        async with asyncio.timeout(60):
            # Who stalls misses flashes, or sees them late; a clock that is wrong stays so.
            while not found or abs(found[-1].seconds) > 0.04:
                watcher = Watcher()
                camera.start(watcher)
                await asyncio.sleep(2.3)
                camera.start(got)
                found.extend(matched(watcher))
        picture.size = (96, 64)
        await until(lambda: got.frames and got.frames[-1].image_HW3.shape == (96, 64, 3))

    async def run() -> None:
        async with giver(server.port) as one, giver(server.port) as two:
            await first(one, two)
        await until(lambda: states(health) == [State.LOST, State.LOST])
        frames, blocks = len(got.frames), len(got.blocks)
        async with giver(server.port) as again:
            start_s = monotonic()
            await again.give(Flashes(start_s), Clicks(start_s))
            await until(lambda: len(got.frames) > frames and len(got.blocks) > blocks)
            assert [each.index for each in got.frames] == sorted(
                {each.index for each in got.frames}
            )
            before, after = got.blocks[blocks - 1], got.blocks[blocks]
            missed_s = after.capture_s - before.end_s
            samples = after.first_sample - before.first_sample - len(before.samples_SC)
            assert samples / 48_000 == pytest.approx(missed_s, abs=0.001)
            await again.socket.send_json({"camera": "end"})
            await until(lambda: states(health) == [State.LOST, State.LOST])

    with page_server(camera=camera) as server:
        camera.start(got)
        asyncio.run(run())
    assert any("is back after" in line for line in said)
    assert all(said), "nothing is said that has no words"


def test_pictures_that_cannot_be_decoded_in_time_are_lost_and_a_whole_one_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rtp_clock, "WAITING", 0)
    drops: Counter[str] = Counter()
    got = Collector()

    def drop(cause: str, count: int) -> None:
        drops[cause] += count

    camera = BrowserCamera(SourceHealth(lambda _: None), drop=drop)

    async def run() -> None:
        async with giver(server.port) as one:
            start_s = monotonic()
            await one.give(Flashes(start_s), Clicks(start_s))
            await until(lambda: drops["browser_video_behind"] > 5)
            assert not got.frames
            assert camera._given is not None
            for receiver in camera._given._peer.getReceivers():
                receiver._RTCRtpReceiver__decoder_queue._most = 15
            await until(lambda: got.frames and got.blocks)

    with page_server(camera=camera) as server:
        camera.start(got)
        asyncio.run(run())
    assert drops["browser_audio_behind"] > 0


async def _offer(*kinds: str) -> str:
    peer = RTCPeerConnection()
    for kind in kinds:
        peer.addTransceiver(kind, direction="sendonly")
    await peer.setLocalDescription(await peer.createOffer())
    sdp = peer.localDescription.sdp
    await peer.close()
    return str(sdp)


def test_offers_that_are_none_are_refused_and_nobody_is_disturbed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(browser_camera, "OPENING_S", 0.3)
    health = SourceHealth(lambda _: None)
    camera, got = BrowserCamera(health), Collector()

    async def run() -> None:
        whole = await _offer("video", "audio")
        bad = [
            "",
            "v=0",
            "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video x y z\r\n",
            whole[: len(whole) // 2],
            whole.replace("m=video", "m=vidio"),
            whole.replace("a=fingerprint", "a=nothing"),
            await _offer("audio"),
            await _offer("video", "video"),
            "v=0" + "\r\na=x" * 5_000,
        ]
        async with giver(server.port) as one:
            for sdp in [*bad, 7, None, {"type": "offer"}, "hidden"]:
                await one.socket.send_json({"camera": sdp})
                assert await one.told("ended"), "one line where it belongs"
            monkeypatch.undo()
            await until(lambda: camera._given is None)
            assert states(health) == [State.OPENING, State.OPENING]
            start_s = monotonic()
            await one.give(Flashes(start_s), Clicks(start_s))
            await until(lambda: got.frames and got.blocks)

    with page_server(camera=camera) as server:
        camera.start(got)
        asyncio.run(run())
    assert np.isfinite(got.sound()).all()


def test_a_run_with_another_camera_takes_none() -> None:
    async def run() -> None:
        async with giver(server.port) as one:
            await one.socket.send_json({"camera": await one.offer(Flashes(0.0))})
            assert "another camera" in await one.told("refused")

    with page_server() as server:
        asyncio.run(run())


def test_sound_of_another_rate_ends_its_connection_in_one_line_and_the_next_is_heard() -> None:
    health = SourceHealth(lambda _: None)
    camera, got = BrowserCamera(health), Collector()

    async def run() -> None:
        async with giver(server.port) as one:
            sound = one.peer.addTransceiver("audio", direction="sendonly")
            telephone = [
                codec
                for codec in RTCRtpSender.getCapabilities("audio").codecs
                if codec.mimeType == "audio/PCMU"
            ]
            sound.setCodecPreferences(telephone)
            start_s = monotonic()
            sound.sender.replaceTrack(Clicks(start_s))
            await one.give(Flashes(start_s))
            assert "not Opus" in await one.told("ended")
            assert not got.blocks
        async with giver(server.port) as another:
            start_s = monotonic()
            await another.give(Flashes(start_s), Clicks(start_s))
            await until(lambda: got.frames and got.blocks)
        assert {block.rate_hz for block in got.blocks} == {48_000}

    with page_server(camera=camera) as server:
        camera.start(got)
        asyncio.run(run())
