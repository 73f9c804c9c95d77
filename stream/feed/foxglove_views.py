"""The views of a recorded message: `HeatMessage` in, images and annotations by Foxglove out.

For people, in Foxglove or Rerun: each head's map, peaks and boxes, and the preview, where there is
one. They stand beside the message's own bytes in a recording, and nothing here reads them again.
"""

from collections.abc import Iterator

from foxglove.messages import (
    CircleAnnotation,
    Color,
    CompressedImage,
    ImageAnnotations,
    Point2,
    PointsAnnotation,
    PointsAnnotationType,
    RawImage,
    TextAnnotation,
    Timestamp,
)

from denseav.stream.feed.client import Head, HeatMessage

_SECONDS_END = 1 << 32  # of a timestamp
_COLOURS = (Color(r=1.0, g=0.6, b=0.0, a=1.0), Color(r=0.3, g=0.6, b=1.0, a=1.0))
_FONT_PX = 16.0

View = RawImage | CompressedImage | ImageAnnotations


def views(message: HeatMessage) -> Iterator[tuple[str, View]]:
    """Yield the topic and the view for all there is to see of a message.

    Its times are those of the capture, by the publisher's wall clock.
    """
    camera = str(message.header["camera"])
    seconds, nanoseconds = divmod(message.capture_ns + message.header["unix_offset_ns"], 10**9)
    at = Timestamp(seconds if 0 <= seconds < _SECONDS_END else 0, nanoseconds)
    for head, heat_HW in zip(message.heads.values(), message.maps_KHW, strict=True):
        rows, columns = heat_HW.shape
        data = heat_HW.astype("<f4").tobytes()
        size = {"width": columns, "height": rows, "step": 4 * columns}
        yield (
            f"/{camera}/heat/{head.name}",
            RawImage(timestamp=at, frame_id=camera, encoding="32FC1", data=data, **size),
        )
    yield f"/{camera}/places", _places(message, at)
    if message.preview_jpeg:
        yield (
            f"/{camera}/preview",
            CompressedImage(
                timestamp=at, frame_id=camera, data=message.preview_jpeg, format="jpeg"
            ),
        )


def _places(message: HeatMessage, at: Timestamp) -> ImageAnnotations:
    """Return peaks, boxes and names, in pixels of the frame."""
    found = [
        (head, _COLOURS[index % len(_COLOURS)])
        for index, head in enumerate(message.heads.values())
        if head.box is not None and head.peak is not None
    ]
    return ImageAnnotations(
        timestamp=at,
        circles=[_peak(head, colour, at) for head, colour in found],
        points=[_box(head, colour, at) for head, colour in found],
        texts=[_name(head, colour, at) for head, colour in found],
    )


def _peak(head: Head, colour: Color, at: Timestamp) -> CircleAnnotation:
    x, y = head.peak or ()
    return CircleAnnotation(
        timestamp=at, position=Point2(x=x, y=y), diameter=10.0, thickness=2.0, outline_color=colour
    )


def _box(head: Head, colour: Color, at: Timestamp) -> PointsAnnotation:
    left, top, right, bottom = head.box or ()
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return PointsAnnotation(
        timestamp=at,
        type=PointsAnnotationType.LineLoop,
        points=[Point2(x=x, y=y) for x, y in corners],
        outline_color=colour,
        thickness=2.0,
    )


def _name(head: Head, colour: Color, at: Timestamp) -> TextAnnotation:
    left, top, *_ = head.box or ()
    return TextAnnotation(
        timestamp=at,
        position=Point2(x=left, y=top),
        text=f"{head.name} {head.score:.2f}",
        font_size=_FONT_PX,
        text_color=colour,
    )
