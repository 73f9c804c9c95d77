"""The page's server: drawn heatmaps and audio in, pages and messages to browsers out.

On a thread of its own with an event loop; nothing that calls in from other threads waits for a
browser. What comes from browsers is bounded in number, size and rate. Wishes that change the run
wait here until the showing thread takes them. Nothing here draws or knows the pipeline.
"""

import asyncio
import logging
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from time import monotonic
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from denseav.export.process_limits import descriptors_are_few
from denseav.stream.display.feature_pca import FeatureColours
from denseav.stream.display.timeline import Loudness
from denseav.stream.errors import OutputError
from denseav.stream.types import AudioBlock
from denseav.stream.web.access import Access, Handler, refused
from denseav.stream.web.browser_camera import BrowserCamera, GivenCamera, OfferError
from denseav.stream.web.messages import (
    Scaled,
    features_message,
    loudness_message,
    map_message,
    picture_message,
)
from denseav.stream.web.picture_stream import PictureEncoder, PicturePeer
from denseav.stream.web.viewer import TEXT_MAX, Viewer

VIEWERS_MAX = 32
CONNECTIONS_MAX = 128
ASKS_WITHIN_S = 10.0  # a connection that has asked for nothing by then is closed
LINGERS_S = 2.0  # for a body that nobody asked for, before its connection is closed
HEADERS_MAX = 64  # of a request; each of 8 KiB at most
HEARTBEAT_S = 15.0  # a viewer that answers no ping for so long is gone
STATE_S = 1.0
CLOSING_S = 2.0
SEND_BUFFER = 128 * 1024
WISHES_MAX = 64
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_log = logging.getLogger(__name__)
_STATIC = Path(__file__).parent / "static"


