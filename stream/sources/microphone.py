"""A live microphone in, blocks of sound out, by PortAudio.

PortAudio's callback only stamps and hands over; all else happens on a thread of our own. The time
of a sample comes from its count, by a fitted clock: stamps of single callbacks jitter, and
PortAudio's own times are wrong on several systems. To open a lost microphone again is somebody
else's decision.
"""

import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from denseav.export.terminal_text import safe_text
from denseav.stream.errors import SourceError
from denseav.stream.sources.sample_clock import SampleClock
from denseav.stream.sources.source_thread import SourceThread
from denseav.stream.types import AudioBlock, Receiver

BLOCKS_PER_SECOND = 100
WAITING_BLOCKS = 500  # five seconds may wait for our thread; what comes then is lost, and a gap
FIRST_S = 5.0  # a wireless microphone takes seconds to begin
CEASED_S = 2.0
HELD_BLOCKS = 10  # after a loss: the first half may still be late
LEAST_LOST_S = 0.005  # macOS reports losses where nothing is missing
QUICK_ATTEMPTS = 3  # to open it again before PortAudio is made to look anew, which takes a second
POLL_S = 0.1
STOP_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Packet:
    """What one callback brought: samples, their count since the start, and when it came."""

    samples_SC: NDArray[np.float32]
    first_sample: int
    came_s: float
    overflowed: bool


