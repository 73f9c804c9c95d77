"""The page's server: what is sent to whom, and what a browser that misbehaves costs others."""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import Any

import aiohttp
import cv2
import numpy as np
import pytest
from aiortc import RTCPeerConnection

from benchmarks.support.adversaries import LIES
from denseav.stream.errors import OutputError
from denseav.stream.types import AudioBlock
from denseav.stream.web import server as server_module
from denseav.stream.web import viewer as viewer_module
from denseav.stream.web.picture_stream import PicturePeer
from denseav.stream.web.server import VIEWERS_MAX, PageServer
from tests.support.screen.pages import page_server, scaled

Client = aiohttp.ClientSession
MAP, PICTURE, LOUDNESS = 1, 2, 3


def url(server: PageServer, path: str = "/") -> str:
    return f"http://127.0.0.1:{server.port}{path}"


def asks(body: Callable[[Client], Awaitable[None]]) -> None:
    """Run a client's part."""

    async def run() -> None:
        async with asyncio.timeout(20), Client() as client:
            await body(client)

    asyncio.run(run())


def live(client: Client, server: PageServer, **headers: str) -> Any:
    origin = url(server).rstrip("/")
    return client.ws_connect(url(server, "/live"), headers={"Origin": origin, **headers})


async def next_of(connection: Any, kind: type[str] | type[bytes]) -> Any:
    while True:
        data = (await connection.receive()).data
        assert isinstance(data, str | bytes), "the connection was ended"
        if isinstance(data, kind):
            return json.loads(data) if isinstance(data, str) else data


def test_a_viewer_gets_a_picture_and_its_map_with_one_number() -> None:
    async def body(client: Client) -> None:
        async with live(client, server) as connection:
            assert (await next_of(connection, str))["about"]["model"] == "made"
            server.audio(AudioBlock(np.full((1600, 1), 0.25, np.float32), 16_000, 0, 4.9))
            shown = scaled(7, 5.0, np.full((48, 64, 3), 200, np.uint8))
            server.show(shown)
            picture, map_, loudness = [await next_of(connection, bytes) for _ in range(3)]
        assert struct.unpack_from("<BxxxI", picture) == (PICTURE, 7)
        image_HW3 = cv2.imdecode(np.frombuffer(picture[8:], np.uint8), cv2.IMREAD_COLOR)
        assert image_HW3 is not None
        assert np.abs(image_HW3.astype(int) - 200).max() <= 2
        header = struct.unpack_from("<BBHHHIfd", map_)
        assert header == (MAP, 2, 0b01, 4, 6, 7, -20.0, 5.0)
        floats = np.frombuffer(map_[24:], "<f4")
        assert floats[:4].tolist() == [1, 2, 4, 5]
        assert (floats[4:].reshape(2, 4, 6) == shown.heatmap.heat_KHW).all()
        kind, count, begin_s = struct.unpack_from("<BxxxId", loudness)
        assert (kind, len(loudness) - 16) == (LOUDNESS, count)
        lit = [begin_s + i / 64 for i, root in enumerate(loudness[16:]) if root == 128]
        assert lit[0] == pytest.approx(4.9, abs=1 / 64)

    with page_server() as server:
        asks(body)


def test_who_does_not_acknowledge_gets_two_and_then_the_newest() -> None:
    async def body(client: Client) -> None:
        async with live(client, server) as connection:
            await next_of(connection, str)
            got = []
            for sequence in range(1, 9):
                server.show(scaled(sequence, 1.0))
                if sequence <= 2:
                    got += [await next_of(connection, bytes) for _ in range(2)]
                await asyncio.sleep(0.02)
            await connection.send_json({"drawn": 2})
            got += [await next_of(connection, bytes) for _ in range(2)]
        numbers = [struct.unpack_from("<4xI", each)[0] for each in got if each[0] == PICTURE]
        assert numbers == [1, 2, 8]

    with page_server() as server:
        asks(body)


def test_a_viewer_that_stops_reading_holds_up_nobody() -> None:
    """Its pictures are large, so that no buffer could hold them all."""

    async def body(client: Client) -> None:
        stopped = socket.create_connection(("127.0.0.1", server.port))
        stopped.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = (
            f"GET /live HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            f"Origin: http://127.0.0.1:{server.port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        stopped.sendall(request.encode())
        async with live(client, server) as connection:
            await next_of(connection, str)
            noise_HW3 = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), np.uint8)
            for sequence in range(1, 25):
                shown = scaled(sequence, monotonic(), noise_HW3)
                begun_s = monotonic()
                server.show(shown)
                assert monotonic() - begun_s < 0.1, "to show is never to wait"
                for _ in range(2):
                    data = await next_of(connection, bytes)
                assert struct.unpack_from("<8xI", data)[0] == sequence
                await connection.send_json({"drawn": sequence})
        stopped.close()

    with page_server() as server:
        asks(body)


def test_a_late_viewer_sees_at_once_what_was_shown_last() -> None:
    async def body(client: Client) -> None:
        server.show(scaled(1, 1.0))
        async with live(client, server) as connection:
            assert (await next_of(connection, bytes))[0] == PICTURE

    with page_server() as server:
        asks(body)


