"""Files that are opened while connections have every descriptor, by a process that has none."""

import json
import subprocess
import sys
from pathlib import Path

import av
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")

WITHOUT = """
import json, resource, sys
from pathlib import Path
import numpy as np
from denseav.export import process_limits
from denseav.stream.recording.animation_recorder import AnimationRecorder
from denseav.stream.recording.mcap_recorder import McapRecorder
from denseav.stream.recording.mp4_recorder import Recorder
from denseav.stream.recording.places import check_recording, snapshot
from denseav.stream.recording.playlist_recorder import PlaylistRecorder
from denseav.stream.sources.media_file import Clip

_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
tries, folder, picture = {}, Path(sys.argv[1]), np.full((96, 128, 3), 90, np.uint8)

def none(name):
    "From now on there is none, until it has been waited for."
    def wait(_):
        tries[name] = tries.get(name, 0) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    process_limits.sleep = wait
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))

def film(kind, name):
    none(name)
    recorder = kind(folder / name, 128, 96)
    for index in range(60):  # pictures wait 5 s for audio
        none(name)
        recorder.frame(picture, index / 6)
    none(name)
    assert recorder.close() == folder / name

film(Recorder, "run.mp4")
film(PlaylistRecorder, "run.m3u8")
film(AnimationRecorder, "run.gif")
none("run.mcap")
McapRecorder(folder / "run.mcap", (), dict).close()
none("check")
check_recording(folder / "check")
none("snapshot")
snapshot(picture, folder)
none("read")
assert Clip(folder / "run.mp4").fps
print(json.dumps(tries))
"""


def test_what_is_recorded_and_played_waits_for_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    tries = json.loads(done.stdout)
    assert tries.pop("run.m3u8") >= 4, "at its beginning, its end, and for segments between"
    assert set(tries) == {"run.mp4", "run.gif", "run.mcap", "check", "snapshot", "read"}
    for name in ("run.mp4", "run.m3u8", "run.gif"):
        with av.open(f"file:{tmp_path / name}") as container:
            assert sum(1 for _ in container.decode(video=0)) >= 30
