"""A ROS 2 node that passes the feed on. NOT RUN HERE: it is written for rclpy of Humble and newer.

    python3 ros2_bridge.py --ros-args -p endpoint:=tcp://127.0.0.1:5557 -p keys:=/home/me/arm.client

Publishes, for each head NAME:

    ~/NAME/heat   sensor_msgs/Image           32FC1, the raw map, small
    ~/NAME/peak   geometry_msgs/PointStamped  x, y in pixels, z the score; only over threshold

Stamps are the frame's capture on the publisher's wall clock. Nothing is published while the feed is
stale: consumers keep their own watchdog on the stamps. Copy `stream/feed/client.py` beside
this file as `feed_client.py`.
"""
# mypy: ignore-errors

import numpy as np
import rclpy
from feed_client import FeedError, HeatmapSubscriber, HeatMessage
from geometry_msgs.msg import PointStamped
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image


class Bridge(Node):
    """Reads the newest heatmap on a timer and publishes it once."""

    def __init__(self) -> None:
        super().__init__("denseav_bridge")
        endpoint = self.declare_parameter("endpoint", "tcp://127.0.0.1:5557").value
        keys = self.declare_parameter("keys", "").value or None
        self.feed = HeatmapSubscriber(endpoint, keys)
        self.outputs: dict = {}
        self.last = ("", 0)
        self.create_timer(1 / 60, self.step)

    def step(self) -> None:
        """Publish the newest heatmap if it is fresh and was not published yet."""
        try:
            message = self.feed.read_latest(max_age_ms=200)
        except FeedError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=2.0)
            return
        if (message.run, message.sequence) != self.last:
            self.last = (message.run, message.sequence)
            for head, heat_HW in zip(message.heads.values(), message.maps_KHW, strict=True):
                self.publish(message, head, heat_HW)

    def publish(self, message: HeatMessage, head, heat_HW: np.ndarray) -> None:
        """Publish one head's map, and its peak where that means something."""
        if head.name not in self.outputs:
            self.outputs[head.name] = (
                self.create_publisher(Image, f"~/{head.name}/heat", qos_profile_sensor_data),
                self.create_publisher(PointStamped, f"~/{head.name}/peak", qos_profile_sensor_data),
            )
        heat, peak = self.outputs[head.name]
        image = Image(encoding="32FC1", height=heat_HW.shape[0], width=heat_HW.shape[1])
        image.step, image.data = 4 * heat_HW.shape[1], heat_HW.astype("<f4").tobytes()
        unix_ns = message.capture_ns + message.header["unix_offset_ns"]
        image.header.stamp.sec, image.header.stamp.nanosec = divmod(unix_ns, 10**9)
        image.header.frame_id = message.header["camera"]
        heat.publish(image)
        if head.box is not None:
            point = PointStamped(header=image.header)
            point.point.x, point.point.y, point.point.z = (*head.peak, head.score)
            peak.publish(point)


def main() -> None:
    """Run the node until it is interrupted."""
    rclpy.init()
    node = Bridge()
    try:
        rclpy.spin(node)
    except KeyboardInterrupt:
        pass
    finally:
        node.feed.close()
        node.destroy_node()


if __name__ == "__main__":
    main()