@pytest.mark.parametrize("text", ["no JSON", "[1]", "[" * 50_000])
def test_rubbish_ends_its_own_connection_alone(text: str) -> None:
    async def body(client: Client) -> None:
        async with live(client, server) as well, live(client, server) as ill:
            await ill.send_str(text)
            while (message := await ill.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
            assert message.type is aiohttp.WSMsgType.CLOSE
            assert ill.close_code == 1007
            server.show(scaled(1, 1.0))
            assert (await next_of(well, bytes))[0] == PICTURE

    with page_server() as server:
        asks(body)


def test_a_flood_of_texts_and_one_that_is_too_long_end_their_connection() -> None:
    async def body(client: Client) -> None:
        for texts in (["{}"] * 300, [json.dumps({"a": "b" * 70_000})]):
            async with live(client, server) as connection:
                for text in texts:
                    await connection.send_str(text)
                async for _ in connection:
                    pass
                assert connection.close_code in (1008, 1009)

    with page_server() as server:
        asks(body)


async def offer_to_watch() -> str:
    peer = RTCPeerConnection()
    peer.addTransceiver("video", direction="recvonly")
    await peer.setLocalDescription(await peer.createOffer())
    sdp = str(peer.localDescription.sdp)
    await peer.close()
    return sdp


async def answers(connection: Any, count: int) -> list[Any]:
    """The next so many answers to offers."""
    found: list[Any] = []
    while len(found) < count:
        said = await next_of(connection, str)
        found += [said["picture"]] if "picture" in said else []
    return found


def test_a_flood_of_offers_is_refused_and_others_get_their_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(viewer_module, "OFFERS_PER_S", 0.0)
    monkeypatch.setattr(viewer_module, "OFFERS_BURST", 3.0)

    async def body(client: Client) -> None:
        offer = json.dumps({"picture": await offer_to_watch()})
        async with live(client, server) as flooding, live(client, server) as other:
            for _ in range(10):
                await flooding.send_str(json.dumps({"picture": "v=0 rubbish"}))
            assert await answers(flooding, 10) == 10 * [None]
            await flooding.send_str(offer)
            assert await answers(flooding, 1) == [None], "it has made too many"
            await other.send_str(offer)
            [answer] = await answers(other, 1)
            assert answer.startswith("v=0")

    with page_server() as server:
        asks(body)


def test_of_offers_that_come_at_once_one_connection_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[PicturePeer] = []

    class Peer(PicturePeer):
        def __init__(self, origin: Callable[[int], None]) -> None:
            super().__init__(origin)
            made.append(self)

    monkeypatch.setattr(server_module, "PicturePeer", Peer)

    async def body(client: Client) -> None:
        offer = json.dumps({"picture": await offer_to_watch()})
        async with live(client, server) as connection:
            for _ in range(4):
                await connection.send_str(offer)
            assert all(await answers(connection, 4))
            while sum(not peer.is_over for peer in made) != 1:
                await asyncio.sleep(0.01)
        while not all(peer.is_over for peer in made):
            await asyncio.sleep(0.01)
        assert len(made) == 4

    with page_server() as server:
        asks(body)


def test_viewers_are_at_most_so_many() -> None:
    async def body(client: Client) -> None:
        held = [await live(client, server) for _ in range(VIEWERS_MAX)]
        with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
            await live(client, server)
        await held.pop().close()
        while server.viewers == VIEWERS_MAX:
            await asyncio.sleep(0.01)
        held.append(await live(client, server))
        for connection in held:
            await connection.close()

    with page_server() as server:
        asks(body)


def test_connections_that_ask_for_nothing_are_few_and_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "ASKS_WITHIN_S", 0.2)
    monkeypatch.setattr(server_module, "CONNECTIONS_MAX", 20)
    with page_server() as server:
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(40)]
        for each in idle:
            each.settimeout(5)
        ended = [each.recv(1) for each in idle]
        assert ended == [b""] * 40
        for each in idle:
            each.close()
        monkeypatch.setattr(server_module, "ASKS_WITHIN_S", 10.0)

        async def body(client: Client) -> None:
            async with client.get(url(server)) as answer:
                assert answer.status == 200

        asks(body)


@pytest.mark.parametrize("lie", LIES)
def test_a_request_that_lies_disturbs_nobody_and_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, lie: bytes
) -> None:
    monkeypatch.setattr(server_module, "LINGERS_S", 0.2)

    async def body(client: Client) -> None:
        async with client.get(url(server)) as answer:
            assert answer.status == 200

    with page_server() as server:
        line = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        with line, suppress(ConnectionError):
            line.sendall(lie)
            asks(body)
            while line.recv(4096):
                pass
        asks(body)


def test_where_descriptors_run_out_nobody_is_let_in_and_then_all_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(client: Client) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(server_module, "descriptors_are_few", lambda: True)
            with pytest.raises(aiohttp.ClientError):
                await client.get(url(server))
        async with client.get(url(server)) as answer:
            assert answer.status == 200

    with page_server() as server:
        asks(body)


def test_wishes_count_only_where_viewers_may_change_the_run() -> None:
    async def body(client: Client) -> None:
        async with live(client, server) as connection:
            await next_of(connection, str)
            await connection.send_json({"do": "record"})
            if control:
                while not (wishes := server.wishes()):
                    await asyncio.sleep(0.01)
                assert wishes == [{"do": "record"}]
            else:
                while "refused" not in (said := await next_of(connection, str)):
                    pass
                assert "--serve-control" in said["refused"]
                assert server.wishes() == []

    for control in (False, True):
        with page_server(control=control) as server:
            asks(body)


def test_a_port_in_use_is_one_line() -> None:
    with page_server() as server:
        address = server._address
        page = server._page
        taken = type(address)(host="127.0.0.1", port=server.port, access=address.access)
        with pytest.raises(OutputError, match=r"cannot serve the page at 127.0.0.1:\d+"):
            PageServer(taken, page)
