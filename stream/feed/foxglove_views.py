"""What people look at of heat: heads in, images and annotations by Foxglove out.

For Foxglove or Rerun: each head's map, peaks and boxes. In a recording of a feed they stand beside
the message's own bytes, with the preview, where there is one; nothing here reads them again.
"""

from collections.abc import Iterable, Iterator

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
    at = timestamp(message.capture_ns + message.header["unix_offset_ns"])
    for head in message.heads.values():
        yield f"/{camera}/heat/{head.name}", map_view(head, camera, at)
    yield f"/{camera}/places", places_view(message.heads.values(), at)
    if message.preview_jpeg:
        yield f"/{camera}/preview", jpeg_view(message.preview_jpeg, camera, at)


def timestamp(unix_ns: int) -> Timestamp:
    """Return a time for a view; 1970 for one that it cannot hold."""
    seconds, nanoseconds = divmod(unix_ns, 10**9)
    return Timestamp(seconds if 0 <= seconds < _SECONDS_END else 0, nanoseconds)


def map_view(head: Head, camera: str, at: Timestamp) -> RawImage:
    """Return a head's map as an image of one float a cell."""
    rows, columns = head.heat.shape
    size = {"width": columns, "height": rows, "step": 4 * columns}
    data = head.heat.astype("<f4").tobytes()
    return RawImage(timestamp=at, frame_id=camera, encoding="32FC1", data=data, **size)


def jpeg_view(jpeg: bytes, camera: str, at: Timestamp) -> CompressedImage:
    """Return a picture."""
    return CompressedImage(timestamp=at, frame_id=camera, data=jpeg, format="jpeg")


def places_view(heads: Iterable[Head], at: Timestamp) -> ImageAnnotations:
    """Return peaks, boxes and names, in pixels of the frame."""
    found = [
        (head, _COLOURS[index % len(_COLOURS)])
        for index, head in enumerate(heads)
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
