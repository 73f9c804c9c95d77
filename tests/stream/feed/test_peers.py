"""Connections and subscriptions without end: real ones, against a real publisher."""

import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import zmq

from denseav.stream.feed.client import HeatmapSubscriber
from denseav.stream.feed.peers import CONNECTIONS_MAX, IDLE_MAX, SUBSCRIPTIONS_MAX
from denseav.stream.feed.publisher import Publisher
from tests.support.feeds import free_endpoint, publish_until, publishing
from tests.support.stalls import until

pytestmark = pytest.mark.realtime

PUBLISHER = """
import resource, sys, time
from tests.support.feeds import heatmap, publishing
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
with publishing(sys.argv[1]) as publisher:
    print("publishing", flush=True)
    for index in range(3000):
        publisher.heatmap(heatmap(index))
        time.sleep(0.01)
"""

WITHOUT = """
import resource, sys
from tests.support.feeds import publishing
with publishing(sys.argv[1]):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))
    print("publishing", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def endpoint() -> str:
    return free_endpoint()


@pytest.fixture
def publisher(endpoint: str) -> Iterator[Publisher]:
    with publishing(endpoint) as publisher:
        yield publisher


@contextmanager
def subscriber(endpoint: str, *prefixes: bytes) -> Iterator["zmq.Socket[bytes]"]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        with context.socket(zmq.SUB) as subscribed:
            subscribed.linger = 0
            subscribed.connect(endpoint)
            for prefix in prefixes:
                subscribed.subscribe(prefix)
            yield subscribed
    finally:
        context.term()


def address(endpoint: str) -> tuple[str, int]:
    return "127.0.0.1", int(endpoint.rpartition(":")[2])


def idle(endpoint: str, count: int, held: ExitStack) -> list[socket.socket]:
    """Connections that say nothing."""
    return [held.enter_context(socket.create_connection(address(endpoint))) for _ in range(count)]


def ended(line: socket.socket) -> bool:
    """Whether the other side has ended it; what it greeted with is read away."""
    line.setblocking(False)
    try:
        while line.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


def test_idle_connections_are_ended_oldest_first_and_a_reader_comes_in(
    publisher: Publisher, endpoint: str
) -> None:
    with ExitStack() as held:
        lines = idle(endpoint, 200, held)
        until(lambda: sum(map(ended, lines)) >= 200 - IDLE_MAX)
        with HeatmapSubscriber(endpoint) as feed:
            publish_until(publisher, lambda: feed._newest)


def test_more_connections_than_descriptors_do_not_end_it(
    endpoint: str, begin: Callable[..., subprocess.Popen[str]]
) -> None:
    process = begin([sys.executable, "-c", PUBLISHER, endpoint], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline()
    with HeatmapSubscriber(endpoint) as feed, ExitStack() as held:
        until(lambda: feed._newest)
        for _ in range(2):
            idle(endpoint, 250, held)
            last = feed._newest.sequence
            until(lambda: feed._newest.sequence > last + 5)  # noqa: B023
        assert feed.restarts == 0
        with HeatmapSubscriber(endpoint) as late:
            until(lambda: late._newest)
    assert process.poll() is None


def test_a_caller_that_no_descriptor_is_left_for_holds_up_nothing(
    endpoint: str, begin: Callable[..., subprocess.Popen[str]]
) -> None:
    """libzmq tries, and says so, without end: the publisher goes on, and so it can be closed."""
    command = [sys.executable, "-c", WITHOUT, endpoint]
    process = begin(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline()
    with ExitStack() as held:
        idle(endpoint, 3, held)
        process.communicate("\n", timeout=60)
    assert process.returncode == 0


def test_who_comes_while_the_publisher_stands_still_is_heard_afterwards(
    endpoint: str, begin: Callable[..., subprocess.Popen[str]]
) -> None:
    """A call that finds the queue full is dropped, and repeated after a second at the earliest."""
    process = begin([sys.executable, "-c", PUBLISHER, endpoint], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGSTOP)
    try:
        with ExitStack() as held:
            for _ in range(300):
                held.enter_context(socket.create_connection(address(endpoint), 0.9))
    finally:
        process.send_signal(signal.SIGCONT)
    with HeatmapSubscriber(endpoint) as feed:
        until(lambda: feed._newest)


def test_subscribers_beyond_the_limit_are_ended_and_the_first_stay(
    publisher: Publisher, endpoint: str
) -> None:
    with HeatmapSubscriber(endpoint) as feed, ExitStack() as held:
        publish_until(publisher, lambda: feed._newest)
        context = held.enter_context(zmq.Context())
        late = [held.enter_context(context.socket(zmq.SUB)) for _ in range(CONNECTIONS_MAX + 20)]
        for each in late:
            each.subscribe(b"heat/")
            each.connect(endpoint)

        def as_many_as_may() -> bool:
            for each in late:  # libzmq subscribes again when it is called
                each.poll(0)
            return publisher._sockets.subscribers >= CONNECTIONS_MAX - 1

        publish_until(publisher, as_many_as_may)
        last = feed._newest.sequence
        publish_until(publisher, lambda: feed._newest.sequence > last + 20)
        assert publisher._sockets.subscribers <= CONNECTIONS_MAX
        assert feed.restarts == 0


def test_a_subscriber_of_anything_and_everything_takes_no_memory(
    publisher: Publisher, endpoint: str
) -> None:
    """10,000 prefixes of 1,000 bytes took a quarter of a gigabyte; the reader beside goes on."""

    def rss_mib() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20

    code = f"""
import zmq
with zmq.Context() as context, context.socket(zmq.SUB) as socket:
    socket.linger = 0
    socket.connect({endpoint!r})
    for index in range(10_000):
        socket.subscribe(b"%08d" % index + bytes(990))
    print("subscribed", flush=True)
    socket.poll(500)
"""
    with HeatmapSubscriber(endpoint) as feed:
        publish_until(publisher, lambda: feed._newest)
        before_mib = rss_mib()
        hostile = subprocess.Popen([sys.executable, "-c", code])
        publish_until(publisher, lambda: hostile.poll() is not None)
        assert hostile.wait() == 0
        grown_mib = rss_mib() - before_mib
        assert grown_mib < 50, grown_mib
        assert feed.restarts == 0
        last = feed._newest.sequence
        publish_until(publisher, lambda: feed._newest.sequence > last + 5)


def test_subscriptions_to_other_topics_do_not_count(publisher: Publisher, endpoint: str) -> None:
    """One socket may read several publishers: it tells each of them of all its topics."""
    others = [b"heat/cam%d" % index + bytes(4) for index in range(1, SUBSCRIPTIONS_MAX - 1)]
    with subscriber(endpoint, *others) as patient:
        time.sleep(0.3)
        assert publisher._sockets.subscribers == 0
        patient.subscribe(b"heat/cam0")
        publish_until(publisher, lambda: patient.poll(0))
        assert publisher._sockets.subscribers == 1


@pytest.mark.parametrize(
    "prefix", [b"", b"h", b"heat/", b"heat/cam0", b"heat/cam0".ljust(32, b"\0")]
)
def test_every_prefix_of_its_own_topic_is_accepted(
    publisher: Publisher, endpoint: str, prefix: bytes
) -> None:
    with subscriber(endpoint, prefix) as reader:
        publish_until(publisher, lambda: reader.poll(0))
