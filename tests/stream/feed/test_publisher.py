"""The publisher: real results only, never in the way, and honest about how it is doing."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace

import cv2
import numpy as np
import pytest
import zmq

from denseav.stream.errors import OutputError
from denseav.stream.feed.client import FeedStaleError, HeatmapSubscriber, StatusSubscriber
from denseav.stream.feed.publisher import CameraFeed, Publisher, health
from denseav.stream.stats.stats import Snapshot, Stats
from denseav.stream.types import Heatmap
from tests.support.feeds import (
    HEADS,
    ORIGIN,
    free_endpoint,
    heat,
    heatmap,
    publish_until,
    publishing,
    status_of,
)
from tests.support.stalls import until, until_threads

pytestmark = pytest.mark.realtime


@pytest.fixture
def endpoint() -> str:
    return free_endpoint()


@pytest.fixture
def publisher(endpoint: str) -> Iterator[Publisher]:
    with publishing(endpoint) as publisher:
        yield publisher


def wait_for_status(
    status: StatusSubscriber, publisher: Publisher | None = None, **wanted: object
) -> None:
    """Wait until the status says all that is wanted."""
    end_s = time.monotonic() + 20
    while time.monotonic() < end_s:
        header = status.read_latest(max_age_ms=10_000).header
        if all(header[name] == value for name, value in wanted.items()):
            return
        if publisher is not None:
            publisher.heatmap(heatmap())
        time.sleep(0.02)
    raise AssertionError(f"the status never said {wanted}, but {header}")


def test_a_heatmap_reaches_a_subscriber_as_it_is(publisher: Publisher, endpoint: str) -> None:
    with HeatmapSubscriber(endpoint) as feed:
        publish_until(publisher, lambda: feed._newest)
        message = feed.read_latest(max_age_ms=10_000)
    assert message.header["model"] == ORIGIN.model
    assert message.header["backend"] == "cpu"
    assert message.heads["sound"].peak == (480.0, 300.0)
    assert message.header["skew_ms"] == -100.0
    assert message.preview_jpeg == b""


def test_nothing_is_published_before_something_was_heard(
    publisher: Publisher, endpoint: str
) -> None:
    one = heatmap()
    deaf = Heatmap(one.frame, one.heat_KHW, (False, False), None, None, -120.0, one.ready_s)
    with HeatmapSubscriber(endpoint) as feed, StatusSubscriber(status_of(endpoint)) as status:
        wait_for_status(status, subscribers=1)
        for _ in range(10):
            publisher.heatmap(deaf)
            time.sleep(0.02)
        assert status.read_latest(max_age_ms=10_000).state == "starting"
        with pytest.raises(FeedStaleError):
            feed.read_latest(max_age_ms=100)


def test_without_subscribers_nothing_is_encoded(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("denseav.stream.feed.publisher.heat_fields", lambda *_: 1 / 0)
    for index in range(20):
        publisher.heatmap(heatmap(index))
        time.sleep(0.01)
    assert publisher._topics[0]._heat.sequence == 0


def test_what_was_sent_is_in_the_figures_and_what_was_not_is_not(endpoint: str) -> None:
    stats = Stats()
    publisher = Publisher(
        endpoint, [CameraFeed(origin=ORIGIN, snapshot=stats.snapshot)], stats=stats
    )
    publisher.heatmap(heatmap())
    with HeatmapSubscriber(endpoint) as feed:
        publish_until(publisher, lambda: feed._newest)
    publisher.close()
    latencies_ms = stats.latencies_ms()["capture_to_feed"]
    assert len(latencies_ms) == publisher._topics[0]._heat.sequence
    took_ms = stats.report(backend="", precision="", model="", trained=True)["stage_ms"]["publish"]
    assert 0 < took_ms["p50"] <= max(latencies_ms)


def test_giving_a_heatmap_never_waits_for_the_feed(endpoint: str) -> None:
    with publishing(endpoint, preview=True) as publisher, HeatmapSubscriber(endpoint) as feed:
        publish_until(publisher, lambda: feed._newest)
        large = heatmap(size=(3840, 2160))  # its JPEG takes tens of milliseconds
        took_s = []
        for _ in range(50):
            begin_s = time.perf_counter()
            publisher.heatmap(large)
            took_s.append(time.perf_counter() - begin_s)
        assert np.median(took_s) < 0.001
        assert publisher._topics[0].replaced > 0


def test_the_preview_travels_only_when_asked_for(endpoint: str) -> None:
    with publishing(endpoint, preview=True) as publisher, HeatmapSubscriber(endpoint) as feed:
        publish_until(publisher, lambda: feed._newest)
        jpeg = feed.read_latest(max_age_ms=10_000).preview_jpeg
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (480, 640, 3)


def test_the_status_tells_the_life_of_the_run(endpoint: str) -> None:
    with StatusSubscriber(status_of(endpoint)) as status:
        publisher = Publisher(endpoint, [CameraFeed(origin=ORIGIN, snapshot=Stats().snapshot)])
        wait_for_status(status, state="starting", audio_dbfs=None)
        wait_for_status(status, publisher, state="live", audio_dbfs=-20.0)
        wait_for_status(status, state="stalled", health="unusable")
        publisher.close()
        wait_for_status(status, state="ended", replay=False)


def test_the_status_comes_twice_a_second(publisher: Publisher, endpoint: str) -> None:
    came: list[int] = []
    with StatusSubscriber(
        status_of(endpoint), tap=lambda message: came.append(message.publish_ns)
    ) as status:
        next(status)
        until(lambda: len(came) > 5)
    assert np.median(np.diff(came) / 1e6) == pytest.approx(500, abs=200)


def test_the_status_counts_subscribers(publisher: Publisher, endpoint: str) -> None:
    with StatusSubscriber(status_of(endpoint)) as status:
        feeds = [HeatmapSubscriber(endpoint) for _ in range(3)]
        wait_for_status(status, subscribers=3)
        for feed in feeds:
            feed.close()
        wait_for_status(status, subscribers=0)


def test_heat_that_is_no_number_is_not_live(publisher: Publisher, endpoint: str) -> None:
    """It stands for nothing, unlike silence: the feed has stalled until numbers come again."""
    broken_KHW = np.full((2, 4, 6), np.nan, np.float32)
    broken = replace(heatmap(heat_KHW=broken_KHW), valid_K=(False, False))
    with StatusSubscriber(status_of(endpoint)) as status, HeatmapSubscriber(endpoint) as feed:
        wait_for_status(status, publisher, state="live")

        def stalled() -> bool:
            publisher.heatmap(broken)
            return bool(status.read_latest(max_age_ms=10_000).state == "stalled")

        until(stalled)
        assert status.read_latest(max_age_ms=10_000).health == "unusable"
        assert not any(head.valid for head in feed.read_latest(max_age_ms=10_000).heads.values())
        wait_for_status(status, publisher, state="live")


def test_a_model_that_never_gives_a_number_has_stalled(publisher: Publisher, endpoint: str) -> None:
    """It is not starting any more; until a second after its first heat it could be."""
    broken_KHW = np.full((2, 4, 6), np.nan, np.float32)
    broken = replace(heatmap(heat_KHW=broken_KHW), valid_K=(False, False))
    with StatusSubscriber(status_of(endpoint)) as status:
        wait_for_status(status, state="starting")
        publisher.heatmap(broken)
        wait_for_status(status, state="stalled", health="unusable")
        publisher.heatmap(replace(heatmap(), ready_s=time.monotonic() + 60))
        wait_for_status(status, state="live")


def test_one_head_without_numbers_makes_the_health_poor(
    publisher: Publisher, endpoint: str
) -> None:
    heat_KHW = heat()
    heat_KHW[0] = np.nan
    with StatusSubscriber(status_of(endpoint)) as status:
        next(status)
        for _ in range(100):
            publisher.heatmap(heatmap(heat_KHW=heat_KHW))
            header = status.read_latest(max_age_ms=10_000).header
            time.sleep(0.02)
        assert (header["state"], header["health"]) == ("live", "poor")
        publisher.heatmap(heatmap())  # and for 10 s after it
        assert next(status).health == next(status).health == "poor"


def test_what_nobody_expected_ends_the_run_with_one_line(
    publisher: Publisher, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("denseav.stream.feed.publisher.heat_fields", lambda *_: 1 / 0)
    with (
        HeatmapSubscriber(endpoint),
        pytest.raises(OutputError, match=r"the feed has failed .*ZeroDivisionError"),
    ):
        publish_until(publisher, lambda: False)


@pytest.mark.parametrize(
    ("fps_in", "fps_out", "p95_ms", "live", "grade"),
    [
        (30.0, 30.0, 80.0, True, "excellent"),
        (30.0, 20.0, 80.0, True, "fair"),
        (30.0, 30.0, 300.0, True, "fair"),
        (30.0, 5.0, 80.0, True, "poor"),
        (30.0, 30.0, 80.0, False, "unusable"),
    ],
)
def test_the_health_grade(
    fps_in: float, fps_out: float, p95_ms: float, live: bool, grade: str
) -> None:
    snapshot = Snapshot(
        fps_in=fps_in,
        fps_out=fps_out,
        latency_p50_ms=10.0,
        latency_p95_ms=p95_ms,
        audio_age_ms=100.0,
        drops={},
    )
    assert health(snapshot, live) == grade


def test_a_slow_subscriber_sees_fresh_messages_and_slows_nobody(
    publisher: Publisher, endpoint: str
) -> None:
    """50 ms for each message at 100 a second; the benchmark measures the same for minutes."""
    ages_ms = []
    with HeatmapSubscriber(endpoint) as feed:
        publish_until(publisher, lambda: feed._newest)
        stop = threading.Event()

        def publish() -> None:
            index = 0
            while not stop.wait(0.01):
                publisher.heatmap(heatmap(index))
                index += 1

        thread = threading.Thread(target=publish)
        thread.start()
        for _ in range(40):
            message = next(feed)
            ages_ms.append(feed.age_ms(message))
            time.sleep(0.05)
        stop.set()
        thread.join()
    assert np.median(ages_ms) < 500  # in a queue they would be seconds old at the end
    assert np.median(ages_ms[20:]) < np.median(ages_ms[:20]) + 500


def test_a_conflating_subscriber_is_safe(publisher: Publisher, endpoint: str) -> None:
    """CONFLATE aborts the process on messages of several parts: ours have one."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(zmq.SUB) as socket_:
        socket_.setsockopt(zmq.CONFLATE, 1)
        socket_.subscribe(b"heat/")
        socket_.connect(endpoint)
        publish_until(publisher, lambda: socket_.poll(0))
        for index in range(50):
            publisher.heatmap(heatmap(index))
            time.sleep(0.005)
        assert len(socket_.recv()) > 500
    context.term()


