"""The format: golden bytes, what is refused, and that nothing else is ever raised."""

import dataclasses
import json
import re
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from denseav.stream.feed.client import PREFIX, FeedFormatError, SourceReport, decode, decode_status
from denseav.stream.feed.message import (
    Envelope,
    default_camera_id,
    heat_fields,
    preview_jpeg,
    region,
)
from tests.support.feeds import ORIGIN, RUN, heat, heatmap, message

GOLDEN = Path(__file__).parents[2] / "golden"


def repacked(data: bytes, header: Any = None, **prefix: Any) -> bytes:
    """The message with another header or other fields of the prefix, lengths put right."""
    names = "topic magic major minor prefix size maps preview heads rows columns r s seq run"
    fields = dict(zip(names.split(), PREFIX.unpack_from(data), strict=True))
    body = data[fields["prefix"] + fields["size"] :]
    text = data[fields["prefix"] : fields["prefix"] + fields["size"]]
    if header is not None:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        fields["size"] = len(text)
    fields |= prefix
    return PREFIX.pack(*fields.values()) + text + body


def header_of(data: bytes) -> dict[str, Any]:
    return dict(decode(data).header)


def test_a_message_of_version_1_0_still_says_what_it_said() -> None:
    decoded = decode((GOLDEN / "feed_heat_1_0.bin").read_bytes())
    assert (decoded.run, decoded.sequence) == (RUN.hex(), 7)
    assert (decoded.capture_ns, decoded.publish_ns) == (1_000_000_000_000, 1_000_020_000_000)
    assert decoded.frame_size == (640, 480)
    assert list(decoded.heads) == ["speech", "sound"]
    sound = decoded.heads["sound"]
    assert (sound.valid, sound.score, sound.threshold, sound.ceiling) == (True, 0.75, 0.25, 0.75)
    assert sound.peak == (480.0, 300.0)
    assert sound.box == (320.0, 120.0, 533.333, 360.0)
    assert decoded.heads["speech"].box is None
    np.testing.assert_array_equal(decoded.maps_KHW, heat().astype(np.float16))
    assert decoded.header["audio_start_ns"] == 999_700_000_000
    assert decoded.header["drops"] == {"model_busy": 3}
    assert decoded.preview_jpeg == b""


