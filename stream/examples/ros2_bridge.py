"""A ROS 2 node that passes the feed on; for rclpy of Humble and newer.

    python3 ros2_bridge.py --ros-args -p endpoint:=tcp://127.0.0.1:5557 -p keys:=/home/me/arm.client

Publishes, with the QoS of sensor data, for each head NAME:

    ~/NAME/heat    sensor_msgs/Image            32FC1, the raw map, small
    ~/NAME/peak    geometry_msgs/PointStamped   x, y in pixels, z the score; only over threshold
    ~/detections   vision_msgs/Detection2DArray where it is installed: boxes with scores
    ~/overlay      sensor_msgs/CompressedImage  heat on the preview; where there is one, and cv2
    /diagnostics   diagnostic_msgs/DiagnosticArray  the feed's status, once a second

Parameters are endpoint, keys, camera (one of several, by its id), max_age_ms (200) and frame_id
(the camera's id). Stamps are the
frame's capture on the publisher's wall clock. Nothing but diagnostics is published while the feed
is stale: consumers keep their own watchdog on the stamps. No callback waits, so that other nodes of
an executor run on. Copy `stream/feed/client.py` beside this file as `feed_client.py`.
"""
# mypy: ignore-errors

import os
import signal
from typing import Any

# A preview is at most so large; OpenCV reads it when it is loaded.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1280 * 1280))

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from feed_client import FeedError, Head, HeatmapSubscriber, HeatMessage, StatusSubscriber
from geometry_msgs.msg import PointStamped
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

try:
    from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose
except ImportError:
    Detection2DArray = None
try:
    import cv2
except ImportError:
    cv2 = None

STEP_S = 1 / 120  # between two looks for a new message
STATUS_MAX_AGE_MS = 1500
OUTPUTS_MAX = 64  # topics: a publisher could name its heads anew in each message
LEVELS = {"excellent": DiagnosticStatus.OK, "fair": DiagnosticStatus.OK}


class Bridge(Node):
    """Reads the newest heatmap on a timer and publishes it once."""

    def __init__(self) -> None:
        super().__init__("denseav_bridge")
        endpoint = self.declare_parameter("endpoint", "tcp://127.0.0.1:5557").value
        keys = self.declare_parameter("keys", "").value or None
        camera = self.declare_parameter("camera", "").value
        self.max_age_ms = self.declare_parameter("max_age_ms", 200.0).value
        self.frame_id = self.declare_parameter("frame_id", "").value
        address, _, port = endpoint.rpartition(":")
        self.feed = HeatmapSubscriber(endpoint, keys, camera=camera)
        self.status = StatusSubscriber(f"{address}:{int(port) + 1}", keys, camera=camera)
        self.outputs: dict[str, Any] = {}
        self.last = ("", 0)
        self.diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(STEP_S, self.step)
        self.create_timer(1.0, self.diagnose)

    def step(self) -> None:
        """Publish the newest heatmap if it is fresh and was not published yet."""
        try:
            message = self.feed.read_latest(self.max_age_ms, timeout_ms=0)
        except FeedError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=2.0)
            return
        if (message.run, message.sequence) != self.last:
            self.last = (message.run, message.sequence)
            try:
                self.publish(message)
            except Exception as error:  # noqa: BLE001 - what cannot be said in ROS costs its message alone
                words = f"a message cannot be passed on: {type(error).__name__}: {error}"
                self.get_logger().warning(words, throttle_duration_sec=2.0)

    def publish(self, message: HeatMessage) -> None:
        """Publish all there is to a message."""
        header = Header(frame_id=self.frame_id or message.header["camera"])
        unix_ns = message.capture_ns + message.header["unix_offset_ns"]
        header.stamp.sec, header.stamp.nanosec = divmod(unix_ns, 10**9)
        for head, heat_HW in zip(message.heads.values(), message.maps_KHW):  # noqa: B905
            name = "".join(c if c.isascii() and c.isalnum() else "_" for c in head.name)
            name = name if name[:1].isalpha() else f"head_{name}"
            image = Image(header=header, encoding="32FC1", step=4 * heat_HW.shape[1])
            image.height, image.width = heat_HW.shape
            image.data = heat_HW.astype("<f4").tobytes()
            self.output(f"~/{name}/heat", Image).publish(image)
            if head.box is not None:
                point = PointStamped(header=header)
                point.point.x, point.point.y, point.point.z = (*head.peak, head.score)
                self.output(f"~/{name}/peak", PointStamped).publish(point)
        if Detection2DArray is not None:
            found = [detection(head, header) for head in message.heads.values() if head.box]
            detections = Detection2DArray(header=header, detections=found)
            self.output("~/detections", Detection2DArray).publish(detections)
        if message.preview_jpeg and cv2 is not None:
            picture = CompressedImage(header=header, format="jpeg", data=overlay(message))
            self.output("~/overlay", CompressedImage).publish(picture)

    def output(self, topic: str, kind: type) -> Any:
        """Return the publisher of a topic, made when it is first needed."""
        if topic not in self.outputs:
            if len(self.outputs) >= OUTPUTS_MAX:
                raise ValueError("it has other heads than those before it")
            self.outputs[topic] = self.create_publisher(kind, topic, qos_profile_sensor_data)
        return self.outputs[topic]

    def diagnose(self) -> None:
        """Publish how the feed does."""
        said = DiagnosticStatus(name="denseav: feed", hardware_id="denseav")
        try:
            status = self.status.read_latest(STATUS_MAX_AGE_MS, timeout_ms=0)
            said.level = LEVELS.get(status.health, DiagnosticStatus.WARN)
            said.message = f"{status.state}, {status.health}"
            shown = {"gaps": self.feed.gaps, "restarts": self.feed.restarts, "run": status.run}
            shown |= {source.kind: source.state for source in status.sources}
            shown |= {name: status.header.get(name) for name in ("fps_out", "latency_p95_ms")}
            said.values = [KeyValue(key=key, value=str(value)) for key, value in shown.items()]
        except FeedError as error:
            said.level, said.message = DiagnosticStatus.STALE, str(error)
        array = DiagnosticArray(status=[said])
        array.header.stamp = self.get_clock().now().to_msg()
        self.diagnostics.publish(array)

    def close(self) -> None:
        """Stop receiving, then leave the graph."""
        self.feed.close()
        self.status.close()
        self.destroy_node()


