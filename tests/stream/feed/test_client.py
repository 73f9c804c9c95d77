"""The client: never old news, every loss counted, and one file that stands alone."""

import ast
import asyncio
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zmq

from denseav.stream.feed import client
from denseav.stream.feed.client import (
    FeedError,
    FeedFormatError,
    FeedStaleError,
    HeatmapSubscriber,
    HeatMessage,
    clock_name,
    decode,
)
from denseav.stream.feed.message import Envelope
from tests.support.feeds import RUN, free_endpoint, heatmap, message, publish_until, publishing
from tests.support.stalls import until


class Sender:
    """A publisher's socket through which a test sends the very bytes it wants."""

    def __init__(self) -> None:
        self.endpoint = free_endpoint()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.XPUB)
        self.socket.linger = 0
        self.socket.bind(self.endpoint)

    def wait(self) -> None:
        assert self.socket.poll(20_000), "nobody subscribed"
        self.socket.recv()

    def close(self) -> None:
        self.socket.close()
        self._context.term()


@pytest.fixture(autouse=True)
def _silence_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_SILENCE_S", 20.0)


def next_whole(feed: HeatmapSubscriber) -> HeatMessage:
    """Return the next message, when what is no message has been refused."""
    while True:
        try:
            return next(feed)
        except FeedFormatError:
            time.sleep(0.01)


@pytest.fixture
def sender() -> Iterator[Sender]:
    sender = Sender()
    yield sender
    sender.close()


def test_silence_is_an_error_that_says_so() -> None:
    with HeatmapSubscriber(free_endpoint()) as feed:
        begin_s = time.monotonic()
        with pytest.raises(FeedStaleError, match="no message yet: is a publisher running"):
            feed.read_latest(max_age_ms=200)
        assert 0.2 <= time.monotonic() - begin_s < 10


def test_a_message_that_was_fresh_becomes_stale() -> None:
    endpoint = free_endpoint()
    with publishing(endpoint) as publisher, HeatmapSubscriber(endpoint) as feed:
        publish_until(publisher, lambda: feed._newest)
        newest = feed.read_latest(max_age_ms=10_000)
        time.sleep(0.3)
        assert feed.age_ms(newest) > 300
        with pytest.raises(FeedStaleError, match="ms old"):
            feed.read_latest(max_age_ms=200)


def test_age_counts_from_the_capture_not_from_the_arrival() -> None:
    endpoint = free_endpoint()
    with publishing(endpoint) as publisher, HeatmapSubscriber(endpoint) as feed:
        end_s = time.monotonic() + 5
        while feed._newest is None and time.monotonic() < end_s:
            publisher.heatmap(heatmap(0, capture_s=time.monotonic() - 1.0))
            time.sleep(0.02)
        with pytest.raises(FeedStaleError):
            feed.read_latest(max_age_ms=500)
        assert feed.read_latest(max_age_ms=10_000).sequence > 0


def test_from_another_machine_age_counts_by_its_own_clock(sender: Sender) -> None:
    """Its monotonic clock has another zero; what is held up on the way is older for it."""
    envelope = Envelope("heat", "cam0", RUN)
    envelope._host = "another machine"
    now_ns = time.monotonic_ns
    offset_ns = 10**15
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.monotonic_ns", lambda: now_ns() - offset_ns)
        patch.setattr("time.monotonic", lambda: (now_ns() - offset_ns) / 1e9)
        messages = [message(index, envelope=envelope) for index in range(3)]
    with HeatmapSubscriber(sender.endpoint) as feed:
        sender.wait()
        sender.socket.send(messages[0])
        first = next(feed)
        assert 0 <= feed.age_ms(first) < 10_000  # the clocks differ by days
        time.sleep(0.5)
        sender.socket.send(messages[1])
        assert feed.age_ms(next(feed)) > 450


