"""A page served by this process, and heatmaps to show on it."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import numpy as np

from denseav.stream.display.drawing import Canvas
from denseav.stream.types import Frame, Heatmap
from denseav.stream.web.access import Access, own_names
from denseav.stream.web.browser_camera import BrowserCamera
from denseav.stream.web.messages import Scaled
from denseav.stream.web.server import Address, Page, PageServer

HEADS = ({"name": "speech", "colour": "#56b4e9"}, {"name": "<b>sound</b>", "colour": "#e69f00"})
GREY = np.full((48, 64, 3), 100, np.uint8)

# A camera and a microphone that flash and click together, in place of the browser's own.
FLASHES = """
navigator.mediaDevices.getUserMedia = async ({ audio }) => {
  window.asked = audio;
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: 160, height: 120 });
  const pen = canvas.getContext("2d"), sound = new AudioContext();
  const out = sound.createMediaStreamDestination();
  const quiet = sound.createConstantSource();
  quiet.offset.value = 1e-4;
  quiet.connect(out);
  quiet.start();
  let next = sound.currentTime + 0.5;
  setInterval(() => {
    if (next < sound.currentTime + 0.2) {
      const click = sound.createOscillator();
      click.frequency.value = 2000;
      click.connect(out);
      click.start(next);
      click.stop(next + 0.01);
      window.flashAt = next;
      next += 0.4 + 0.07 * (window.flashes = (window.flashes ?? 0) * 3 % 5 + 1);  // uneven
    }
    const lit = sound.currentTime >= window.flashAt && sound.currentTime < window.flashAt + 0.1;
    pen.fillStyle = lit ? "#eee" : "#222";
    pen.fillRect(0, 0, 160, 120);
    pen.fillStyle = "#333";
    pen.fillRect(sound.currentTime * 50 % 150, 0, 10, 10);
  }, 5);
  const stream = canvas.captureStream(30);
  stream.addTrack(out.stream.getAudioTracks()[0]);
  return stream;
};
"""


@contextmanager
def page_server(
    token: str | None = None,
    control: bool = False,
    features: bool = False,
    tiles: Mapping[str, Any] | None = None,
    camera: BrowserCamera | None = None,
) -> Iterator[PageServer]:
    """Serve a page of two heads, one of which has a name with markup."""
    about: Mapping[str, Any] = {"model": "made", "note": "", "heads": HEADS, "tiles": tiles}
    access = Access(token=token, names=own_names(), cookie="denseav-test")
    state = {"rows": [("frames", "1")]}
    page = Page(about=about, state=lambda: state, control=control, features=features, camera=camera)
    address = Address(host="127.0.0.1", port=0, access=access)
    with closing(PageServer(address, page)) as server:
        yield server


def scaled(sequence: int, capture_s: float, image_HW3: Canvas = GREY) -> Scaled:
    """Head 0 is lit in its upper left quarter, head 1 is not valid."""
    frame = Frame(image_HW3, sequence, capture_s)
    heat_KHW = np.zeros((2, 4, 6), np.float32)
    heat_KHW[:, :2, :3] = 5.5
    heatmap = Heatmap(frame, heat_KHW, (True, False), 0.0, 0.2, -20.0, capture_s)
    scale_K = np.array([1, 2], np.float32)
    return Scaled(sequence, heatmap, scale_K, scale_K + 3)
