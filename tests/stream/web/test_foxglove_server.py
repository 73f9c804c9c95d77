"""The server for Foxglove, by its protocol: what a recording holds, for this machine alone.

A client reads as Foxglove's app does: `serverInfo`, `advertise`, and messages once it subscribes.
"""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from mcap.reader import make_reader

from denseav.export.runtime.bundle import demo_folder
from denseav.stream.cli.live import main
from denseav.stream.recording import foxglove_channels
from denseav.stream.recording.foxglove_channels import STATUS_S
from denseav.stream.recording.mcap_recorder import McapRecorder
from denseav.stream.types import AudioBlock, Frame, Heatmap
from denseav.stream.web import foxglove_server
from denseav.stream.web.foxglove_server import FoxgloveServer
from tests.support.fake_session import fake_manifest
from tests.support.media import grey
from tests.support.stalls import until

HEADS = fake_manifest().heads
MESSAGE = struct.Struct("<BIQ")
Channels = dict[int, dict[str, Any]]
Act = Callable[[aiohttp.ClientWebSocketResponse, Channels], Awaitable[Any]]


def fill(sink: FoxgloveServer | McapRecorder) -> None:
    heat_KHW = np.linspace(0, 1, 12, dtype=np.float32).reshape(2, 2, 3)
    sink.audio(AudioBlock(np.full((400, 2), 0.25, np.float32), 16_000, 0, 0.0))
    sink.heatmap(Heatmap(Frame(grey(90), 3, 0.1), heat_KHW, (True, False), 0.0, 0.2, -20.0, 9.0))


@pytest.fixture
def server() -> Iterator[FoxgloveServer]:
    with closing(FoxgloveServer(HEADS, lambda: {"fps": 25.0})) as server:
        yield server


def connected(server: FoxgloveServer, act: Act) -> Any:
    """What `act` returns of a connection, which has been told of the channels."""

    async def connect() -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(server.url, protocols=["foxglove.sdk.v1"]) as connection,
        ):
            assert (await connection.receive_json())["name"] == "denseav"
            advertised = (await connection.receive_json())["channels"]
            return await act(connection, {each["id"]: each for each in advertised})

    return asyncio.run(asyncio.wait_for(connect(), 60))


async def subscribe(connection: aiohttp.ClientWebSocketResponse, channels: Channels) -> None:
    """Ask for every channel, under its own number; wait until the server knows."""
    wanted = [{"id": number, "channelId": number} for number in channels]
    await connection.send_json({"op": "subscribe", "subscriptions": wanted})


def subscribed(server: FoxgloveServer) -> bool:
    (camera,), (microphone,) = server._channels._cameras, server._channels._microphones
    channels = (camera._pictures, camera._frames, camera._places, *camera._maps.values())
    channels += (microphone._audio, microphone._blocks, server._channels._statuses)
    return all(each.has_sinks() for each in channels)


async def messages(connection: aiohttp.ClientWebSocketResponse, count: int) -> dict[int, bytes]:
    found = {}
    while len(found) < count:
        data = await connection.receive_bytes()
        kind, number, _ = MESSAGE.unpack_from(data)
        assert kind == 1
        found[number] = data[MESSAGE.size :]
    return found


def test_a_viewer_gets_what_a_recording_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(foxglove_channels, "monotonic", lambda: 0.0)
    monkeypatch.setattr(foxglove_channels, "time_ns", lambda: 10**18)

    async def look(connection: Any, channels: Channels) -> Any:
        await subscribe(connection, channels)
        while not subscribed(server):
            await asyncio.sleep(0.01)
        fill(server)
        server._channels._told_s = -STATUS_S
        server.poll()
        return channels, await messages(connection, len(channels))

    with closing(FoxgloveServer(HEADS, lambda: {"fps": 25.0})) as server:
        channels, found = connected(server, look)
    recorder = McapRecorder(tmp_path / "run.mcap", HEADS, lambda: {"fps": 25.0})
    fill(recorder)
    recorder._channels._told_s = -STATUS_S
    recorder.poll()
    recorder.close()
    with (tmp_path / "run.mcap").open("rb") as file:
        kept = list(make_reader(file).iter_messages())
    assert len(kept) == 8
    assert {channels[number]["topic"]: data for number, data in found.items()} == {
        channel.topic: message.data for _, channel, message in kept
    }
    schemas = {each["topic"]: each["schemaName"] for each in channels.values()}
    assert schemas == {channel.topic: schema.name for schema, channel, _ in kept if schema}


def test_without_a_viewer_no_picture_is_encoded(
    server: FoxgloveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("cv2.imencode")
    fill(server)


def test_a_viewer_that_reads_nothing_holds_nobody_up(
    server: FoxgloveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise_HW3 = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    monkeypatch.setattr("cv2.imencode", lambda *_: (True, noise_HW3))
    heat_KHW = np.zeros((2, 2, 3), np.float32)

    async def stall(connection: Any, channels: Channels) -> list[int]:
        await subscribe(connection, channels)
        while not subscribed(server):
            await asyncio.sleep(0.01)
        for index in range(100):  # 92 MB, on the thread that would have to read them
            frame = Frame(grey(90), index, 0.1 + index / 25)
            server.heatmap(Heatmap(frame, heat_KHW, (True, True), 0.0, 0.2, -20.0, 9.0))
        indexes: list[int] = []
        frames = {number for number, each in channels.items() if each["topic"] == "/frame"}
        while not indexes or indexes[-1] < 99:
            data = await connection.receive_bytes()
            if MESSAGE.unpack_from(data)[1] in frames:
                indexes.append(json.loads(data[MESSAGE.size :])["index"])
        return indexes

    indexes = connected(server, stall)
    assert indexes == sorted(indexes)
    assert len(indexes) < 80  # the oldest were dropped


def test_it_listens_on_this_machine_alone_and_leaves_a_taken_port(server: FoxgloveServer) -> None:
    with closing(FoxgloveServer(HEADS, dict)) as second:
        ports = [int(each.url.rpartition(":")[2]) for each in (server, second)]
        assert len(set(ports)) == 2
        assert second.url.removeprefix("ws://") in str(second.app_url).replace("%3A", ":")
        for port in ports:
            socket.create_connection(("127.0.0.1", port), 5).close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", port), 5)


def test_without_a_port_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foxglove_server, "HOST", "192.0.2.1")  # which this machine has not
    with pytest.raises(foxglove_server.OutputError, match="cannot serve Foxglove on 192"):
        FoxgloveServer(HEADS, dict)


def test_the_command_says_where_it_serves(exact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--offline", "--headless", "--seconds", "0.1", "--model", str(demo_folder())]
    assert main(["--source", str(exact), "--display", "foxglove", *options]) == 0
    assert "Foxglove finds the run at ws://127.0.0.1:" in capsys.readouterr().err


def test_where_descriptors_run_out_connections_are_ended_and_then_all_are_taken(
    server: FoxgloveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    with ExitStack() as held:
        idle = [held.enter_context(socket.create_connection(address, 20)) for _ in range(3)]
        for each in idle:
            each.sendall(b"GET / HTTP/1.1\r\n")
        server.poll()
        with monkeypatch.context() as patched:
            patched.setattr(foxglove_server, "descriptors_are_few", lambda: True)
            until(lambda: (server.poll(), all(map(_ended, idle)))[1])

    async def act(_: aiohttp.ClientWebSocketResponse, channels: Channels) -> int:
        return len(channels)

    assert connected(server, act)


def _ended(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(100) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
