"""What a device has to reproduce before it is trusted: a bundle's probes, and how near is near.

Drivers, cards and libraries that nobody here has may compute wrongly and say nothing. So a bundle
carries a few probe pictures and sounds, and the heatmaps that are right for them; a session whose
heatmaps differ from these by more than its precision's tolerance is refused, with the figures.
No torch here.

Axes: N heatmaps, P probes, K heads, H W the feature grid, h w pixels, S samples.
"""

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from denseav.export.runtime.bundle import (
    TOKEN_HOP_SAMPLES,
    TOKEN_SPAN_SAMPLES,
    Bundle,
    BundleError,
    Manifest,
)
from denseav.export.runtime.engine_facts import MismatchError
from denseav.export.runtime.onnx_session import OnnxSession
from denseav.export.runtime.session import AudioWay, Features, HeatmapModel, Level, Session

Heats = NDArray[np.float32]

PROBES = "probes.npz"
_STEPS = 3  # of a stream: the second and third read what the one before left
_MOST_BYTES = 16_000_000
_DAMAGE = (  # what NumPy's and Python's readers raise of it
    OSError,
    ValueError,
    LookupError,
    EOFError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    TypeError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
_SHRUNK = 4  # pictures are kept so many times smaller, each pixel a square of equal ones


class ProofError(MismatchError):
    """A session does not compute what the bundle says is right."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Agreement of one head's heatmaps with the reference.

    `cosine` and `max_abs` over all maps together; `argmax_agreement` is the share of maps whose
    peak is the same cell; `rank_correlation` is Spearman's, the mean over maps.
    """

    cosine: float
    max_abs: float
    argmax_agreement: float
    rank_correlation: float


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """The least agreement with which a bundle is written, or a session trusted."""

    cosine: float
    rank_correlation: float


# How far one cell may be from the right heat, as a share of the head's largest, at start: in
# float32 other devices differ by rounding alone, and a single wrong weight shows here first.
_FARTHEST = {"fp32": 1e-3, "fp16": 0.05, "bf16": 0.2, "int8": 0.2}


TOLERANCES = {
    "fp32": Tolerance(cosine=0.99999, rank_correlation=0.9999),
    "fp16": Tolerance(cosine=0.999, rank_correlation=0.999),
    "bf16": Tolerance(cosine=0.999, rank_correlation=0.999),
    "int8": Tolerance(cosine=0.999, rank_correlation=0.999),
}


def measure(reference_NKHW: Heats, measured_NKHW: Heats, names: Sequence[str]) -> dict[str, Parity]:
    """Compare the heatmaps head by head."""
    pairs = zip(reference_NKHW.swapaxes(0, 1), measured_NKHW.swapaxes(0, 1), strict=True)
    with np.errstate(all="ignore"):  # what is not finite is in the figures
        return {name: _compare(*pair) for name, pair in zip(names, pairs, strict=True)}


def failures(parity: dict[str, Parity], tolerance: Tolerance) -> list[str]:
    """Name every figure that is under the tolerance, in words for people."""
    return [
        f"{figure} of head {name!r} is {getattr(head, figure):.6f}, needed {least}"
        for name, head in parity.items()
        for figure, least in asdict(tolerance).items()
        if not getattr(head, figure) >= least
    ]


@dataclass(frozen=True, eq=False)
class Probes:
    """Pictures `uint8 [P, h/4, w/4, 3]`, sounds `int16 [P, S]`, and the right heatmaps.

    `heat_NKHW` has those of picture *p* and sound *p* at each of the tokens, probe by probe. A
    sound is repeated until it fills the window.
    """

    pictures_Phw3: NDArray[np.uint8]
    sounds_PS: NDArray[np.int16]
    tokens: NDArray[np.int64]
    heat_NKHW: Heats = field(default_factory=lambda: np.empty((0,), np.float32))

    def inputs(
        self, height: int, width: int, samples: int
    ) -> list[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        """Return each probe's picture and sound as a bundle's graphs take them."""
        return [
            (
                picture_hw3.repeat(_SHRUNK, 0).repeat(_SHRUNK, 1)[:height, :width],
                np.asarray(np.resize(sound_S, samples) / 32768, np.float32),
            )
            for picture_hw3, sound_S in zip(self.pictures_Phw3, self.sounds_PS, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class Proof:
    """How well a session reproduced the probes, and how long each of its last passes took."""

    parity: dict[str, Parity]
    pass_ms: dict[str, float]

    @property
    def least_cosine(self) -> float:
        """The cosine of the head that agrees least."""
        return min(head.cosine for head in self.parity.values())


def shrunk_size(height: int, width: int) -> tuple[int, int]:
    """Return the size in which probe pictures are kept for frames of this size."""
    return -(-height // _SHRUNK), -(-width // _SHRUNK)


def write_probes(folder: Path, probes: Probes) -> Path:
    """Write the probes into a bundle's folder and return their path."""
    path = folder / PROBES
    np.savez_compressed(
        path,
        pictures=probes.pictures_Phw3,
        sounds=probes.sounds_PS,
        tokens=probes.tokens,
        heat=probes.heat_NKHW,
    )
    return path


def read_probes(bundle: Bundle) -> Probes:
    """Return the bundle's probes.

    Raises
    ------
    BundleError
        When it has none, or they are damaged or of other shapes than the manifest's.
    """
    path, manifest = bundle.folder / PROBES, bundle.manifest
    if PROBES not in manifest.files:
        raise BundleError(
            f"{bundle.folder} is of an older denseav and holds no {PROBES} to check a device "
            "with; export it again, or use --device cpu"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MOST_BYTES:
                raise ValueError("it is too large")
        with np.load(path, allow_pickle=False) as arrays:
            named = ("pictures", "sounds", "tokens", "heat")
            probes = Probes(*(arrays[name] for name in named))
        _check_shapes(probes, manifest)
    except _DAMAGE as error:
        raise BundleError(f"{path} is damaged ({error}); export the bundle again") from None
    return probes


def prove(session: Session, bundle: Bundle, audio: AudioWay = "window") -> Proof:
    """Have a session reproduce the bundle's probes.

    What a session that streams audio has to reproduce is what ONNX Runtime on the CPU streams.

    Raises
    ------
    ProofError
        When it differs by more than the tolerance of its precision, with the figures.
    BundleError
        When the bundle has no probes, or the session fails.
    """
    probes, image = read_probes(bundle), bundle.manifest.image
    takes = image.height, image.width, bundle.manifest.audio.window_samples
    if audio == "streaming":
        newest = np.array([bundle.manifest.audio.tokens - 1])
        probes = replace(probes, tokens=newest)
        right_NKHW, _ = reproduce(OnnxSession(bundle, audio=audio), probes, *takes, audio=audio)
        probes = replace(probes, heat_NKHW=right_NKHW)
    try:
        heat_NKHW, pass_ms = reproduce(session, probes, *takes, audio=audio)
    except BundleError:
        raise
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ProofError(
            f"{session.backend} fails at its first passes ({reason}); use --device cpu"
        ) from None
    parity = measure(probes.heat_NKHW, heat_NKHW, [head.name for head in bundle.manifest.heads])
    failed = failures(parity, TOLERANCES[session.precision])
    farthest = _FARTHEST[session.precision]
    for (name, head), peak in zip(
        parity.items(), np.abs(probes.heat_NKHW).max(axis=(0, 2, 3)), strict=True
    ):
        if not (far := float(head.max_abs / peak)) <= farthest:
            failed.append(f"head {name!r} is off by {far:.2%} of its peak, allowed {farthest:.2%}")
    if failed:
        raise ProofError(
            f"{session.backend} in {session.precision} does not compute this model's heatmaps "
            f"({'; '.join(failed)}); update its driver and library, or use --device cpu"
        )
    return Proof(parity=parity, pass_ms=pass_ms)


def reproduce(
    model: HeatmapModel,
    probes: Probes,
    height: int,
    width: int,
    samples: int,
    audio: AudioWay = "window",
) -> tuple[Heats, dict[str, float]]:
    """Return a model's heatmaps `[N, K, H, W]` of the probes, and its last passes' milliseconds.

    Parameters
    ----------
    height, width, samples : what the model takes.
    """
    heats: list[Heats] = []
    pass_ms: dict[str, float] = {}
    for image_HW3, wave_S in probes.inputs(height, width, samples):
        begin_s = perf_counter()
        image = model.encode_image(image_HW3)
        image_s = perf_counter()
        sound = model.encode_audio(wave_S) if audio == "window" else _streamed(model, wave_S)
        audio_s = perf_counter()
        heats += [model.heatmap(image, sound, int(token)) for token in probes.tokens]
        heat_s = (perf_counter() - audio_s) / len(probes.tokens)
        passes_s = {"image": image_s - begin_s, "audio": audio_s - image_s, "heatmap": heat_s}
        pass_ms = {name: 1000 * seconds for name, seconds in passes_s.items()}
    return np.stack(heats), pass_ms


def _streamed(model: HeatmapModel, wave_S: NDArray[np.float32]) -> Features:
    """Return the features after a window's first tokens, one after another."""
    stream, level = model.audio_stream(), Level.of(wave_S)
    features: Features = None
    for start in range(0, len(wave_S) - TOKEN_SPAN_SAMPLES + 1, TOKEN_HOP_SAMPLES)[:_STEPS]:
        features = stream.step(wave_S[start : start + TOKEN_SPAN_SAMPLES], level)
    return features


def _check_shapes(probes: Probes, manifest: Manifest) -> None:
    count = len(probes.pictures_Phw3)
    size = shrunk_size(manifest.image.height, manifest.image.width)
    image, heads = manifest.image, len(manifest.heads)
    expected = (
        (probes.pictures_Phw3, np.uint8, (count, *size, 3)),
        (probes.sounds_PS, np.int16, (count, *probes.sounds_PS.shape[1:2])),
        (probes.tokens, np.int64, (len(probes.tokens),)),
        (
            probes.heat_NKHW,
            np.float32,
            (count * len(probes.tokens), heads, image.grid_height, image.grid_width),
        ),
    )
    for array, dtype, shape in expected:
        if array.dtype != dtype or array.shape != shape or not array.size:
            raise ValueError(f"an array is {array.dtype} {list(array.shape)}")
    if probes.tokens.min() < 0 or probes.tokens.max() >= manifest.audio.tokens:
        raise ValueError("a token is beyond the window")


def _compare(reference_NHW: Heats, measured_NHW: Heats) -> Parity:
    reference = reference_NHW.reshape(len(reference_NHW), -1).astype(np.float64)
    measured = measured_NHW.reshape(len(measured_NHW), -1).astype(np.float64)
    norms = np.linalg.norm(reference) * np.linalg.norm(measured)
    return Parity(
        cosine=float((reference * measured).sum() / norms),
        max_abs=float(np.abs(reference - measured).max()),
        argmax_agreement=float((reference.argmax(1) == measured.argmax(1)).mean()),
        rank_correlation=float(np.mean([*map(_spearman, reference, measured)])),
    )


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])
