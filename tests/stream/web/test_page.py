"""The page in a real Chromium."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from time import monotonic

import aiohttp
import numpy as np
import pytest

from denseav.stream.calibration.av_offset import Watcher, match
from denseav.stream.display.feature_pca import FeatureColours
from denseav.stream.stats.source_health import SourceHealth, State
from denseav.stream.web.browser_camera import BrowserCamera
from tests.support.fakes import Collector
from tests.support.screen.browser import open_tab
from tests.support.screen.pages import FLASHES, page_server, scaled

PIXEL = """(() => {
  const canvas = document.getElementById("picture");
  const at = (x, y) => Array.from(canvas.getContext("2d").getImageData(x, y, 1, 1).data);
  return canvas.width === 64 && [at(8, 6), at(56, 42)];
})()"""

POINT_AT_THE_FOURTH_TILE = """(() => {
  const canvas = document.getElementById("picture"), box = canvas.getBoundingClientRect();
  const scale = Math.min(box.width / 64, box.height / 48);
  const place = { clientX: box.left + box.width / 2 + 15.8 * scale,
    clientY: box.top + box.height / 2 + 11.8 * scale };
  canvas.dispatchEvent(new PointerEvent("pointermove", place));
})()"""
FEATURES = "document.querySelector('#view [value=features]')"


def test_the_page_draws_heat_where_it_is_and_names_as_text(tmp_path: Path) -> None:
    async def body() -> None:
        address = f"http://127.0.0.1:{server.port}/"
        async with open_tab(tmp_path, address) as tab:
            await tab.until("document.querySelectorAll('#heads input').length === 2")
            server.show(scaled(1, monotonic()))
            lit, dark = await tab.until(PIXEL)
            assert dark == pytest.approx([100, 100, 100, 255], abs=3)
            blue = [0.25 * 100 + 0.75 * part for part in (0x56, 0xB4, 0xE9)]
            assert lit[:3] == pytest.approx(blue, abs=6), "speech in its colour, at its ceiling"
            assert await tab.value("document.querySelector('#heads b')") is None
            assert "<b>sound</b>" in await tab.value("document.getElementById('heads').innerText")

            await tab.value("document.querySelector('#heads input').click()")
            lit, _ = await tab.until(PIXEL)
            assert lit == pytest.approx([100, 100, 100, 255], abs=3), "switched off at once"

            await tab.value(
                "(() => { const c = document.getElementById('picture');"
                "const b = c.getBoundingClientRect();"
                "c.dispatchEvent(new PointerEvent('pointermove', {"
                "clientX: b.left + b.width / 2 - 5, clientY: b.top + b.height / 2 - 5 })); })()"
            )
            read = await tab.value("document.getElementById('readout').textContent")
            assert not server.wants_features
            assert not await tab.value(f"{FEATURES}.disabled")
            await tab.value(
                "(() => { const view = document.getElementById('view');"
                "view.value = 'features'; view.dispatchEvent(new Event('change')); })()"
            )
            while not server.wants_features:
                await asyncio.sleep(0.01)
            halves_KCHW = np.zeros((2, 3, 4, 6), np.float32)
            halves_KCHW[..., 3:] = 1 + np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1)
            two = scaled(2, monotonic())
            server.show(replace(two, heatmap=replace(two.heatmap, features_KCHW=halves_KCHW)))
            colours_HW3 = FeatureColours().colour(halves_KCHW, 0.0)
            left, right = colours_HW3[0, 0, ::-1].tolist(), colours_HW3[-1, -1, ::-1].tolist()
            assert left != right
            shown = json.dumps([[*left, 255], [*right, 255]])
            await tab.until(f"JSON.stringify({PIXEL}) === JSON.stringify({shown})")
            await tab.value(
                "(() => { const view = document.getElementById('view');"
                "view.value = 'overlay'; view.dispatchEvent(new Event('change')); })()"
            )
            while server.wants_features:
                await asyncio.sleep(0.01)
            assert read.startswith("speech 5.50  <b>sound</b> silent  at 31, 23")
            assert tab.errors == []

    with page_server(features=True) as server:
        asyncio.run(body())


def test_a_browser_without_webrtc_is_told_and_shows_several_cameras_without_features(
    tmp_path: Path,
) -> None:
    """Places are named by their camera; viewers do not make a run give features that shows none."""

    async def body() -> None:
        origin = f"http://127.0.0.1:{server.port}"
        lacking = "delete window.RTCPeerConnection"
        async with open_tab(tmp_path, f"{origin}/", script=lacking) as tab:
            await tab.until("document.getElementById('giving')?.innerText.includes('no WebRTC')")
            assert await tab.value("document.getElementById('give').disabled")
            await tab.until("performance.now() > 1600")  # before, nothing is said of places
            server.show(scaled(1, monotonic()))
            await tab.until(PIXEL)
            await tab.until("document.getElementById('described').innerText")
            words = await tab.value("document.getElementById('described').innerText")
            assert words == "speech: top left of <i>door</i>, <b>sound</b>: none"
            await tab.value(POINT_AT_THE_FOURTH_TILE)
            read = await tab.value("document.getElementById('readout').textContent")
            assert read == "speech 0.00  <b>sound</b> silent  at 15, 11 of hall"
            assert await tab.value(f"{FEATURES}.disabled")
            for _ in range(8):
                await tab.value(
                    "document.body.dispatchEvent("
                    "new KeyboardEvent('keydown', { key: 'v', bubbles: true }))"
                )
                assert await tab.value("document.getElementById('view').value") != "features"
        async with (
            aiohttp.ClientSession() as client,
            client.ws_connect(f"{origin}/live", headers={"Origin": origin}) as socket,
        ):
            await socket.send_json({"features": True})
            await socket.send_json({"do": "record"})
            async for message in socket:
                if "refused" in str(message.data):
                    break
            assert any(viewer.wants_features for viewer in server._viewers)
            assert not server.wants_features

    tiles = {"columns": 2, "names": ["<i>door</i>", "yard", "attic", "hall"]}
    camera = BrowserCamera(SourceHealth(lambda _: None))
    with page_server(camera=camera, tiles=tiles) as server:
        asyncio.run(body())


@pytest.mark.realtime
def test_what_a_browser_gives_flashes_and_clicks_at_once(tmp_path: Path) -> None:
    health = SourceHealth(lambda _: None)
    camera, watcher = BrowserCamera(health), Watcher()

    async def body() -> None:
        address = f"http://127.0.0.1:{server.port}/"
        flag = "--autoplay-policy=no-user-gesture-required"
        async with open_tab(tmp_path, address, flag, script=FLASHES) as tab:
            await tab.until("document.getElementById('giving')?.hidden === false")
            words = "document.getElementById('given').textContent"
            await tab.value(
                "(() => { const media = navigator.mediaDevices; window.own = media.getUserMedia;"
                "media.getUserMedia = async () => {"
                " throw new DOMException('', 'NotAllowedError'); };"
                "document.getElementById('give').click(); })()"
            )
            await tab.until(f"{words}.includes('was not allowed')")
            await tab.value("(() => { navigator.mediaDevices.getUserMedia = window.own; })()")
            await tab.until("!document.getElementById('give').disabled")
            await tab.value("document.getElementById('give').click()")
            await tab.until(f"{words} === 'This device is the camera.'")
            assert await tab.value("Object.values(asked).every((on) => on === false)")
            given = camera._given
            assert given is not None
            async with asyncio.timeout(20):
                while not all(clock.has_report for clock in given._clocks.values()):
                    await asyncio.sleep(0.05)
            camera.start(watcher)
            await asyncio.sleep(2.7)
            await tab.value("document.getElementById('give').click()")
            assert await tab.value("document.getElementById('give').textContent.startsWith('Give')")
            async with asyncio.timeout(20):
                while {each.state for each in health.states()} != {State.LOST}:
                    await asyncio.sleep(0.02)
            assert tab.errors == []

    with page_server(camera=camera) as server:
        asyncio.run(body())
    flash_F, frame_s = watcher.flashes()
    found = match(flash_F, watcher.clicks(), frame_s)
    assert found is not None
    assert abs(found.seconds) < 0.04, found


# A phone's two cameras and a microphone: the front one is bright, and is held upright at first.
PHONE = """
window.asked = [];
navigator.mediaDevices.getUserMedia = async ({ video, audio }) => {
  asked.push(video.facingMode);
  const canvas = window.lens = document.createElement("canvas");
  Object.assign(canvas, { width: 96, height: 160 });
  const pen = canvas.getContext("2d");
  const grey = video.facingMode === "user" ? 200 : 60;
  let count = 0;
  const paint = setInterval(() => {
    pen.fillStyle = `rgb(${grey + count++ % 2}, ${grey}, ${grey})`;
    pen.fillRect(0, 0, canvas.width, canvas.height);
  }, 30);
  const stream = canvas.captureStream(30);
  const [track] = stream.getVideoTracks();
  const stop = track.stop.bind(track);
  track.stop = () => { clearInterval(paint); stop(); };
  if (audio) {
    const sound = new AudioContext(), out = sound.createMediaStreamDestination();
    const tone = sound.createOscillator();
    tone.connect(out);
    tone.start();
    stream.addTrack(out.stream.getAudioTracks()[0]);
  }
  return stream;
};
"""


def test_a_phone_is_turned_round_and_held_the_other_way_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    health = SourceHealth(said.append)
    camera, got = BrowserCamera(health), Collector()

    async def comes(shape: tuple[int, ...], grey: int) -> None:
        async with asyncio.timeout(20):
            while not (
                got.frames
                and got.frames[-1].image_HW3.shape == shape
                and abs(float(got.frames[-1].image_HW3.mean()) - grey)
                < 25  # video has a range of its own
            ):
                await asyncio.sleep(0.02)

    async def body() -> None:
        address = f"http://127.0.0.1:{server.port}/"
        flag = "--autoplay-policy=no-user-gesture-required"
        words = "document.getElementById('given')?.textContent"
        async with open_tab(tmp_path, address, flag, script=PHONE) as tab:
            await tab.until("document.getElementById('giving')?.hidden === false")
            await tab.value("document.getElementById('give').click()")
            await comes((160, 96, 3), 60)
            await tab.value("Object.assign(lens, { width: 160, height: 96 })")
            await tab.value("screen.orientation.dispatchEvent(new Event('change'))")
            await comes((96, 160, 3), 60)
            assert await tab.value(words) == "This device is the camera. Rotated."
            await tab.value("document.getElementById('turn').click()")
            await comes((160, 96, 3), 200)
            await tab.until(f"{words} === 'This device is the camera. The front camera.'")
            assert await tab.value("asked") == ["environment", "user"]
            given = camera._given
            blocks = len(got.blocks)
            async with asyncio.timeout(20):
                while len(got.blocks) <= blocks:  # the microphone goes on
                    await asyncio.sleep(0.02)
            assert camera._given is given, "by the same connection"
            await tab.value(
                "(() => { navigator.mediaDevices.getUserMedia = async () => {"
                " throw new DOMException('', 'NotReadableError'); };"
                "document.getElementById('turn').click(); })()"
            )
            await tab.until(f"{words} === 'Another program uses them.'")
            async with asyncio.timeout(20):
                while {each.state for each in health.states()} != {State.LOST}:
                    await asyncio.sleep(0.02)
            await tab.call(
                "Page.addScriptToEvaluateOnNewDocument", source="delete window.RTCPeerConnection"
            )
            await tab.call("Page.reload")
            await tab.until(f"{words} === 'This browser has no WebRTC; use another one.'")
            assert await tab.value("document.getElementById('give').disabled")
            assert tab.errors == []

    with page_server(camera=camera) as server:
        camera.start(got)
        asyncio.run(body())
    indices = [frame.index for frame in got.frames]
    assert indices == list(range(len(indices)))


# The grey of the picture, and the heat that is read at its middle, both of the same moment.
BOTH = """(() => {
  const canvas = document.getElementById("picture");
  const words = document.getElementById("readout").textContent.match(/speech ([0-9.]+)/);
  const grey = canvas.getContext("2d").getImageData(150, 110, 1, 1).data[1];
  return words && [grey, Number(words[1])];
})()"""


def test_by_webrtc_each_picture_is_drawn_with_its_own_map(tmp_path: Path) -> None:
    def show(number: int) -> None:
        grey_HW3 = np.full((120, 160, 3), 40 + 20 * (number % 10), np.uint8)
        shown = scaled(number, monotonic(), grey_HW3)
        heat_KHW = np.full((2, 4, 6), number % 10, np.float32)
        unlit = {"threshold_K": np.full(2, 50, np.float32), "ceiling_K": np.full(2, 60, np.float32)}
        server.show(replace(shown, heatmap=replace(shown.heatmap, heat_KHW=heat_KHW), **unlit))

    async def body() -> None:
        address = f"http://127.0.0.1:{server.port}/"
        async with open_tab(tmp_path, address) as tab:
            await tab.until("document.querySelectorAll('#heads input').length === 2")
            await tab.value(
                "(() => { const way = document.getElementById('way'); way.value = 'stream';"
                "way.dispatchEvent(new Event('change'));"
                "document.getElementById('picture').focus(); })()"
            )
            # A busy browser may show a picture later than it says; wrong maps fit none at all.
            met: list[float] = []
            async with asyncio.timeout(60):
                number = 0
                while len(met) < 12 or len(set(met)) < 2:
                    number += 1
                    show(number)
                    await asyncio.sleep(0.04)
                    [viewer] = server._viewers or [None]
                    if number % 5 or viewer is None or viewer.stream is None:
                        continue
                    if not met:
                        await tab.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft")
                    grey, heat = await tab.value(BOTH) or (0, 0)
                    if abs(grey - 40 - 20 * heat) < 6:
                        met.append(heat)
            assert await tab.value("document.getElementById('way').value") == "stream"
            assert tab.errors == []

    with page_server() as server:
        asyncio.run(body())
