"""The servers behind the fixtures: MJPEG over HTTP, RTSP by GStreamer, PulseAudio."""

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2

from tests.support.media import Image, grey
from tests.support.ports import free_port

SYSTEM_PYTHON = "/usr/bin/python3"  # the bindings of GStreamer belong to the system
PICTURE_S = 0.03

RTSP = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer.new()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory.new()
factory.set_launch(sys.argv[2])
server.get_mount_points().add_factory("/cam", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
"""

SILENT = (
    "( videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=25/1 "
    "! x264enc tune=zerolatency key-int-max=5 ! rtph264pay name=pay0 )"
)


def film(path: Path) -> str:
    """A film of H.264 and AAC with its sound, as an RTSP server plays it to each who asks."""
    return (
        f"( filesrc location={path} ! qtdemux name=film "
        "film.video_0 ! queue ! h264parse ! rtph264pay config-interval=-1 name=pay0 "
        "film.audio_0 ! queue ! aacparse ! rtpmp4gpay name=pay1 )"
    )


def greys(count: int) -> Image:
    """The pictures that a camera gives: 10, 20, … 240 and again."""
    return grey(10 * (count % 24 + 1), 160, 120)


class MjpegServer:
    """Serves a picture each `picture_s`; frozen it serves none, and keeps its connections.

    Those that are held up come all at once afterwards.
    """

    def __init__(
        self, picture: Callable[[int], Image] = greys, picture_s: float | None = None
    ) -> None:
        self.frozen = threading.Event()
        self.held_up = threading.Event()
        self.picture = picture
        self.part_type = "Content-Type: image/jpeg\r\n"
        self._picture_s = picture_s
        self._port = free_port()
        self.start()

    def start(self) -> None:
        """Serve again after `kill`, at the same address."""
        self._killed = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}/cam.mjpg"

    def kill(self) -> None:
        """Close every connection. May be called twice."""
        self._killed.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
                self.end_headers()
                with contextlib.suppress(OSError):
                    server.serve(self.wfile)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Say nothing."""

        return Handler

    def serve(self, connection: Any) -> None:
        count, waiting, killed = 0, b"", self._killed
        while not killed.wait(self._picture_s or PICTURE_S):
            if self.frozen.is_set():
                continue
            jpeg = cv2.imencode(".jpg", self.picture(count))[1].tobytes()
            header = f"--next\r\n{self.part_type}Content-Length: {len(jpeg)}\r\n\r\n"
            waiting += header.encode() + jpeg + b"\r\n"
            count += 1
            if not self.held_up.is_set():
                connection.write(waiting)
                waiting = b""


class RtspServer:
    """Serves what GStreamer's `launch` makes: a moving test picture at 25 fps without sound."""

    def __init__(self, launch: str = SILENT) -> None:
        self._launch = launch
        self._port = str(free_port())
        self.address = f"127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        """Serve again after `kill`, at the same address."""
        self._process = subprocess.Popen(
            [SYSTEM_PYTHON, "-c", RTSP, self._port, self._launch],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "the RTSP server does not start"

    @staticmethod
    def possible() -> bool:
        asked = "import gi; gi.require_version('GstRtspServer', '1.0')"
        ran = subprocess.run([SYSTEM_PYTHON, "-c", asked], capture_output=True, check=False)
        return ran.returncode == 0

    def kill(self) -> None:
        """Kill the server. May be called twice."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class PulseServer:
    """A PulseAudio whose default microphone hears its default loudspeaker.

    `sound` is raw sound that it plays without end: silence, or /dev/urandom for noise.
    """

    def __init__(self, folder: Path, sound: str = "/dev/zero") -> None:
        self._folder, self._sound = folder, Path(sound)
        self.environment = {
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "PULSE_SERVER": f"unix:{folder}/pulse.sock",
            "PATH": "/usr/bin:/bin",
        }
        self._script = folder / "pa.pa"
        self._script.write_text(
            f"load-module module-native-protocol-unix auth-anonymous=1 socket={folder}/pulse.sock\n"
            "load-module module-null-sink sink_name=spk rate=48000 channels=2\n"
            "load-module module-remap-source master=spk.monitor source_name=mic\n"
            "set-default-sink spk\nset-default-source mic\n"
        )
        self.start()

    def start(self) -> None:
        """Serve again after `kill`, at the same address; return when a recorder hears the mic."""
        Path(self._folder, "pulse.sock").unlink(missing_ok=True)
        script = str(self._script)
        daemon = ("pulseaudio", "-n", "-F", script, "--daemonize=no", "--use-pid-file=no")
        # Killed while it shares memory with ALSA's plugin, it can leave that one locked for ever.
        self._daemon = self._begin(*daemon, "--exit-idle-time=-1", "--disable-shm=yes")
        self._wait()
        # Without a steady stream of silence the loudspeaker sleeps, and swallows a first second.
        pacat = ("pacat", "--playback", "--raw", "--format=s16le", "--rate=48000", "--channels=2")
        with self._sound.open("rb") as sound:
            self._player = self._begin(*pacat, "--latency-msec=20", "-d", "spk", stdin=sound)

        parec = ("parec", "--raw", "--latency-msec=20", "-d", "mic")
        recorder = subprocess.Popen(parec, env=self.environment, stdout=subprocess.PIPE)
        assert recorder.stdout is not None
        heard = recorder.stdout.read(1000)  # a new loudspeaker takes up to 2 s to begin
        recorder.kill()
        recorder.communicate()
        assert heard, "the microphone gives nothing"

    @staticmethod
    def possible() -> bool:
        return all(shutil.which(tool) for tool in ("pulseaudio", "pacat", "paplay", "pactl"))

    def play(self, path: Path) -> None:
        """Play a sound file to its end."""
        self._run("paplay", "-d", "spk", str(path))

    def suspend(self, suspended: bool) -> None:
        """Make the microphone fall silent without closing it, or wake it."""
        self._run("pactl", "suspend-source", "mic", "1" if suspended else "0")

    def kill(self) -> None:
        """Kill the daemon. May be called twice."""
        for process in (self._player, self._daemon):
            process.kill()
            process.wait()

    def _wait(self) -> None:
        deadline_s = time.monotonic() + 10
        while subprocess.run(
            ["pactl", "info"], env=self.environment, capture_output=True, check=False
        ).returncode:
            assert time.monotonic() < deadline_s, "PulseAudio does not start"
            time.sleep(0.05)

    def _begin(self, *command: str, stdin: Any = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env=self.environment,
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _run(self, *command: str) -> None:
        subprocess.run(command, env=self.environment, check=True, timeout=30)