class MadeClocks:
    """A publisher's and a reader's clocks, which go on as a test says, and messages by them.

    The reader has two: its monotonic one, which may be set right, and one that never is.
    """

    def __init__(self, sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
        self.publisher_ns, self.own_ns, self.steady_ns = 10**12, 7 * 10**14, 3 * 10**13
        self.read_late_ns = 0
        self._sender, self._envelope = sender, Envelope("heat", "cam0", RUN)
        self._envelope._host = "another machine"
        monkeypatch.setattr(client, "monotonic_ns", lambda: self.own_ns)
        monkeypatch.setattr(client, "_steady_ns", lambda: self.steady_ns + self.read_late_ns)

    def pass_by(self, passed_ms: float, *, own_ms: float | None = None) -> None:
        """Let time pass, of which the reader's monotonic clock may show another."""
        self.publisher_ns += round(1e6 * passed_ms)
        self.steady_ns += round(1e6 * passed_ms)
        self.own_ns += round(1e6 * (passed_ms if own_ms is None else own_ms))

    def age_ms(self, feed: HeatmapSubscriber, on_the_way_ms: float = 0.0) -> float:
        """Publish what is captured now; return the age when it has come."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("time.monotonic_ns", lambda: self.publisher_ns)
            patch.setattr("time.monotonic", lambda: self.publisher_ns / 1e9)
            data = message(envelope=self._envelope)
        self.pass_by(on_the_way_ms)
        self._sender.socket.send(data)
        return feed.age_ms(next(feed))


@pytest.mark.parametrize("pace", [1.1, 0.9], ids=["faster", "slower"])
def test_a_readers_clock_that_is_set_right_for_a_while_changes_no_age(
    sender: Sender, monkeypatch: pytest.MonkeyPatch, pace: float
) -> None:
    """By 0.4 s in 4 s, when the publisher is another machine; what is held up is old meanwhile."""
    clocks = MadeClocks(sender, monkeypatch)
    with HeatmapSubscriber(sender.endpoint) as feed:
        sender.wait()
        assert clocks.age_ms(feed) == 0
        for _ in range(40):
            clocks.pass_by(100, own_ms=100 * pace)
            assert clocks.age_ms(feed) == pytest.approx(0, abs=1)
        assert clocks.age_ms(feed, on_the_way_ms=500) == pytest.approx(500, abs=1)


def test_a_clock_that_is_read_late_makes_no_age_too_small(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = MadeClocks(sender, monkeypatch)
    with HeatmapSubscriber(sender.endpoint) as feed:
        sender.wait()
        for late_ms in (300, 0, 300, 0, 0):
            clocks.pass_by(100)
            clocks.read_late_ns = late_ms * 10**6
            assert clocks.age_ms(feed, on_the_way_ms=40) == pytest.approx(0, abs=1)
        clocks.read_late_ns = 300 * 10**6
        assert clocks.age_ms(feed, on_the_way_ms=340) == pytest.approx(300, abs=1)


def test_iteration_gives_each_newest_message_once() -> None:
    endpoint = free_endpoint()
    with publishing(endpoint) as publisher, HeatmapSubscriber(endpoint) as feed:
        publish_until(publisher, lambda: feed._newest)
        seen = []
        for index in range(5):
            publisher.heatmap(heatmap(index))
            seen.append(next(feed).sequence)
            time.sleep(0.05)
        assert seen == sorted(set(seen))


def test_iteration_ends_with_an_error_when_the_feed_falls_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "_SILENCE_S", 0.3)
    endpoint = free_endpoint()
    with publishing(endpoint) as publisher, HeatmapSubscriber(endpoint) as feed:
        publish_until(publisher, lambda: feed._newest)
        with pytest.raises(FeedStaleError):
            for _ in feed:
                pass


def test_the_asyncio_form_does_not_hold_up_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_SILENCE_S", 2.0)
    endpoint = free_endpoint()
    ticks: list[int] = []

    async def tick() -> None:
        while True:
            ticks.append(len(ticks))
            await asyncio.sleep(0.01)

    async def read(feed: HeatmapSubscriber) -> list[int]:
        ticking = asyncio.create_task(tick())
        seen: list[int] = []
        try:
            async for each in feed:
                seen.append(each.sequence)  # noqa: PERF401
        except FeedStaleError:
            ticking.cancel()
        return seen

    with publishing(endpoint) as publisher, HeatmapSubscriber(endpoint) as feed:
        publish_until(publisher, lambda: feed._newest)
        seen = asyncio.run(read(feed))
    assert seen[0] >= 1
    assert len(ticks) >= 10


def test_gaps_and_restarts_are_counted(sender: Sender) -> None:
    first, second = Envelope("heat", "cam0", RUN), Envelope("heat", "cam0", bytes(16))
    with HeatmapSubscriber(sender.endpoint) as feed:
        sender.wait()
        for sequence in (0, 1, 4):
            first.sequence = sequence
            sender.socket.send(message(envelope=first))
            last = next(feed)
        assert (last.sequence, feed.gaps, feed.restarts) == (5, 2, 0)
        sender.socket.send(message(envelope=second))
        assert next(feed).run == bytes(16).hex()
        assert (feed.gaps, feed.restarts) == (2, 1)


def test_from_another_machine_a_message_that_comes_again_is_no_news(sender: Sender) -> None:
    envelope = Envelope("heat", "cam0", RUN)
    envelope._host = "another machine"
    old, new = message(0, envelope=envelope), message(1, envelope=envelope)
    with HeatmapSubscriber(sender.endpoint) as feed:
        sender.wait()
        for data in (old, new):
            sender.socket.send(data)
            next(feed)
        time.sleep(0.5)
        sender.socket.send(old)
        until(lambda: feed.repeats == 1)
        with pytest.raises(FeedStaleError):
            feed.read_latest(max_age_ms=300, timeout_ms=0)
        assert feed.age_ms(feed._newest) > 450
        assert (feed._newest.sequence, feed.gaps, feed.restarts) == (2, 0, 0)


def test_what_comes_late_of_an_earlier_run_is_no_news_either(sender: Sender) -> None:
    """As a proxy may send it again; and of several cameras, each has its own run and clock."""
    first, second = Envelope("heat", "cam0", RUN), Envelope("heat", "cam0", bytes(16))
    first._host = second._host = "another machine"
    old, other, new = message(0, envelope=first), message(1, envelope=second), None
    with HeatmapSubscriber(sender.endpoint) as feed:
        sender.wait()
        for data in (old, other):
            sender.socket.send(data)
            next(feed)
        sender.socket.send(old)
        until(lambda: feed.repeats == 1)
        assert (feed._newest.run, feed.restarts) == (bytes(16).hex(), 1)
        new = message(2, envelope=first)
        sender.socket.send(new)
        assert (next(feed).sequence, feed.gaps, feed.restarts) == (2, 0, 1)


def test_any_number_of_runs_needs_no_more_memory(sender: Sender) -> None:
    with HeatmapSubscriber(sender.endpoint) as feed:
        sender.wait()
        for number in range(100):
            run = number.to_bytes(16, "little")
            sender.socket.send(message(envelope=Envelope("heat", "cam0", run)))
            until(lambda: feed._newest and feed._newest.run == run.hex())  # noqa: B023
        assert feed.restarts == 99
        assert len(feed._runs) == 64


def test_a_clock_that_a_container_sets_off_has_another_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = {"boot_id": "0f" * 16 + "\n", "timens_offsets": "monotonic 0 0\nboottime 9 9\n"}
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(Path, "read_text", lambda path, *_: texts[path.name])
    assert clock_name() == "0f" * 16
    texts["timens_offsets"] = "monotonic       -86400         7\nboottime 0 0\n"
    assert clock_name() == "0f" * 16 + " -86400 7"
    del texts["timens_offsets"]
    assert clock_name() == "0f" * 16


def test_clocks_without_a_name_are_not_the_same(sender: Sender) -> None:
    """The publisher's has another zero: an age by the reader's own would be years."""
    envelope = Envelope("heat", "cam0", RUN)
    envelope._host = ""
    now_ns, offset_ns = time.monotonic_ns, min(time.monotonic_ns() // 2, 10**12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.monotonic_ns", lambda: now_ns() - offset_ns)
        patch.setattr("time.monotonic", lambda: (now_ns() - offset_ns) / 1e9)
        data = message(0, envelope=envelope)
    with HeatmapSubscriber(sender.endpoint) as feed:
        feed._clock = ""
        sender.wait()
        sender.socket.send(data)
        assert feed.age_ms(next(feed)) < 10_000


def test_this_machine_names_its_clock() -> None:
    """In every process of it alike."""
    code = "from denseav.stream.feed.client import clock_name; print(clock_name())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert clock_name() == other.stdout.strip() != ""


def test_macos_and_windows_name_their_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what these systems are documented to have; neither runs here."""

    def sysctlbyname(name: bytes, said: Any, _size: object, _new: object, _length: object) -> int:
        said.value = {b"kern.bootsessionuuid": b"THE-SESSION"}[name]
        return 0

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", lambda _: SimpleNamespace(sysctlbyname=sysctlbyname))
    assert clock_name() == "THE-SESSION"
    started = {"MachineGuid": "the-machine", "BootId": 7}
    registry = SimpleNamespace(
        HKEY_LOCAL_MACHINE=0,
        OpenKey=lambda *_: nullcontext(),
        QueryValueEx=lambda _, name: (started[name], 1),
    )
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "winreg", registry)
    first = clock_name()
    started["BootId"] = 8
    assert first != clock_name() != ""


