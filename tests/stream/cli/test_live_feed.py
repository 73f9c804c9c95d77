"""`denseav-live --publish` under attack, as careless neighbours would do it."""

import resource
import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import av
import pytest

from denseav.stream.feed import keys as feed_keys
from denseav.stream.feed.client import HeatmapSubscriber
from tests.support.feeds import free_endpoint, make_keys
from tests.support.live_command import LiveProcess, live_here
from tests.support.ports import free_port
from tests.support.stalls import until

pytestmark = pytest.mark.realtime
DESCRIPTORS, FLOOD = 128, 200
PATIENCE_S = 60.0  # idle connections to the page keep theirs for 10 s


def test_floods_of_every_listener_with_few_descriptors_end_nothing(tmp_path: Path) -> None:
    """More connections than it has descriptors, on all its ports, while clients come and go."""
    endpoint, metrics, page, keys = free_endpoint(), free_port(), free_port(), tmp_path / "keys"
    arm = make_keys(keys, "arm")["arm"]
    process = LiveProcess(
        tmp_path,
        *("--demo", "--headless", "--publish", endpoint, "--publish-keys", keys),
        *("--prometheus", str(metrics), "--serve", str(page), "--camera-id", "front.left"),
        *("--record", "r.mp4"),
    )
    stop = threading.Event()

    def administer() -> None:
        while not stop.is_set():
            feed_keys.add_client(keys, "guest", tmp_path / "guest.client")
            feed_keys.revoke(keys, "guest")
            (tmp_path / "guest.client").unlink()

    administration = threading.Thread(target=administer)
    try:
        process.until("READY")
        pid = process.process.pid
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        administration.start()
        port = int(endpoint.rpartition(":")[2])
        with HeatmapSubscriber(endpoint, arm) as feed, ExitStack() as held:
            until(lambda: feed._newest, PATIENCE_S)
            assert feed._newest.header["camera"] == "front.left"
            for each in (page, port, port + 1, metrics):
                for _ in range(FLOOD):
                    held.enter_context(socket.create_connection(("127.0.0.1", each)))
                last = feed._newest.sequence
                until(lambda: feed._newest.sequence > last + 10, PATIENCE_S)  # noqa: B023
            assert feed.restarts == 0
            with HeatmapSubscriber(endpoint, arm) as late:
                until(lambda: late._newest, PATIENCE_S)
    finally:
        stop.set()
        if administration.ident:
            administration.join()
        process.process.terminate()
        assert process.end() == 0, "".join(process.said)
    assert not any("error" in line for line in process.said), process.said
    with av.open(str(tmp_path / "r.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) > 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--camera-id", "front left"), "25 letters"),
        (("--camera-id", "x" * 26), "25 letters"),
        (("--camera", "0", "--mic", "none"), "leave --mic none out"),
    ],
)
def test_what_a_feed_cannot_be_is_a_usage_error(
    options: tuple[str, ...], complaint: str, tmp_path: Path
) -> None:
    shown = () if "--camera" in options else ("--demo",)
    done = live_here(tmp_path, *shown, "--publish", "tcp://127.0.0.1:5557", *options)
    assert done.returncode == 2
    assert complaint in done.stderr
