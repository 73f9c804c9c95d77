"""The shipped demo model, as it is in the package: what its card says of it, and what it finds."""

import ctypes.util
import json

import pytest

from denseav.export.runtime.bundle import demo_folder
from denseav.train.eval.exported_model import open_subject
from denseav.train.eval.world.listener import Listener, make_listener, points
from denseav.train.eval.world.split import Split
from denseav.train.world.clips import RATE_HZ, Head

MAX_BYTES = 16 * 10**6
CLIPS = 24
LEAST_POINTED = 0.6
"""Far below what the card says, for few clips; far above chance, which is 0.04."""


def test_it_is_small_and_says_that_it_is_trained() -> None:
    files = [*demo_folder().iterdir()]
    assert sum(file.stat().st_size for file in files) <= MAX_BYTES
    manifest = json.loads((demo_folder() / "manifest.json").read_text())
    assert manifest["trained"] is True
    assert "negatives" in manifest["calibration"]


def test_its_card_is_of_this_very_bundle() -> None:
    manifest = json.loads((demo_folder() / "manifest.json").read_text())
    card = (demo_folder() / "CARD.md").read_text()
    for name, digest in manifest["files"].items():
        assert f"`{name}` {digest[:12]}" in card


@pytest.fixture(scope="module")
def listener() -> Listener:
    source = open_subject("demo", "cpu").source
    assert source.window_samples <= 2 * RATE_HZ
    return make_listener(
        source, Split(seed=11, size=source.frame_size, samples=source.window_samples)
    )


@pytest.mark.skipif(
    ctypes.util.find_library("espeak-ng") is None, reason="espeak-ng is not installed"
)
@pytest.mark.parametrize("head", ["sound", "speech"])
def test_it_points_at_what_it_hears(listener: Listener, head: Head) -> None:
    hits = 0
    for number in range(CLIPS):
        case = listener.split.case(head, number)
        event = case.clip.heard[0]
        volume_THW = listener.look(case)[1][listener.own[head]]
        hits += points(listener.map(volume_THW, event), case.truth(event.name))
    assert hits >= LEAST_POINTED * CLIPS