def test_a_read_that_does_not_wait_returns_or_raises_at_once() -> None:
    endpoint = free_endpoint()
    with publishing(endpoint) as publisher, HeatmapSubscriber(endpoint) as feed:
        publish_until(publisher, lambda: feed._newest)
        time.sleep(0.3)
        took_s = []
        for _ in range(50):
            begin_s = time.perf_counter()
            with pytest.raises(FeedStaleError):
                feed.read_latest(max_age_ms=200, timeout_ms=0)
            took_s.append(time.perf_counter() - begin_s)
        assert np.median(took_s) < 0.005
        publisher.heatmap(heatmap(1))
        until(lambda: feed._unread)
        message = feed.read_latest(max_age_ms=10_000, timeout_ms=0)
        assert feed.age_ms(message) < 10_000


def test_in_asyncio_silent_feeds_do_not_hold_up_one_that_is_live() -> None:
    """Nine feeds in a loop; waiting takes none of its executor's few threads."""
    endpoint = free_endpoint()

    async def patiently(feed: HeatmapSubscriber) -> None:
        while True:
            with suppress(FeedStaleError):
                await anext(feed)

    async def read(live: HeatmapSubscriber, silent: list[HeatmapSubscriber]) -> int:
        waiting = [asyncio.create_task(patiently(feed)) for feed in silent]
        count, end_s = 0, time.monotonic() + 1.5
        while time.monotonic() < end_s:
            await anext(live)
            count += 1
        for task in waiting:
            task.cancel()
        return count

    with publishing(endpoint) as publisher, ExitStack() as feeds:
        live = feeds.enter_context(HeatmapSubscriber(endpoint))
        silent = [feeds.enter_context(HeatmapSubscriber(free_endpoint())) for _ in range(8)]
        publish_until(publisher, lambda: live._newest)
        stop = threading.Event()

        def publish() -> None:
            while not stop.wait(0.02):
                publisher.heatmap(heatmap())

        thread = threading.Thread(target=publish)
        thread.start()
        count = asyncio.run(read(live, silent))
        stop.set()
        thread.join()
        assert not any(feed._wakers for feed in [live, *silent])
    assert count > 20