class Microphone:
    """A microphone: a `Source` of sound, at the device's own rate and with at most two channels.

    Sound that PortAudio reports lost becomes a jump of `first_sample`. PortAudio does not say how
    much was lost: it is by how much the sound after it is late, when the least late of some blocks
    is taken; these are handed on 0.1 s later.

    Parameters
    ----------
    spec : `default`, a device's number, or part of its name.

    Attributes
    ----------
    name : the device's name.
    rate_hz, channels : of its sound.
    overflows : how often sound was lost.
    not_finite : how many samples were not numbers; they became zeros.

    Raises
    ------
    SourceError
        When PortAudio is missing, or there is no such microphone or it cannot be opened.
    """

    def __init__(self, spec: str) -> None:
        sounddevice = load_sounddevice()
        device = _find(sounddevice, spec)
        self.name = str(device["name"])
        self._lasting_spec = spec if spec == "default" else _full_name(sounddevice, device)
        self.rate_hz = int(device["default_samplerate"])
        self.channels = min(2, int(device["max_input_channels"]))
        self.overflows = 0
        self.not_finite = 0
        self._failure: type[Exception] = sounddevice.PortAudioError
        self._packets: queue.Queue[Packet] = queue.Queue(WAITING_BLOCKS)
        self._given = 0  # samples that callbacks have brought, lost ones too
        self._gap = 0  # samples missing before that, by our estimate
        self._attempts = 0  # to open it again
        self._held: list[Packet] = []
        self._clock = SampleClock(self.rate_hz)
        self._finished = threading.Event()
        self._stopping = threading.Event()
        self._released = threading.Event()
        self._thread: SourceThread | None = None
        try:
            with _quiet():
                self._stream: Any = sounddevice.InputStream(
                    device=device["index"],
                    samplerate=self.rate_hz,
                    channels=self.channels,
                    dtype="float32",
                    blocksize=self.rate_hz // BLOCKS_PER_SECOND,
                    latency="low",
                    callback=self._take,
                    finished_callback=self._finished.set,
                )
        except self._failure as error:
            raise self._cannot_open(error) from None

    def start(self, receiver: Receiver) -> None:
        """Begin to record, and to call the receiver on a thread of its own."""
        self._thread = SourceThread(
            f"microphone {self.name}", partial(self._run, receiver), receiver.ended
        )
        self._thread.start()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop and release the device, later if it hangs. May be called twice."""
        self._stopping.set()
        if self._thread is None:
            self._release()
        elif self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def again(self) -> Self:
        """Open the same device anew, also where it was plugged in again."""
        if not self._released.is_set():
            raise SourceError(f"microphone {self.name} is still being closed")
        self._attempts += 1
        # ALSA opens by name, so that an old list of devices will mostly do.
        if sys.platform != "linux" or self._attempts > QUICK_ATTEMPTS:
            _look_again(load_sounddevice())
        return type(self)(self._lasting_spec)

    def _take(self, samples_SC: Any, count: int, _times: Any, status: Any) -> None:
        packet = Packet(samples_SC.copy(), self._given, time.monotonic(), status.input_overflow)
        self._given += count
        try:
            self._packets.put_nowait(packet)
        except queue.Full:
            self.overflows += 1

    def _run(self, receiver: Receiver) -> None:
        try:
            self._stream.start()
            error = self._capture(receiver)
        except self._failure as failure:
            error = self._cannot_open(failure)
        finally:
            self._release()
        if error is not None and not self._stopping.is_set():
            receiver.ended(error)

    def _release(self) -> None:
        with suppress(self._failure):  # a device that is gone is closed all the same
            self._stream.abort()
        with suppress(self._failure):
            self._stream.close()
        self._released.set()

    def _capture(self, receiver: Receiver) -> SourceError | None:
        """Hand sound on until told to stop; return why it ceased, if it did."""
        heard_s = time.monotonic() + FIRST_S - CEASED_S
        while not self._stopping.is_set():
            try:
                packet = self._packets.get(timeout=POLL_S)
            except queue.Empty:
                if self._finished.is_set() or time.monotonic() - heard_s > CEASED_S:
                    return SourceError(
                        f"microphone {self.name} stopped giving sound; check that it is plugged in"
                    )
                continue
            heard_s = packet.came_s
            for ready in self._counted(packet):
                receiver.audio(self._block(ready))
        return None

    def _counted(self, packet: Packet) -> list[Packet]:
        """Return what can be handed on: after a loss nothing until its length is known."""
        self.overflows += packet.overflowed
        if not self._held and not packet.overflowed:
            return [packet]
        self._held.append(packet)
        if len(self._held) < HELD_BLOCKS:
            return []
        held, self._held = self._held, []
        lost_s = min(self._late_s(packet) for packet in held[HELD_BLOCKS // 2 :])
        if lost_s > LEAST_LOST_S:
            self._gap += round(lost_s * self.rate_hz)
        return held

    def _late_s(self, packet: Packet) -> float:
        end = packet.first_sample + self._gap + len(packet.samples_SC)
        return packet.came_s - self._clock.time_of(end)

    def _block(self, packet: Packet) -> AudioBlock:
        first = packet.first_sample + self._gap
        self._clock.observe(first + len(packet.samples_SC), packet.came_s)
        samples_SC = self._only_numbers(packet.samples_SC)
        return AudioBlock(samples_SC, self.rate_hz, first, self._clock.time_of(first))

    def _only_numbers(self, samples_SC: NDArray[np.float32]) -> NDArray[np.float32]:
        finite_SC = np.isfinite(samples_SC)
        if finite_SC.all():
            return samples_SC
        self.not_finite += int(np.count_nonzero(~finite_SC))
        return np.where(finite_SC, samples_SC, np.float32(0))

    def _cannot_open(self, error: Exception) -> SourceError:
        reason = str(error).splitlines()[0]
        return SourceError(
            f"microphone {self.name} cannot be opened ({reason}); it may be in use or not "
            "permitted; see: denseav-live --list-devices"
        )


def load_sounddevice() -> ModuleType:
    """Import sounddevice, which needs PortAudio, only where sound is recorded.

    Raises
    ------
    SourceError
        When PortAudio is not installed.
    """
    try:
        import sounddevice
    except OSError:
        raise SourceError(
            "microphones need PortAudio, which is not installed; on Debian or Ubuntu: "
            "apt install libportaudio2"
        ) from None
    module: ModuleType = sounddevice
    return module


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep PortAudio from printing which of its lines failed: ours is the one that people need.

    It prints to descriptor 2, and `denseav-live` itself to a copy of that.
    """
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _find(sounddevice: ModuleType, spec: str) -> dict[str, Any]:
    device = None if spec == "default" else int(spec) if spec.isdecimal() else spec
    try:
        found: dict[str, Any] = sounddevice.query_devices(device, "input")
    except (ValueError, OverflowError, sounddevice.PortAudioError) as error:
        if device is None:
            raise SourceError(
                "this machine has no microphone; plug one in, or use --mic none"
            ) from None
        shown = safe_text(spec)
        fault = f"no microphone {shown}"
        if str(error).startswith("Multiple"):
            fault = f"the name {shown} fits several microphones"
        raise SourceError(f"{fault}; see: denseav-live --list-devices") from None
    return found


def _full_name(sounddevice: ModuleType, device: dict[str, Any]) -> str:
    """Return the name that stays when other devices come and go; a number does not."""
    return f"{device['name']}, {sounddevice.query_hostapis(device['hostapi'])['name']}"


def _look_again(sounddevice: ModuleType) -> None:
    """Make PortAudio, which looks for devices only when it begins, begin again."""
    try:
        while sounddevice._initialized:
            sounddevice._terminate()
        sounddevice._initialize()
    except sounddevice.PortAudioError as error:
        raise SourceError(f"the sound system does not answer ({error})") from None