def test_a_message_with_a_preview_of_version_1_0_still_says_what_it_said() -> None:
    decoded = decode((GOLDEN / "feed_preview_1_0.bin").read_bytes())
    picture = cv2.imdecode(np.frombuffer(decoded.preview_jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (480, 640, 3)
    np.testing.assert_array_equal(decoded.maps_KHW, heat().astype(np.float16))


def test_a_status_of_version_1_0_still_says_what_it_said() -> None:
    decoded = decode_status((GOLDEN / "feed_status_1_0.bin").read_bytes())
    assert (decoded.state, decoded.health, decoded.replay) == ("live", "excellent", False)
    assert (decoded.run, decoded.sequence) == (RUN.hex(), 3)
    assert decoded.header["audio_dbfs"] == -20.0
    assert decoded.sources == ()


def test_a_status_of_version_1_1_still_says_what_it_said() -> None:
    decoded = decode_status((GOLDEN / "feed_status_1_1.bin").read_bytes())
    assert (decoded.state, decoded.health, decoded.replay) == ("camera_lost", "unusable", False)
    assert decoded.sources == (
        SourceReport("camera", "lost", 2500, 3),
        SourceReport("microphone", "running", 60_000, 0),
    )


def test_the_encoder_still_writes_the_golden_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    golden = (GOLDEN / "feed_heat_1_1.bin").read_bytes()
    monkeypatch.setattr("time.monotonic_ns", lambda: 1_000_020_000_000)
    monkeypatch.setattr("time.time_ns", lambda: 1_790_000_000_000_000_000)
    envelope = Envelope("heat", "cam0", RUN)
    envelope._host, envelope.sequence = "golden", 6
    fields, maps_KHW = heat_fields(ORIGIN, heatmap(0, capture_s=1000.0), {"model_busy": 3})
    assert envelope.seal(fields, maps_KHW) == golden


def test_unknown_fields_and_a_higher_minor_version_are_ignored() -> None:
    data = message()
    newer = repacked(data, header_of(data) | {"mood": ["new"]}, minor=9)
    assert decode(newer).heads == decode(data).heads


def test_a_longer_prefix_of_a_later_minor_version_is_skipped() -> None:
    data = repacked(message(), prefix=96)
    longer = data[: PREFIX.size] + bytes(8) + data[PREFIX.size :]
    np.testing.assert_array_equal(decode(longer).maps_KHW, heat().astype(np.float16))


@pytest.mark.parametrize(
    ("prefix", "complaint"),
    [
        ({"magic": b"EVIL"}, "magic"),
        ({"major": 2}, r"version is 2\.1"),
        ({"prefix": 0}, "prefix or header"),
        ({"size": 1 << 20}, "prefix or header"),
        ({"maps": 4}, "shape"),
        ({"preview": 1}, "add up"),
        ({"heads": 65535, "rows": 65535, "columns": 65535}, "shape"),
        ({"topic": b"heat/other"}, "topic"),
        ({"topic": b"status/cam0"}, "topic"),
    ],
)
def test_a_prefix_that_is_not_so_is_refused(prefix: dict[str, Any], complaint: str) -> None:
    with pytest.raises(FeedFormatError, match=complaint):
        decode(repacked(message(), **prefix))


@pytest.mark.parametrize(
    "change",
    [
        {"camera": ["cam0"]},
        {"camera": "cam0\x1b[2J"},
        {"publish_ns": 1.5},
        {"publish_ns": True},
        {"capture_ns": 1 << 62 | 1},
        {"capture_ns": 1 << 61},
        {"frame_size": [0, 480]},
        {"frame_size": [640]},
        {"frame_size": 640},
        {"heads": []},
        {"heads": {}},
        {"heads": [1, 2]},
        {"heat_to_pixel": [1, 0, 0]},
        {"heat_to_pixel": ["a"] * 9},
        {"heat_to_pixel": [1e300] * 9},
        {"heat_to_pixel": [0] * 9},
        {"heat_to_pixel": [1, 0, 0, 1, 0, 0, 0, 0, 1]},
        {"host": None},
        {"heat_to_pixel": [213.3, 0, 0, 0, 120, 0, 0, 0, 1]},
        {"heat_to_pixel": [106.667, 0, 0, 0, 120, 0, 0.1, 0, 1]},
        {"heat_to_pixel": [-106.667, 0, 640, 0, 120, 0, 0, 0, 1]},
        {"audio_start_ns": 2, "audio_end_ns": 1},
        {"skew_ms": "late"},
        {"audio_dbfs": [1]},
        {"model": "\x1b[2J"},
        {"drops": {"model_busy": 1.5}},
        {"drops": 3},
        {"unknown": [{"deep": 1e999}]},
        {"unknown": 10**400},
    ],
)
def test_a_header_that_is_not_so_is_refused(change: dict[str, Any]) -> None:
    data = message()
    with pytest.raises(FeedFormatError):
        decode(repacked(data, header_of(data) | change))


@pytest.mark.parametrize("name", ["camera", "heads", "capture_ns", "publish_ns", "heat_to_pixel"])
def test_a_missing_field_is_refused(name: str) -> None:
    data = message()
    header = header_of(data)
    del header[name]
    with pytest.raises(FeedFormatError):
        decode(repacked(data, header))


@pytest.mark.parametrize(
    "change",
    [
        {"valid": 1},
        {"valid": False},
        {"score": None},
        {"peak": [1]},
        {"peak": [641, 0]},
        {"peak": "ab"},
        {"box": [0, 0, 640, -1]},
        {"box": []},
        {"box": [533.3, 120, 320, 360]},
        {"box": [320, 360, 533.3, 120]},
        {"box": [320, 120, 320, 360]},
        {"peak": None},
        {"score": 0.7},
        {"ceiling": None},
        {"ceiling": 0.25},
        {"threshold": 0.8, "ceiling": 0.9},
        {"peak": [53.333, 60]},
        {"peak": [53.333, 60], "box": [0, 0, 640, 480]},
        {"box": [0, 0, 106.667, 120]},
        {"peak": None, "box": None},
        {"name": "speech"},
        {"name": 3},
    ],
)
def test_a_head_that_is_not_so_is_refused(change: dict[str, Any]) -> None:
    data = message()
    header = header_of(data)
    header["heads"][1] |= change
    with pytest.raises(FeedFormatError):
        decode(repacked(data, header))


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 8000,
        b'{"camera":' * 700,
        b"\xff\xfe",
        b"[]",
        b"1" * 8000,
        b'{"camera":"\\ud800"}',
        b"{}",
        b'{"publish_ns":NaN}',
    ],
)
def test_hostile_json_is_refused(header: bytes) -> None:
    with pytest.raises(FeedFormatError):
        decode(repacked(message(), header))


def test_numbers_that_are_none_are_refused() -> None:
    data = message()
    text = json.dumps(header_of(data)).replace('"score": 0.75', '"score": Infinity')
    assert "Infinity" in text
    with pytest.raises(FeedFormatError, match="score"):
        decode(repacked(data, text.encode()))