def test_reading_on_after_closing_is_an_error() -> None:
    feed = HeatmapSubscriber(free_endpoint())
    feed.close()
    with pytest.raises(FeedError, match="is closed"):
        next(feed)


def test_a_tap_that_fails_is_told_to_who_reads(sender: Sender) -> None:
    with HeatmapSubscriber(sender.endpoint, tap=lambda _: 1 / 0) as feed:
        sender.wait()
        sender.socket.send(message())
        until(lambda: feed._failure)
        with pytest.raises(FeedError, match="division by zero"):
            next(feed)


def test_a_publisher_that_comes_back_is_found_again() -> None:
    endpoint = free_endpoint()
    with HeatmapSubscriber(endpoint) as feed:
        with publishing(endpoint) as publisher:
            publish_until(publisher, lambda: feed._newest)
            run = next(feed).run
        with publishing(endpoint) as publisher:
            publish_until(publisher, lambda: feed._newest.run != run)
        assert feed.restarts == 1
        assert feed.read_latest(max_age_ms=10_000).run != run


def test_what_is_no_message_is_said_and_the_next_one_read(sender: Sender) -> None:
    with HeatmapSubscriber(sender.endpoint) as feed:
        sender.wait()
        sender.socket.send(b"heat/" + bytes(200))
        with pytest.raises(FeedFormatError, match="magic"):
            next(feed)
        sender.socket.send(message())
        assert next_whole(feed).sequence == 1


