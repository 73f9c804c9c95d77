"""The tiny model's exports: one frame size, window and stream, so that tests share its graphs."""

from pathlib import Path

from denseav.export.builder.build import Plan, Precision, build
from denseav.export.runtime.bundle import Bundle, open_bundle
from denseav.models.streaming_mask import StreamConfig
from tests.support.tiny_model import tiny

FRAME_SIZE = (32, 48)
TOKENS = 4
STREAM = StreamConfig(context_tokens=3, revisit=1)
ARGUMENTS = (
    "--frame-size",
    "32x48",
    "--window",
    "0.7",
    "--stream-context",
    "0.54",
    "--revisit",
    "1",
)
"""Of the command, for the same."""


def plan(precision: Precision = "fp32", stream: StreamConfig = STREAM) -> Plan:
    """Return what is to be built."""
    return Plan(
        source="tests", precision=precision, frame_size=FRAME_SIZE, tokens=TOKENS, stream=stream
    )


def exported(
    folder: Path, precision: Precision = "fp32", stream: StreamConfig = STREAM, **changes: object
) -> Bundle:
    """Export the tiny model, changed, into a folder that is there and empty."""
    build(tiny(**changes), plan(precision, stream), folder, lambda step: None)
    return open_bundle(folder)