def detection(head: Head, header: Header) -> Any:
    """Return a head's box with its score."""
    left, top, right, bottom = head.box
    found = Detection2D(header=header)
    found.bbox.center.position.x, found.bbox.center.position.y = (
        (left + right) / 2,
        (top + bottom) / 2,
    )
    found.bbox.size_x, found.bbox.size_y = right - left, bottom - top
    hypothesis = ObjectHypothesisWithPose()
    hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = head.name, head.score
    found.results = [hypothesis]
    return found


def overlay(message: HeatMessage) -> bytes:
    """Return the preview with the heat of all heads over it, as JPEG."""
    picture_HW3 = cv2.imdecode(np.frombuffer(message.preview_jpeg, np.uint8), cv2.IMREAD_COLOR)
    if picture_HW3 is None:
        raise ValueError("its preview is no picture")
    height, width = picture_HW3.shape[:2]
    strength_HW = np.zeros((height, width), np.float32)
    for head, heat_HW in zip(message.heads.values(), message.maps_KHW):  # noqa: B905
        if head.valid:
            above = (heat_HW - head.threshold) / max(head.ceiling - head.threshold, 1e-6)
            full_HW = cv2.resize(above.astype(np.float32), (width, height))
            strength_HW = np.maximum(strength_HW, np.clip(full_HW, 0, 1))
    colour_HW3 = cv2.applyColorMap((255 * strength_HW).astype(np.uint8), cv2.COLORMAP_INFERNO)
    share_HW1 = 0.7 * strength_HW[..., None]
    blended_HW3 = (picture_HW3 * (1 - share_HW1) + colour_HW3 * share_HW1).astype(np.uint8)
    return cv2.imencode(".jpg", blended_HW3)[1].tobytes()


def main() -> None:
    """Run the node until SIGINT or SIGTERM."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    bridge, executor = Bridge(), SingleThreadedExecutor()
    executor.add_node(bridge)
    # rclpy's own handlers end its context under a callback that is publishing.
    ended: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: ended.append(received))
    try:
        while not ended:
            executor.spin_once(timeout_sec=0.1)
    except ExternalShutdownException:
        pass
    finally:
        bridge.close()
        executor.shutdown()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
