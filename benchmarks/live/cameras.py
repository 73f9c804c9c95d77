"""Several network cameras and a microphone in one run: heatmaps and drops of each, and one killed.

Each camera is a server of its own that sends the demo's film as JPEGs; the microphone hears noise.
With `--own-sound` each is an RTSP server of a test picture with its own noise instead. First all
are there, then one is killed, then it serves again.
"""

import argparse
import itertools
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.support.common import Check, at_least, at_most, finish, program, say
from denseav.stream.sources.media_file import Clip
from denseav.stream.sources.open import DEMO_CLIP
from denseav.stream.types import Frame
from tests.support.live_command import environment
from tests.support.servers import MjpegServer, PulseServer, RtspServer

SETTLED_S = 5.0
KEPT_SHARE = 0.95
BACK_S = 3.0
PATIENCE_S = 60.0
PICTURES = 60
WITH_SOUND = (
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,"
    "framerate={fps}/1 ! x264enc tune=zerolatency threads=1 speed-preset=ultrafast key-int-max=5 "
    "! rtph264pay config-interval=-1 name=pay0 "
    "audiotestsrc is-live=true wave=pink-noise volume=0.3 ! audio/x-raw,rate=48000,channels=1 "
    "! opusenc ! rtpopuspay name=pay1 )"
)


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cameras", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--fps", type=float, default=5.0, help="of each; default: %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=15.0, help="of each part; default: %(default)s"
    )
    parser.add_argument("--own-sound", action="store_true", help="a microphone for each camera")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        record = _measured(
            Path(folder), options.cameras, options.fps, options.seconds, options.own_sound
        )
    record["own_sound"] = options.own_sound
    record |= {"benchmark": "cameras", "fps_asked": options.fps, "load_before": round(load, 2)}
    return finish([_table(record)], record, _checks(record, options.fps))


def _measured(
    folder: Path, cameras: int, fps: float, seconds: float, own_sound: bool
) -> dict[str, Any]:
    pictures = list(itertools.islice(_pictures(), PICTURES))
    with ExitStack() as stack:
        sound = PulseServer(folder, "/dev/urandom")
        stack.callback(sound.kill)
        servers: list[MjpegServer | RtspServer] = []
        for number in range(cameras):
            server: MjpegServer | RtspServer
            if own_sound:
                server = RtspServer(WITH_SOUND.format(fps=round(fps)))
            else:
                server = MjpegServer(_from(pictures, number), 1 / fps)
            stack.callback(server.kill)
            servers.append(server)
        cameras_given = [
            f"rtsp://{each.address}/cam" if isinstance(each, RtspServer) else each.url
            for each in servers
        ]
        mic = "camera" if own_sound else "pulse"
        last = stack.enter_context(_live(folder, cameras_given, mic, sound))
        _until(lambda: len([each for each in _of_each(last()) if each["frames_out"]]) == cameras)
        time.sleep(SETTLED_S)
        whole = _over(last, seconds)
        servers[-1].kill()
        time.sleep(1.5)  # what was on its way has come
        without = _over(last, seconds)
        gone = _of_each(last())[-1]["frames_out"]
        servers[-1].start()
        begun_s = time.monotonic()
        _until(lambda: _of_each(last())[-1]["frames_out"] > gone)
        back_s = time.monotonic() - begun_s
        final = last()
    return {
        "all": whole,
        "one_killed": without,
        "back_s": round(back_s, 2),
        "to_heatmap_ms": [each["capture_to_heatmap_ms"] for each in _of_each(final)],
        "audio_age_ms": [each["audio_age_ms"] for each in _of_each(final)],
        "audio": final["audio"],
    }


def _pictures() -> Iterator[NDArray[np.uint8]]:
    for item in Clip(DEMO_CLIP).items(frames_late_s=0.0):
        if isinstance(item, Frame):
            yield item.image_HW3


def _from(pictures: Sequence[NDArray[np.uint8]], number: int) -> Callable[[int], NDArray[np.uint8]]:
    return lambda count: pictures[(7 * number + 6 * count) % len(pictures)]


@contextmanager
def _live(
    folder: Path, cameras: Sequence[str], mic: str, sound: PulseServer
) -> Iterator[Callable[[], dict[str, Any]]]:
    """Run `denseav-live`; yield what reads its last line of figures."""
    stats = folder / "stats.json"
    command = [program("denseav-live"), "--headless", "--device", "cpu", "--mic", mic]
    command += [part for camera in cameras for part in ("--camera", camera)]
    command += ["--stats-json", str(stats)]
    say(" ".join(command))
    env = environment(folder, **sound.environment)
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as process:
        try:
            yield lambda: _last(stats)
        finally:
            process.terminate()


def _last(stats: Path) -> dict[str, Any]:
    lines = stats.read_text().splitlines() if stats.exists() else []
    return dict(json.loads(lines[-1])) if lines else {}


def _of_each(report: dict[str, Any]) -> list[dict[str, Any]]:
    return list(report.get("cameras", {}).values())


def _until(done: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not done():
        if time.monotonic() > end_s:
            raise TimeoutError(f"it did not come to that in {PATIENCE_S:g} s")
        time.sleep(0.1)


def _over(last: Callable[[], dict[str, Any]], seconds: float) -> list[dict[str, float]]:
    """Return what came, what was made and what was dropped a second, of each camera."""
    before = last()
    _until(lambda: last()["seconds"] >= before["seconds"] + seconds)
    after = last()
    took_s = after["seconds"] - before["seconds"]

    def rate(old: float, new: float) -> float:
        return float(round((new - old) / took_s, 2))

    return [
        {
            "fps_in": rate(old["frames_in"], new["frames_in"]),
            "fps": rate(old["frames_out"], new["frames_out"]),
            "dropped": rate(sum(old["drops"].values()), sum(new["drops"].values())),
        }
        for old, new in zip(_of_each(before), _of_each(after), strict=True)
    ]


def _table(record: dict[str, Any]) -> Table:
    columns = ("camera", "came", "heatmaps", "dropped", "heatmaps, last one killed", "p95 ms")
    table = Table(*columns, title="a second, of each camera")
    for number, each in enumerate(record["all"]):
        row = (number, each["fps_in"], each["fps"], each["dropped"])
        killed = record["one_killed"][number]["fps"]
        table.add_row(*map(str, (*row, killed, record["to_heatmap_ms"][number]["p95"])))
    return table


def _checks(record: dict[str, Any], fps: float) -> list[Check]:
    made = [each["fps"] for each in record["all"]]
    others = [
        after["fps"] / before["fps"] if before["fps"] else 0.0
        for before, after in zip(record["all"][:-1], record["one_killed"][:-1], strict=True)
    ]
    return [
        at_least("heatmaps a second, of the camera with fewest", min(made), KEPT_SHARE * fps),
        at_least("the fewest, of the most", min(made) / max(made), KEPT_SHARE),
        at_least("the others' while one is killed, of before, lowest", min(others), KEPT_SHARE),
        at_most("of the killed one, a second", record["one_killed"][-1]["fps"], 0.0),
        at_most("until it is back, s", record["back_s"], BACK_S),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