def test_a_subscriber_of_one_camera_filters_by_the_whole_topic(
    publisher: Publisher, endpoint: str
) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(zmq.SUB) as ours, context.socket(zmq.SUB) as others:
        ours.subscribe(b"heat/cam0".ljust(32, b"\0"))
        others.subscribe(b"heat/cam".ljust(32, b"\0"))
        for each in (ours, others):
            each.connect(endpoint)
        publish_until(publisher, lambda: ours.poll(0))
        assert not others.poll(100)
    context.term()


def test_a_killed_subscriber_leaves_the_others_alone(
    publisher: Publisher, endpoint: str, begin: Callable[..., subprocess.Popen[str]]
) -> None:
    code = f"""
from denseav.stream.feed.client import HeatmapSubscriber
feed = HeatmapSubscriber({endpoint!r})
next(feed)
print("in", flush=True)
feed._stop.wait()
"""
    victim = begin([sys.executable, "-c", code])
    with HeatmapSubscriber(endpoint) as feed, StatusSubscriber(status_of(endpoint)) as status:
        wait_for_status(status, publisher, subscribers=2)
        time.sleep(0.2)
        victim.kill()
        victim.wait()
        wait_for_status(status, publisher, subscribers=1)
        assert next(feed).sequence > 0


def test_noise_on_the_port_does_no_harm(publisher: Publisher, endpoint: str) -> None:
    port = int(endpoint.rpartition(":")[2])
    for noise in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 4096, bytes(100_000)):
        with socket.create_connection(("127.0.0.1", port)) as line, suppress(ConnectionError):
            line.sendall(noise)
    with HeatmapSubscriber(endpoint) as feed:
        assert publish_until(publisher, lambda: feed._newest) >= 0


