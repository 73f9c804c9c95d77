"""The ROS 2 bridge as its launch file starts it, with the graph's other end in another process.

ROS has an environment of its own, as on a robot: its wheels start every interpreter of theirs anew.
`ROS_PYTHON` names the interpreter, which `.ci/run` installs.
"""

import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from denseav.stream.feed import client
from denseav.stream.feed.publisher import Publisher
from tests.support.feeds import free_endpoint, heatmap, publish_until, publishing
from tests.support.stalls import thrice, until

pytestmark = [
    pytest.mark.realtime,
    pytest.mark.skipif("ROS_PYTHON" not in os.environ, reason="ROS_PYTHON names no interpreter"),
]
EXAMPLE = Path(str(client.__file__)).parents[1] / "examples" / "ros2_bridge.py"
LAUNCH = EXAMPLE.with_name("ros2_bridge.launch.xml")
Begin = Callable[..., subprocess.Popen[str]]

# Prints a line for each message: its topic, its age and what matters of it.
LISTENER = """
import json, time
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PointStamped
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image

def told(topic, what):
    def tell(message):
        stamp = message.header.stamp
        age_ms = 1000 * (time.time() - stamp.sec - stamp.nanosec / 1e9)
        print(json.dumps([topic, age_ms, what(message)]), flush=True)
    return tell

rclpy.init()
node = rclpy.create_node("listener")
for topic, kind, what in (
    ("/denseav_bridge/sound/heat", Image, lambda m: [m.encoding, m.height, m.width, len(m.data)]),
    ("/denseav_bridge/speech/heat", Image, lambda m: m.header.frame_id),
    ("/denseav_bridge/sound/peak", PointStamped, lambda m: [m.point.x, m.point.y, m.point.z]),
    ("/denseav_bridge/overlay", CompressedImage, lambda m: bytes(m.data[:3]).hex()),
    ("/diagnostics", DiagnosticArray, lambda m: [m.status[0].level[0], m.status[0].message]),
):
    node.create_subscription(kind, topic, told(topic, what), qos_profile_sensor_data)
rclpy.spin(node)
"""


def launched(folder: Path, endpoint: str) -> list[str]:
    """The command of the launch file, put together as launch does it: it splits each text alone."""
    root = ElementTree.parse(LAUNCH).getroot()
    values = {each.attrib["name"]: each.attrib["default"] for each in root.iter("arg")}
    values |= {"endpoint": endpoint, "dirname": str(folder)}
    (executable,) = root.iter("executable")
    parts = re.split(r"\$\((?:var )?(\w+)\)", executable.attrib["cmd"])
    for text in parts[::2]:
        shlex.split(text)  # or launch refuses it
    parts[1::2] = [shlex.quote(values[name]) for name in parts[1::2]]
    python, *arguments = shlex.split("".join(parts))
    assert python == "python3"
    return [os.environ["ROS_PYTHON"], *arguments]


class Graph:
    """A bridge and who listens to it."""

    def __init__(self, folder: Path, begin: Begin, endpoint: str) -> None:
        shutil.copy(EXAMPLE, folder / "ros2_bridge.py")
        shutil.copy(str(client.__file__), folder / "feed_client.py")
        python = os.environ["ROS_PYTHON"]
        domain = {"ROS_DOMAIN_ID": str(secrets.randbelow(100) + 1), "ROS_LOG_DIR": str(folder)}
        environment = {**os.environ, **domain, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        self._heard, self._said = folder / "heard", folder / "said"
        with self._heard.open("w") as heard, self._said.open("w") as said:
            begin([python, "-c", LISTENER], stdout=heard, env=environment)
            command = launched(folder, endpoint)
            self.bridge = begin(command, cwd=folder, env=environment, stderr=said)

    def heard(self, topic: str) -> list[Any]:
        lines = self._heard.read_text().splitlines(keepends=True)
        heard = [json.loads(line) for line in lines if line.endswith("\n")]
        return [each for each in heard if each[0] == topic]

    def said(self) -> str:
        return self._said.read_text()


@thrice
def test_the_bridge_passes_on_what_is_fresh_and_nothing_else(tmp_path: Path, begin: Begin) -> None:
    folder = tmp_path / secrets.token_hex(4)
    folder.mkdir()
    endpoint = free_endpoint()
    graph = Graph(folder, begin, endpoint)

    def everything() -> bool:
        topics = ("sound/heat", "speech/heat", "sound/peak", "overlay")
        lively = [each for each in graph.heard("/diagnostics") if each[2][1].startswith("live")]
        return lively and all(len(graph.heard(f"/denseav_bridge/{each}")) > 20 for each in topics)

    with publishing(endpoint, preview=True) as publisher:
        publish_until(publisher, everything, fps=30)
    assert graph.heard("/denseav_bridge/sound/heat")[0][2] == ["32FC1", 4, 6, 96]
    assert graph.heard("/denseav_bridge/speech/heat")[0][2] == "cam0"
    assert graph.heard("/denseav_bridge/sound/peak")[0][2][:2] == [480.0, 300.0]
    assert graph.heard("/denseav_bridge/overlay")[0][2] == "ffd8ff"
    ages_ms = [each[1] for each in graph.heard("/denseav_bridge/sound/heat")]
    assert max(ages_ms) < 500
    assert sorted(ages_ms)[len(ages_ms) // 2] < 100
    time.sleep(0.4)  # 200 ms of a fresh message, and the way
    before = len(graph.heard("/denseav_bridge/sound/heat"))
    until(lambda: graph.heard("/diagnostics")[-1][2][0] == 3)  # stale
    assert len(graph.heard("/denseav_bridge/sound/heat")) == before
    graph.bridge.terminate()
    assert graph.bridge.wait(20) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_without_a_traceback_while_messages_flow(
    tmp_path: Path, begin: Begin, number: signal.Signals
) -> None:
    endpoint = free_endpoint()
    graph = Graph(tmp_path, begin, endpoint)

    def stopped(publisher: Publisher) -> None:
        publish_until(publisher, lambda: graph.heard("/denseav_bridge/sound/heat"), fps=30)
        graph.bridge.send_signal(number)
        publish_until(publisher, lambda: graph.bridge.poll() is not None, fps=30)

    with publishing(endpoint) as publisher:
        stopped(publisher)
        publisher.heatmap(heatmap())
    assert graph.bridge.returncode == 0, graph.said()
    assert "Traceback" not in graph.said()
