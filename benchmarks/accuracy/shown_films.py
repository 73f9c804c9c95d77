"""Runs the demo film as telephones, camcorders and editors store it, and looks where its peaks lie.

    python -m benchmarks.accuracy.shown_films [--fps N]

The film is stored mirrored, turned and upside down, each with the display matrix that shows it as
it was; squeezed into pixels that are a third wider than high; and cropped, as an editor does and by
what its H.264 says of itself, which people see. Boxes of MP4 and Matroska that ask players to crop,
`clap` and `PixelCrop`, are not among them: PyAV does not tell of them. All of them run offline with
the demo model, at fewer pictures a second. Printed is, for each, how often the peak of an event's
head lies within the event's box, of all the moments for which the film's truth has one. Exits 1
when one of them is worse than the plain film by more than three in a hundred.
"""

import argparse
import json
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import denseav
from denseav.export.runtime.bundle import demo_folder
from denseav.stream.sources.open import DEMO_CLIP

WORSE_MAX = 0.03
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "12", "-pix_fmt", "yuv420p")
CROPPING = "crop_left=32:crop_right=32:crop_top=24:crop_bottom=24"
_ONE = 1 << 16
FILMS: dict[str, tuple[str, Sequence[str], tuple[int, int, int, int] | None]] = {
    "plain": ("null", X264, None),
    "mirrored": ("hflip", X264, (-_ONE, 0, 0, _ONE)),
    "upside down": ("vflip", X264, (_ONE, 0, 0, -_ONE)),
    "turned": ("transpose=cclock", X264, (0, _ONE, -_ONE, 0)),
    "turned and mirrored": ("transpose=cclock_flip", X264, (0, _ONE, _ONE, 0)),
    "squeezed": ("scale=480:480,setsar=4/3", X264, None),
    "cropped": ("crop=576:432:32:24", X264, None),
    "cropped by its codec": ("null", (*X264, "-bsf:v", f"h264_metadata={CROPPING}"), None),
}
CROPPED = (32, 24)


def make(name: str, fps: int, folder: Path) -> Path:
    """Write one of the films."""
    path = folder / f"{name.replace(' ', '-')}.mp4"
    how, encoder, matrix = FILMS[name]
    command = ("ffmpeg", "-nostdin", "-v", "error", "-y", "-i", str(DEMO_CLIP))
    command += ("-vf", f"fps={fps},{how}", *encoder, "-c:a", "copy", str(path))
    subprocess.run(command, check=True)
    if matrix is not None:
        data = bytearray(path.read_bytes())
        at = data.index(b"tkhd") + 4 + 24 + 16
        a, b, c, d = matrix
        data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        path.write_bytes(data)
    return path


def pointing(path: Path, truth: dict[str, Any], shift: tuple[int, int]) -> tuple[int, int]:
    """Return how often the peak lies in its box, and of how many moments."""
    run = denseav.live(source=path, offline=True, model=demo_folder(), sync="exact")
    with run as frames:
        peaks = [(frame.capture_s, frame.heads) for frame in frames]
    hits = moments = 0
    for event in truth["events"]:
        for time_s, left, top, right, bottom in event["boxes"]:
            _, heads = min(peaks, key=lambda known: abs(known[0] - time_s))
            peak = heads[event["head"]].peak
            moments += 1
            if peak is not None:
                x, y = peak[0] + shift[0], peak[1] + shift[1]
                hits += left <= x <= right and top <= y <= bottom
    return hits, moments


def main() -> int:
    """Run all films; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--fps", type=int, default=6)
    options = parser.parse_args()
    truth = json.loads(DEMO_CLIP.with_suffix(".json").read_text())
    shares: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in FILMS:
            path = make(name, options.fps, Path(folder))
            hits, moments = pointing(path, truth, CROPPED if name.startswith("cropped") else (0, 0))
            shares[name] = hits / moments
            print(f"{name:20} {hits:3} of {moments} ({100 * shares[name]:.1f} %)", flush=True)
    print(json.dumps({name: round(share, 4) for name, share in shares.items()}))
    return int(min(shares.values()) < shares["plain"] - WORSE_MAX)


if __name__ == "__main__":
    sys.exit(main())