@dataclass(frozen=True, kw_only=True)
class Page:
    """What the page says of the run from the start.

    Attributes
    ----------
    about : as JSON takes it: the model, its heads and their colours.
    state : gives what changes, as JSON takes it; called once a second on the server's thread.
    viewed : called with the capture time of what a viewer has drawn, and when it said so.
    control : whether viewers may change the run.
    features : whether a viewer may have the run give features along, which is work for it.
    camera : is given the camera and microphone of whoever offers them; None where none is wanted.
    """

    about: Mapping[str, Any]
    state: Callable[[], Mapping[str, Any]]
    viewed: Callable[[float, float], None] = lambda _capture_s, _done_s: None
    control: bool = False
    features: bool = False
    camera: BrowserCamera | None = None


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where it is served, to whom.

    Attributes
    ----------
    port : 0 for any that is free.
    tls : None for plain HTTP.
    """

    host: str
    port: int
    access: Access
    tls: ssl.SSLContext | None = None


@dataclass(slots=True)
class _Shared:
    """What the loop sends next; the newest alone."""

    newest: Scaled | None = None
    fault: str | None = None
    waking: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class PageServer:
    """Serves the page until closed.

    Parameters
    ----------
    address, page : where, and what.

    Attributes
    ----------
    port : that was had.

    Raises
    ------
    OutputError
        When the port cannot be had.
    """

    def __init__(self, address: Address, page: Page) -> None:
        for library in ("aiortc", "aioice"):  # whose warnings are of what browsers sent
            logging.getLogger(library).setLevel(logging.CRITICAL)
        self._address = address
        self._page = page
        self._files = _files()
        self._shared = _Shared()
        self._loudness = Loudness()
        self._wishes: deque[Mapping[str, Any]] = deque(maxlen=WISHES_MAX)
        self._silent: set[object] = set()  # connections that have asked for nothing
        self._viewers: dict[Viewer, int | None] = {}  # and the loudness that each has had
        self._giving: dict[Viewer, GivenCamera] = {}
        self._encoder = PictureEncoder()
        self._colours = FeatureColours()
        self._tasks: set[asyncio.Task[None]] = set()
        self._fresh = asyncio.Event()
        self._closed = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        ready: Future[int] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(ready,), name="page server", daemon=True
        )
        self._thread.start()
        try:
            self.port = ready.result()
        except OSError as error:
            raise OutputError(
                f"cannot serve the page at {address.host}:{address.port} ({error.strerror}); "
                "choose another port"
            ) from None

    @property
    def viewers(self) -> int:
        """How many look."""
        return len(self._viewers)

    @property
    def wants_features(self) -> bool:
        """Whether heatmaps should bring their picture's features along. Any thread."""
        return self._page.features and any(v.wants_features for v in list(self._viewers))

    def show(self, scaled: Scaled) -> None:
        """Take what is to be shown, in place of what nobody was sent. Never waits."""
        self._leave(scaled, None)

    def poll(self, fault: str | None) -> None:
        """Say why nothing new comes; None when there is no fault."""
        if fault != self._shared.fault:
            self._leave(None, fault)

    def audio(self, block: AudioBlock) -> None:
        """Take some audio. Callable from any thread."""
        self._loudness.audio(block)

    def wishes(self) -> list[Mapping[str, Any]]:
        """Return what viewers that may change the run have asked for since the last call."""
        taken = []
        while self._wishes:
            taken.append(self._wishes.popleft())
        return taken

    def close(self) -> None:
        """Let go of all viewers and of the port. May be called twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closed.set)
            self._thread.join(2 * CLOSING_S)

    def _leave(self, scaled: Scaled | None, fault: str | None) -> None:
        shared = self._shared
        with shared.lock:
            shared.newest, shared.fault = scaled or shared.newest, fault
            waking, shared.waking = shared.waking, True
        if not waking and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        with self._shared.lock:
            self._shared.waking = False
        self._fresh.set()

    def _run(self, ready: "Future[int]") -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(_note)
        try:
            self._loop.run_until_complete(self._serve(ready))
        finally:
            self._loop.close()

    async def _serve(self, ready: "Future[int]") -> None:
        app = web.Application(
            middlewares=[self._note_asking, self._address.access.middleware()],
            client_max_size=TEXT_MAX,
        )
        app.router.add_get("/", self._index)
        app.router.add_get("/live", self._live)
        app.router.add_get("/{name}", self._file)
        runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=HEARTBEAT_S,
            shutdown_timeout=0.1,
            # Of a request nothing but its head is ever wanted.
            lingering_time=LINGERS_S,
            max_headers=HEADERS_MAX,
            auto_decompress=False,
        )
        await runner.setup()
        try:
            listening = await self._listen(runner)
        except OSError as error:
            ready.set_exception(error)
            await runner.cleanup()
            return
        ready.set_result(listening.sockets[0].getsockname()[1])
        tasks = [
            asyncio.create_task(each()) for each in (self._closed.wait, self._show, self._tell)
        ]
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        listening.close()
        closing = [viewer.close() for viewer in self._viewers]
        await asyncio.wait_for(asyncio.gather(*closing, return_exceptions=True), CLOSING_S)
        for viewer, given in list(self._giving.items()):
            del self._giving[viewer]
            await given.close()
        await runner.cleanup()
        for task in ended:
            await task  # one of ours that failed ends the run

    async def _listen(self, runner: web.AppRunner) -> asyncio.Server:
        server = runner.server
        assert server is not None

        def accept() -> asyncio.Protocol:
            if len(server.connections) >= CONNECTIONS_MAX or descriptors_are_few():
                return _Refusal()
            handler = server()
            self._silent.add(handler)
            self._loop.call_later(ASKS_WITHIN_S, self._close_silent, handler)
            return handler

        return await self._loop.create_server(
            accept,
            self._address.host,
            self._address.port,
            ssl=self._address.tls,
            backlog=1024,
            ssl_handshake_timeout=ASKS_WITHIN_S if self._address.tls else None,
        )

    def _close_silent(self, handler: RequestHandler) -> None:
        if handler in self._silent:
            self._silent.discard(handler)
            handler.force_close()

    @web.middleware
    async def _note_asking(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._silent.discard(request.protocol)
        return await handler(request)

    async def _index(self, request: web.Request) -> web.StreamResponse:
        response = self._files["index.html"].response()
        return self._address.access.keep(request, response)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        file = self._files.get(request.match_info["name"])
        if file is None:
            return refused(HTTPStatus.NOT_FOUND, "there is no such page")
        return file.response()

    async def _live(self, request: web.Request) -> web.StreamResponse:
        if "Origin" not in request.headers:
            return refused(HTTPStatus.FORBIDDEN, "only the page itself may look")
        if len(self._viewers) >= VIEWERS_MAX:
            return refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many viewers; try again later")
        connection = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, max_msg_size=TEXT_MAX, compress=False
        )
        await connection.prepare(request)
        _bound_buffers(request)
        viewer = Viewer(connection, self._ask, self._drawn)
        self._viewers[viewer] = None
        try:
            viewer.answer(about=self._about())
            viewer.tell(**self._state_for(viewer, self._page.state()))
            self._fresh.set()
            await viewer.serve()
        finally:
            del self._viewers[viewer]
            if viewer.stream is not None:
                await viewer.stream.close()
            given = self._giving.pop(viewer, None)
            if given is not None and self._page.camera is not None:
                await self._page.camera.leave(given, "the page was closed, or its network lost")
        return connection

    def _about(self) -> dict[str, Any]:
        camera = self._page.camera
        wanted = None if camera is None else {"audio": camera.audio}
        page = self._page
        may = {"control": page.control, "features": page.features}
        return {**page.about, **may, "camera": wanted}

    def _ask(self, viewer: Viewer, wish: Mapping[str, Any]) -> None:
        if "camera" in wish:
            self._begin(self._offered(viewer, wish["camera"]))
        elif "picture" in wish:
            self._begin(self._watched(viewer, wish["picture"]))
        elif self._page.control:
            self._wishes.append(wish)
        else:
            viewer.answer(refused="viewers may not change this run; start it with --serve-control")

    def _drawn(self, capture_s: float) -> None:
        self._fresh.set()
        self._page.viewed(capture_s, monotonic())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _offered(self, viewer: Viewer, wish: object) -> None:
        """Take a viewer's camera, let go of it, or note that its page is in the background."""
        camera, given = self._page.camera, self._giving.get(viewer)
        if camera is None:
            viewer.answer(refused="this run has another camera")
        elif given is not None and wish == "end":
            del self._giving[viewer]
            await camera.leave(given)
        elif given is not None and wish in ("hidden", "visible"):
            given.background = wish == "hidden"
        elif not viewer.offers.allows(""):
            viewer.answer(ended="too many offers; wait a moment")
        elif given is None and isinstance(wish, str) and wish.startswith("v=0"):
            try:
                answer, given = await camera.take(wish, partial(self._ended, viewer))
            except OfferError as error:
                viewer.answer(ended=str(error))
                return
            if viewer in self._viewers:
                self._giving[viewer] = given
                viewer.answer(camera=answer)
            else:  # it has gone meanwhile
                await camera.leave(given, "the page was closed")
        else:
            viewer.answer(ended="that is no offer")

    def _ended(self, viewer: Viewer, line: str) -> None:
        self._giving.pop(viewer, None)
        viewer.answer(ended=line)

    async def _show(self) -> None:
        """Send the newest to whoever has drawn what it got; encoded once, if anybody has."""
        streamed = -1
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            scaled = self._shared.newest
            if scaled is None:
                continue
            if scaled.sequence != streamed:
                streamed = scaled.sequence
                await self._stream(scaled)
            ready = [viewer for viewer in self._viewers if viewer.wants(scaled.sequence)]
            if not ready:
                continue
            pictures: dict[bool, tuple[bytes, ...]] = {True: ()}
            if any(viewer.stream is None for viewer in ready):
                jpeg = await self._loop.run_in_executor(None, picture_message, scaled)
                pictures[False] = (jpeg,)
            features = await self._features_of(scaled, ready)
            map_ = map_message(scaled)
            capture_s = scaled.heatmap.frame.capture_s
            for viewer in ready:
                streams = viewer.stream is not None
                if viewer in self._viewers and streams in pictures:
                    messages = (*pictures[streams], map_, *self._heard_since(viewer))
                    if viewer.wants_features:
                        messages = (*features, *messages)
                    viewer.show(scaled.sequence, capture_s, messages)

    async def _features_of(self, scaled: Scaled, viewers: Sequence[Viewer]) -> tuple[bytes, ...]:
        """Return the features' message, where a viewer wants it and the heatmap has some."""
        features_KCHW = scaled.heatmap.features_KCHW
        wanted = self._page.features and any(viewer.wants_features for viewer in viewers)
        if features_KCHW is None or not wanted:
            return ()
        time_s = scaled.heatmap.frame.capture_s
        colours_HW3 = await self._loop.run_in_executor(
            None, self._colours.colour, features_KCHW, time_s
        )
        return (features_message(scaled, colours_HW3),)

    async def _stream(self, scaled: Scaled) -> None:
        """Give the picture to all who have it by WebRTC; encoded once, if anybody has."""
        tracks = []
        for viewer in self._viewers:
            if viewer.stream is not None and viewer.stream.is_over:
                viewer.stream = None
                viewer.answer(picture=None)
            if viewer.stream is not None:
                tracks.append(viewer.stream.track)
        if tracks:
            frame = scaled.heatmap.frame
            whole = any(track.wants_whole for track in tracks)
            encoded = await self._loop.run_in_executor(
                None, self._encoder.encode, frame.image_HW3, frame.capture_s, whole
            )
            for track in tracks:
                track.put(encoded)

    async def _watched(self, viewer: Viewer, wish: object) -> None:
        """Begin or end a viewer's own stream of the picture."""
        before, viewer.stream = viewer.stream, None
        if before is not None:
            await before.close()
        if not isinstance(wish, str) or not viewer.offers.allows(""):
            viewer.answer(picture=None)
            return
        stream = PicturePeer(lambda origin: viewer.answer(origin=origin))
        answer = await stream.answer(wish)
        if answer is None or viewer not in self._viewers:
            await stream.close()
        else:
            before, viewer.stream = viewer.stream, stream
            if before is not None:  # of another wish meanwhile
                await before.close()
        viewer.answer(picture=answer)

    def _heard_since(self, viewer: Viewer) -> tuple[bytes, ...]:
        begin_s, end, peak_N = self._loudness.since(self._viewers[viewer])
        self._viewers[viewer] = end
        return (loudness_message(begin_s, peak_N),) if len(peak_N) else ()

    async def _tell(self) -> None:
        while True:
            state = self._page.state()
            for viewer in list(self._viewers):
                viewer.tell(**self._state_for(viewer, state))
            await asyncio.sleep(STATE_S)

    def _state_for(self, viewer: Viewer, state: Mapping[str, Any]) -> dict[str, Any]:
        latency_ms = viewer.latency_ms
        return {
            "state": {
                **state,
                "fault": self._shared.fault,
                "now_s": monotonic(),
                "viewers": len(self._viewers),
                "viewer_ms": None if latency_ms is None else [round(each) for each in latency_ms],
                "passed_over": viewer.passed_over,
            }
        }


@dataclass(frozen=True)
class _File:
    body: bytes
    content_type: str

    def response(self) -> web.Response:
        return web.Response(body=self.body, content_type=self.content_type, charset="utf-8")


class _Refusal(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _files() -> dict[str, _File]:
    return {
        path.name: _File(path.read_bytes(), _TYPES[path.suffix])
        for path in _STATIC.iterdir()
        if path.suffix in _TYPES
    }


def _note(_: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """Say in one line what a browser's connection failed with in the libraries that serve it."""
    error = context.get("exception")
    what = context["message"] if error is None else type(error).__name__
    _log.debug("a browser's connection failed (%s)", what)


def _bound_buffers(request: web.Request) -> None:
    """Keep the system from storing seconds of pictures for a viewer that does not read."""
    transport = request.transport
    if transport is not None:
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