def test_an_unknown_major_version_is_refused(sender: Sender) -> None:
    data = bytearray(message())
    data[36] = 2
    with HeatmapSubscriber(sender.endpoint) as feed:
        sender.wait()
        sender.socket.send(bytes(data))
        with pytest.raises(FeedFormatError, match=r"version is 2\.1"):
            next(feed)


def test_a_hostile_message_of_several_parts_is_refused_without_harm(sender: Sender) -> None:
    with HeatmapSubscriber(sender.endpoint) as feed:
        sender.wait()
        for _ in range(20):
            sender.socket.send_multipart([message(), b"more" * 30_000])
        with pytest.raises(FeedFormatError):
            next(feed)
        sender.socket.send(message())
        assert next_whole(feed).sequence == 1


def test_a_message_too_large_is_never_taken_in(sender: Sender) -> None:
    with HeatmapSubscriber(sender.endpoint) as feed:
        sender.wait()
        sender.socket.send(b"heat/" + bytes(client.MESSAGE_BYTES_MAX))
        with pytest.raises(FeedStaleError):
            feed.read_latest(max_age_ms=500)


def test_options_are_set_before_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set later, libzmq would take no notice of them."""
    order: list[str] = []

    class Noting(zmq.Socket[bytes]):
        def setsockopt(self, option: int, value: object) -> None:
            order.append("option")
            super().setsockopt(option, value)  # type: ignore[arg-type]

        set = setsockopt

        def connect(self, addr: str) -> object:  # type: ignore[override]
            order.append("connect" if addr.startswith("tcp") else "monitor")
            return super().connect(addr)

    monkeypatch.setattr(zmq.Context, "_socket_class", Noting)
    with HeatmapSubscriber(free_endpoint()) as feed, pytest.raises(FeedStaleError):
        feed.read_latest(max_age_ms=50)
    assert order.index("option") < order.index("connect")
    assert "option" not in order[order.index("connect") :]


@pytest.mark.parametrize("endpoint", ["nonsense", "tcp://127.0.0.1"])
def test_what_is_no_endpoint_is_said(endpoint: str) -> None:
    with HeatmapSubscriber(endpoint) as feed, pytest.raises(FeedError, match="cannot receive"):
        next(feed)


def test_the_file_stands_alone(tmp_path: Path) -> None:
    """Copied to a folder of its own it reads a feed, and imports nothing of ours."""
    shutil.copy(str(client.__file__), tmp_path / "feed_client.py")
    (tmp_path / "golden.bin").write_bytes(message())
    code = """
import sys
import feed_client
message = feed_client.decode(open("golden.bin", "rb").read())
assert message.heads["sound"].peak == (480.0, 300.0)
assert not [name for name in sys.modules if name.startswith(("denseav", "cv2", "rich"))]
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=_plain())


def test_the_file_is_python_3_9() -> None:
    ast.parse(Path(str(client.__file__)).read_text(), feature_version=(3, 9))


def _plain() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def test_any_number_of_messages_needs_no_more_memory() -> None:
    """The slot holds one message, whoever does not read."""
    endpoint = free_endpoint()
    with publishing(endpoint) as publisher, HeatmapSubscriber(endpoint) as feed:
        publish_until(publisher, lambda: feed._newest)
        first = feed._newest
        publish_until(publisher, lambda: feed._newest.sequence > 20, fps=500)
        assert decode(first.data).sequence == first.sequence
        assert next(feed).sequence > 20
