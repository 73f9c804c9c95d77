"""The floor of five answers a second, of each camera; and how many microphones share a hop."""

import pytest

from denseav.stream.inference.hop_controller import (
    PASSES_TO_DOUBLE,
    PASSES_TO_HALVE,
    TOKEN_S,
    HopController,
)


def hop_after(controller: HopController, frames: list[tuple[float, int]], passes: int) -> int:
    """Let audio passes of a third of a token take turns with frames, each of a camera."""
    for _ in range(passes):
        for seconds, camera in frames:
            controller.note_frame(seconds, camera)
        controller.note_audio_pass(TOKEN_S / 3)
    return controller.hop_tokens


@pytest.mark.parametrize(
    ("cameras", "frame_s", "gives_way"),
    [(1, 0.15, False), (1, 0.25, True), (2, 0.09, False), (2, 0.15, True), (8, 0.02, False)],
)
def test_what_counts_is_how_often_each_camera_has_its_turn(
    cameras: int, frame_s: float, gives_way: bool
) -> None:
    frames = [(frame_s, camera) for camera in range(cameras)]
    assert (hop_after(HopController(), frames, passes=8) > 1) == gives_way


def test_lost_cameras_soon_count_no_more() -> None:
    controller = HopController()
    assert hop_after(controller, [(0.05, camera) for camera in range(8)], passes=8) == 2
    assert hop_after(controller, 8 * [(0.05, 0)], passes=2 * PASSES_TO_HALVE) == 1


@pytest.mark.parametrize(("microphones", "gives_way"), [(1, False), (3, True)])
def test_what_counts_is_a_pass_of_each_microphone(microphones: int, gives_way: bool) -> None:
    controller = HopController()
    for _ in range(8):
        controller.note_frame(0.25)
        for microphone in range(microphones):
            controller.note_audio_pass(TOKEN_S / 10, microphone)
    assert (controller.hop_tokens > 1) == gives_way


def test_each_microphone_has_its_passes_before_the_hop_changes() -> None:
    controller = HopController()
    controller.note_frame(0.25)
    for count in range(4 * PASSES_TO_DOUBLE - 1):
        controller.note_audio_pass(TOKEN_S / 3, count % 4)
    assert controller.hop_tokens == 1
    controller.note_audio_pass(TOKEN_S / 3, 3)
    assert controller.hop_tokens == 2
