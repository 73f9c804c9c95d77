"""The ROS 2 bridge against its targets: how late its messages are, and how it stops.

    ROS_PYTHON=/path/to/python python -m benchmarks.live.ros [--seconds N] [--stops N]

A publisher of the feed here, the bridge as it is, and a listener, each in a process of its own;
`ROS_PYTHON` has rclpy. `age` is from giving a heatmap to the feed until the listener has the map
as an Image: through the feed, the bridge and ROS; `way` is the last part of it, from the bridge's
publishing on. Then bridges are started and stopped while
messages flow, by SIGINT and SIGTERM in turn, after a random while.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.live.feed_latency import Pipeline, percentile, publishing
from benchmarks.support.common import Check, at_least, at_most, finish, say
from denseav.stream.feed import client

EXAMPLE = Path(str(client.__file__)).parents[1] / "examples" / "ros2_bridge.py"
FPS = 30.0
_LONGEST_S = 60.0  # that a bridge may take to be heard, or to end
LISTENER = """
import time
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

def heard(message, about):
    now_ns, stamp = time.time_ns(), message.header.stamp
    capture_ns = 10**9 * stamp.sec + stamp.nanosec
    print((now_ns - capture_ns) / 1e6, (now_ns - about["source_timestamp"]) / 1e6, flush=True)

rclpy.init()
node = rclpy.create_node("listener")
node.create_subscription(Image, "/denseav_bridge/sound/heat", heard, qos_profile_sensor_data)
rclpy.spin(node)
"""


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="of listening; default: 30")
    parser.add_argument("--stops", type=int, default=100, help="default: 100")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, publishing() as (publisher, endpoint):
        rig = Rig(Path(name), endpoint)
        pipeline, ended = Pipeline(publisher, FPS), threading.Event()
        flow = threading.Thread(target=pipeline.run, args=(float("inf"), ended.is_set))
        flow.start()
        try:
            with rig.running("listener", "-c", LISTENER):
                record: dict[str, Any] = _listened(rig, options.seconds)
                record |= {"stops": [rig.stop(number) for number in range(options.stops)]}
        finally:
            ended.set()
            flow.join()
    return finish([_table(record)], {"benchmark": "ros"} | record, _checks(record))


class Rig:
    """The folder of a bridge, and the processes of its graph."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self._folder = folder
        self._endpoint = endpoint
        self._chance = random.Random(0)
        self._environment = os.environ | {
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_DOMAIN_ID": "57",
            "ROS_LOG_DIR": str(folder),
        }
        shutil.copy(EXAMPLE, folder / "ros2_bridge.py")
        shutil.copy(str(client.__file__), folder / "feed_client.py")

    @contextmanager
    def running(self, name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Run a ROS program whose lines go to files named after it."""
        command = [os.environ["ROS_PYTHON"], *arguments]
        with (
            (self._folder / f"{name}.out").open("w") as out,
            (self._folder / f"{name}.err").open("w") as err,
            subprocess.Popen(
                command, cwd=self._folder, env=self._environment, stdout=out, stderr=err, text=True
            ) as process,
        ):
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def bridge(self) -> Iterator[subprocess.Popen[str]]:
        """Run a bridge; it has been heard."""
        before = len(self.heard_ms())
        arguments = ["--ros-args", "-p", f"endpoint:={self._endpoint}"]
        with self.running("bridge", "ros2_bridge.py", *arguments) as process:
            end_s = time.monotonic() + _LONGEST_S
            while len(self.heard_ms()) == before:
                if time.monotonic() > end_s:
                    raise TimeoutError((self._folder / "bridge.err").read_text())
                time.sleep(0.05)
            yield process

    def heard_ms(self) -> list[list[float]]:
        """Return age and way of each message that the listener has heard."""
        lines = (self._folder / "listener.out").read_text().splitlines(keepends=True)
        return [[*map(float, line.split())] for line in lines if line.endswith("\n")]

    def stop(self, number: int) -> dict[str, Any]:
        """Start a bridge and stop it while messages flow; return how that went."""
        signals = (signal.SIGINT, signal.SIGTERM)
        with self.bridge() as process:
            time.sleep(self._chance.uniform(0, 0.3))
            begun_s = time.monotonic()
            process.send_signal(signals[number % 2])
            code = process.wait(_LONGEST_S)
            took_s = time.monotonic() - begun_s
        clean = code == 0 and "Traceback" not in (self._folder / "bridge.err").read_text()
        say(f"stop {number}: {'clean' if clean else 'NOT CLEAN'}, {took_s:.2f} s")
        return {"clean": clean, "seconds": took_s}


def _listened(rig: Rig, seconds: float) -> dict[str, Any]:
    with rig.bridge():
        time.sleep(2.0)  # until all have found each other
        first, begun_s = len(rig.heard_ms()), time.monotonic()
        time.sleep(seconds)
        heard_ms = rig.heard_ms()[first:]
        fps = len(heard_ms) / (time.monotonic() - begun_s)
    parts = dict(zip(("age", "way"), zip(*heard_ms, strict=True), strict=True))
    return {"fps": fps} | {
        name: {f"p{each}_ms": percentile(part, each) for each in (50, 95, 99)}
        for name, part in parts.items()
    }


def _table(record: dict[str, Any]) -> Table:
    table = Table("", "p50 ms", "p95 ms", "p99 ms", title=f"heat, {record['fps']:.1f} a second")
    for name in ("age", "way"):
        table.add_row(name, *(f"{value:.1f}" for value in record[name].values()))
    return table


def _checks(record: dict[str, Any]) -> list[Check]:
    stops = record["stops"]
    return [
        at_least("messages a second", record["fps"], 0.98 * FPS),
        at_most("way from the bridge to the listener, p99, ms", record["way"]["p99_ms"], 20.0),
        at_least("stops without a traceback", sum(each["clean"] for each in stops), len(stops)),
    ]


if __name__ == "__main__":
    sys.exit(main())