@pytest.mark.parametrize(
    "change",
    [{"fps_in": "many"}, {"latency_p50_ms": [1]}, {"published": 1.5}, {"later": 10**400}],
)
def test_a_status_with_figures_that_are_none_is_refused(change: dict[str, Any]) -> None:
    fields = {"state": "live", "health": "fair", "replay": False, "fps_in": 30.0, "drops": {}}
    data = Envelope("status", "cam0", RUN).seal(fields, None)
    status = decode_status(data)
    with pytest.raises(FeedFormatError):
        decode_status(repacked(data, status.header | change))


def test_maps_that_are_not_numbers_are_refused() -> None:
    data = bytearray(message())
    data[-2:] = struct.pack("<e", float("nan"))
    with pytest.raises(FeedFormatError, match="numbers"):
        decode(bytes(data))


def test_every_shorter_and_longer_message_is_refused() -> None:
    data = message()
    for length in range(len(data)):
        with pytest.raises(FeedFormatError):
            decode(data[:length])
    with pytest.raises(FeedFormatError):
        decode(data + b"\0")


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_the_one_exception(noise: bytes) -> None:
    with pytest.raises(FeedFormatError):
        decode(noise)
    with pytest.raises(FeedFormatError):
        decode_status(noise)


@given(st.integers(0, len(message()) - 1), st.integers(1, 255))
def test_any_byte_may_be_wrong(index: int, flip: int) -> None:
    data = bytearray(message())
    data[index % len(data)] ^= flip
    with suppress(FeedFormatError):
        decode(bytes(data))


def test_the_maps_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        decode(message()).maps_KHW[0, 0, 0] = 1


def test_the_matrix_takes_cells_to_pixels() -> None:
    matrix_33 = decode(message()).heat_to_pixel_33
    np.testing.assert_allclose(matrix_33 @ (6, 4, 1), (640, 480, 1))
    np.testing.assert_allclose(matrix_33 @ (4.5, 2.5, 1), (480, 300, 1))


def test_the_region_is_the_cells_that_hang_together_with_the_peak() -> None:
    assert region(heat()[1].astype(np.float16), 0.25) == ((4, 2), (3, 1, 5, 3))
    assert region(heat()[1].astype(np.float16), 0.8) == ((4, 2), None)


def test_a_head_that_is_not_valid_has_no_peak_and_its_map_is_finite() -> None:
    broken_KHW = heat()
    broken_KHW[1, 0, 0] = np.nan
    one = dataclasses.replace(heatmap(0, 1000.0, broken_KHW), valid_K=(True, False))
    fields, maps_KHW = heat_fields(ORIGIN, one, {})
    decoded = decode(Envelope("heat", "cam0", RUN).seal(fields, maps_KHW))
    assert not decoded.heads["sound"].valid
    assert decoded.heads["sound"].peak is decoded.heads["sound"].box is None
    assert decoded.heads["speech"].valid
    assert np.isfinite(maps_KHW).all()


def test_a_heat_beyond_half_precision_stays_a_number() -> None:
    fields, maps_KHW = heat_fields(ORIGIN, heatmap(0, 1000.0, heat() * 1e6), {})
    decoded = decode(Envelope("heat", "cam0", RUN).seal(fields, maps_KHW))
    assert decoded.heads["sound"].score == 65504.0


def test_the_maps_begin_at_a_multiple_of_eight_bytes() -> None:
    for width in range(600, 620):
        fields, maps_KHW = heat_fields(ORIGIN, heatmap(0, 1000.0, size=(width, 7)), {})
        data = Envelope("heat", "cam0", RUN).seal(fields, maps_KHW)
        assert (len(data) - maps_KHW.nbytes) % 8 == 0


def test_a_large_picture_is_made_smaller_for_the_preview() -> None:
    jpeg = preview_jpeg(np.zeros((2000, 3000, 3), np.uint8))
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (853, 1280, 3)


@pytest.mark.parametrize(
    ("camera", "label"),
    [
        ("camera 0 640x480", "camera-0-640x480"),
        ("rtsp://ünder/ways", "rtsp-nder-ways"),
        ("", "camera"),
        ("a" * 40, "a" * 16),
    ],
)
def test_any_name_becomes_a_topic_that_stays(camera: str, label: str) -> None:
    camera_id = default_camera_id(camera, "0")
    assert re.fullmatch(rf"{label}-[0-9a-f]{{8}}", camera_id)
    assert len(f"status/{camera_id}") <= 32
    assert default_camera_id(camera, "0") == camera_id


def test_two_cameras_never_have_the_same_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two channels of one recorder, two webcams of one make, the first cameras of two machines."""
    recorder = "rtsp://192.0.2.1:554/cam/realmonitor"
    specs = [f"{recorder}?channel={channel}" for channel in range(1, 9)]
    found = [default_camera_id(recorder, spec) for spec in specs]
    found += [default_camera_id("Webcam", spec) for spec in ("0", "2")]
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    found += [default_camera_id("Webcam", spec) for spec in ("0", "2")]
    assert len(set(found)) == len(found)
