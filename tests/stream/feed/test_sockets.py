"""Where a feed may be bound, and what is said when it may not."""

import socket

import pytest

from denseav.stream.errors import OutputError, UsageError
from denseav.stream.feed.errors import FeedAuthError
from denseav.stream.feed.publisher import CameraFeed, Publisher
from denseav.stream.feed.sockets import resolve
from denseav.stream.stats.stats import Stats
from tests.support.feeds import ORIGIN, free_endpoint, publishing


@pytest.fixture
def endpoint() -> str:
    return free_endpoint()


def test_a_port_in_use_is_one_line_with_a_remedy(endpoint: str) -> None:
    with publishing(endpoint), pytest.raises(OutputError, match=r"in use.*another port") as caught:
        Publisher(endpoint, [CameraFeed(origin=ORIGIN, snapshot=Stats().snapshot)])
    assert "\n" not in str(caught.value)


def test_a_status_port_in_use_is_said_and_frees_the_first(endpoint: str) -> None:
    port = int(endpoint.rpartition(":")[2])
    with (
        socket.create_server(("127.0.0.1", port + 1)),
        pytest.raises(OutputError, match=f"{port + 1}.*in use"),
    ):
        Publisher(endpoint, [CameraFeed(origin=ORIGIN, snapshot=Stats().snapshot)])
    with publishing(endpoint):
        pass


@pytest.mark.parametrize(
    "text",
    ["", "5557", "tcp://127.0.0.1", "tcp://127.0.0.1:0", "tcp://127.0.0.1:65535", "ipc:///tmp/x"],
)
def test_what_is_no_endpoint_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="an address and a port"):
        resolve(text)


def test_a_host_that_cannot_be_resolved_is_said() -> None:
    with pytest.raises(OutputError, match=r"cannot resolve the host 'no\.such\.invalid'"):
        resolve("tcp://no.such.invalid:5557")


@pytest.mark.parametrize(
    ("text", "heat", "loopback"),
    [
        ("tcp://127.0.0.1:5557", "tcp://127.0.0.1:5557", True),
        ("tcp://127.0.0.2:5557", "tcp://127.0.0.2:5557", True),
        ("tcp://[::1]:5557", "tcp://[::1]:5557", True),
        ("tcp://*:5557", "tcp://0.0.0.0:5557", False),
        ("tcp://0.0.0.0:5557", "tcp://0.0.0.0:5557", False),
        ("tcp://[::]:5557", "tcp://[::]:5557", False),
        ("tcp://192.0.2.7:5557", "tcp://192.0.2.7:5557", False),
    ],
)
def test_which_addresses_are_this_machine_only(text: str, heat: str, loopback: bool) -> None:
    assert (resolve(text).heat, resolve(text).loopback) == (heat, loopback)


def test_an_open_address_without_keys_is_refused_unless_spelled_out(endpoint: str) -> None:
    everywhere = endpoint.replace("127.0.0.1", "0.0.0.0")
    with pytest.raises(FeedAuthError, match="--insecure"):
        Publisher(everywhere, [CameraFeed(origin=ORIGIN, snapshot=Stats().snapshot)])
    Publisher(
        everywhere, [CameraFeed(origin=ORIGIN, snapshot=Stats().snapshot)], insecure=True
    ).close()
