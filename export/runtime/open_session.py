"""A bundle and a device's name enter, a session that has proved itself leaves.

This file alone knows which implementations there are. ONNX Runtime on the CPU is what parity was
measured on; every other session reproduces the bundle's probes before it is given out. No torch
here.
"""

import logging
import subprocess
import sys

from denseav.export.runtime.bundle import Bundle, BundleError, open_bundle, require_audio_step
from denseav.export.runtime.devices import OnMismatch, check_device_name, cuda_is_here
from denseav.export.runtime.engine_facts import MismatchError, rebuild_arguments, require_engines
from denseav.export.runtime.onnx_session import OnnxSession
from denseav.export.runtime.proof import Proof, prove
from denseav.export.runtime.session import AudioWay, Session, Threads

# TensorRT's engines were built for the very card; OpenVINO's CPU gains too little over ONNX
# Runtime in float32 to be taken unasked, and less precision is never taken unasked.
_AUTO = ("trt", "cuda", "openvino:GPU", "webgpu")

log = logging.getLogger(__name__)


def open_session(
    bundle: Bundle,
    device: str = "auto",
    threads: int | Threads = 1,
    on_mismatch: OnMismatch = "error",
    audio: AudioWay = "window",
) -> Session:
    """Load a bundle on the device asked for.

    `auto` takes the first of TensorRT, CUDA, OpenVINO on a GPU and WebGPU that is there and
    proves itself, else the CPU, and says in one line what it passed over and why. A device asked
    for by name is that device or an error.

    Parameters
    ----------
    threads : how many threads one graph may use on a CPU; `Threads` for each pass its own.
    on_mismatch : what to do with what does not fit this machine and bundle, or does not compute
        what it should: refuse it (`error`), build engines anew (`rebuild`: `denseav-export`,
        minutes), or run the ONNX graphs instead and say so (`onnx`).
    audio : whether the session encodes whole windows (`encode_audio`) or one token after another
        (`audio_stream`); only the graph for that is loaded.

    Raises
    ------
    BundleError
        When a graph cannot be opened, the device asked for cannot be had or is wrong, or it or
        the bundle cannot stream.
    """
    if audio == "streaming":
        require_audio_step(bundle)
    if device == "auto":
        return _open_first(bundle, threads, audio)
    try:
        session, _ = open_proven(bundle, device, threads, audio)
    except MismatchError as error:
        if on_mismatch == "onnx":
            log.warning("running the ONNX graphs instead: %s", error)
            return _open_first(bundle, threads, audio, ("cuda",) if device == "trt" else ())
        if on_mismatch == "error" or device != "trt":
            raise
        log.warning("rebuilding the engines, which takes minutes: %s", error)
        session, _ = open_proven(_rebuilt(bundle), device, threads, audio)
    return session


def open_proven(
    bundle: Bundle, device: str, threads: int | Threads = 1, audio: AudioWay = "window"
) -> tuple[Session, Proof | None]:
    """Return the session on a device that was named, and its proof; None for the CPU's.

    Raises
    ------
    BundleError
        When it cannot be had (`MismatchError` when it does not fit, `ProofError` when it is wrong).
    """
    if device == "cpu":
        return OnnxSession(bundle, threads=threads, audio=audio), None
    session = _open(bundle, device, threads, audio)
    return session, prove(session, bundle, audio)


def _open(
    bundle: Bundle, device: str, threads: int | Threads, audio: AudioWay, *, unasked: bool = False
) -> Session:
    kind, *further = check_device_name(device).split(":")
    if kind == "webgpu":
        from denseav.export.runtime.webgpu_session import open_webgpu

        return open_webgpu(bundle, threads, audio, software=not unasked)
    if kind == "openvino":
        from denseav.export.runtime.openvino_session import OpenVinoSession

        name, precision = (*further, None, None)[:2]
        return OpenVinoSession(
            bundle=bundle, device=name or "CPU", precision=precision, threads=threads, audio=audio
        )
    return _open_nvidia(bundle, kind, audio)


def _open_nvidia(bundle: Bundle, kind: str, audio: AudioWay) -> Session:
    if not cuda_is_here():
        raise BundleError("no NVIDIA GPU or driver was found; use --device cpu")
    if kind == "trt":
        require_engines(bundle, audio)
    try:
        if kind == "trt":
            from denseav.export.runtime.nvidia.trt_session import TrtSession

            return TrtSession(bundle, audio)
        from denseav.export.runtime.nvidia.cuda_session import open_cuda

        return open_cuda(bundle, audio)
    except ImportError as error:
        extra = {"trt": "trt-runtime"}.get(kind, kind)
        raise BundleError(
            f"the CUDA bindings cannot be loaded ({error}); install them, in a clone of denseav, "
            f"with: pip install '.[{extra}]'; or use --device cpu"
        ) from None


def _open_first(
    bundle: Bundle, threads: int | Threads, audio: AudioWay, devices: tuple[str, ...] = _AUTO
) -> Session:
    """Return the first that is here and right, else the CPU's, and say what was passed over."""
    passed, chosen = [], "cpu"
    session: Session | None = None
    for device in devices:
        try:
            session = _open(bundle, device, threads, audio, unasked=True)
            prove(session, bundle, audio)
            chosen = device
            break
        except BundleError as error:
            session = None
            # Whoever has the card needs the remedy too.
            whole = device in ("trt", "cuda") and cuda_is_here()
            passed.append(f"{device} ({error if whole else str(error).split('; ')[0]})")
    if passed:
        log.warning("on %s; passed over: %s", chosen, ", ".join(passed))
    return session or OnnxSession(bundle, threads=threads, audio=audio)


def _rebuilt(bundle: Bundle) -> Bundle:
    # In a process of its own: what building takes in memory goes with it.
    main = "import sys; from denseav.export.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", main, *rebuild_arguments(bundle.folder)]
    if subprocess.run(command, check=False).returncode:
        raise BundleError(
            "the engines were not rebuilt, for the reason above; "
            "use --on-mismatch onnx, or --device cuda or cpu"
        )
    return open_bundle(bundle.folder)