def test_closing_is_quick_and_leaves_no_thread(endpoint: str) -> None:
    before = threading.enumerate()
    publisher = Publisher(endpoint, [CameraFeed(origin=ORIGIN, snapshot=Stats().snapshot)])
    feed = HeatmapSubscriber(endpoint)
    publish_until(publisher, lambda: feed._newest)
    begin_s = time.monotonic()
    publisher.close()
    publisher.close()
    feed.close()
    assert time.monotonic() - begin_s < 10
    until_threads(before)


def test_thresholds_that_are_set_while_it_goes_on_are_sent(
    publisher: Publisher, endpoint: str
) -> None:
    with HeatmapSubscriber(endpoint) as feed:
        publish_until(publisher, lambda: feed._newest)
        assert feed._newest.heads["sound"].box is not None
        publisher.settle([replace(head, threshold=9.0, ceiling=10.0) for head in HEADS])
        publish_until(publisher, lambda: feed._newest.heads["sound"].threshold == 9.0)
        newest = feed._newest.heads
        assert (newest["speech"].threshold, newest["sound"].ceiling) == (9.0, 10.0)
        assert newest["sound"].valid
        assert newest["sound"].box is None, "nothing is over the new threshold"


def test_each_of_several_cameras_has_topics_of_its_own(endpoint: str) -> None:
    stats = Stats()
    cameras = [
        CameraFeed(origin=replace(ORIGIN, camera_id=name), snapshot=stats.camera(name).snapshot)
        for name in ("cam", "cam2")
    ]
    publisher = Publisher(endpoint, cameras)
    with (
        closing(publisher),
        HeatmapSubscriber(endpoint, camera="cam") as first,
        HeatmapSubscriber(endpoint, camera="cam2") as second,
        StatusSubscriber(status_of(endpoint), camera="cam2") as status,
    ):
        one = heatmap()
        other = replace(one, frame=replace(one.frame, camera=1, index=500))
        stats.camera("cam2").drop("model_busy", 7)

        def give() -> bool:
            publisher.heatmap(other)
            return bool(first._newest and second._newest and status._newest)

        publish_until(publisher, give)
        time.sleep(0.1)
        assert first._newest.header["camera"] == "cam"
        assert second._newest.header["camera"] == "cam2"
        assert second._newest.header["frame"] == 500
        assert first._newest.run != second._newest.run
        assert first.restarts == second.restarts == first.repeats == second.repeats == 0
        assert status._newest.header["drops"]["model_busy"] == 7
