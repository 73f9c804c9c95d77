"""The bundle: a folder with a manifest and the graphs of one exported model.

A folder enters, a checked `Bundle` leaves. This file knows what the manifest says and
whether the files are the ones it names; it never opens a graph and imports no torch.

Errors
------
BundleError          the bundle cannot be used as it is (exit code 4)
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from platformdirs import user_cache_path

SCHEMA = 2  # 1 had audio graphs that normalise the window themselves
MANIFEST = "manifest.json"
GRAPHS = ("image", "audio", "heatmap")
AUDIO_STEP = "audio_step"  # the fourth graph; bundles from before streaming lack it
STATE_MAX_BYTES = 2**32

SAMPLE_RATE_HZ = 16_000
TOKEN_HOP_SAMPLES = 2_880  # 180 ms: HuBERT's 320-sample hop, pooled by 3 and by 3 again
TOKEN_SPAN_SAMPLES = 2_960  # what one token hears: the hop, and the stem's 80 samples beyond


class BundleError(Exception):
    """The bundle cannot be used as it is; the message says why and what to do."""

    exit_code: ClassVar[int] = 4


@dataclass(frozen=True, kw_only=True)
class Head:
    """One kind of coupling and its calibrated scale.

    `threshold` and `ceiling` are in similarity units: a heat at the threshold is invisible,
    one at the ceiling is drawn in full. They are fixed at export, never per frame.
    """

    name: str
    threshold: float
    ceiling: float


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """What the image graph takes: `uint8 [height, width, 3]`, RGB; and its grid of features."""

    height: int
    width: int
    grid_height: int
    grid_width: int


@dataclass(frozen=True, kw_only=True)
class AudioInput:
    """What the audio graph takes: `float32 [window_samples]` at 16 kHz; and its tokens.

    `takes_normalized` says whether the window has to be normalised before; where not, the graph
    does it itself, each window by its own deviation.
    """

    window_samples: int
    tokens: int
    energy_floor_dbfs: float
    takes_normalized: bool = False

    def __post_init__(self) -> None:
        if window_samples(self.tokens) != self.window_samples:
            raise BundleError(
                f"a window of {self.window_samples} samples does not hold {self.tokens} tokens; "
                "export the model again"
            )


@dataclass(frozen=True, kw_only=True)
class StateTensor:
    """One tensor of an audio step's state, before any audio all zeros."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class AudioStep:
    """What the audio step graph remembers, and its state tensors by name.

    It takes `float32 [TOKEN_SPAN_SAMPLES]`, normalised, the features before, and the state; it
    gives features like the audio graph's, of which the newest `1 + revisit` tokens are new, and
    the next state. `context_tokens` older tokens are seen by those.
    """

    context_tokens: int
    revisit: int
    states: Mapping[str, StateTensor]

    def __post_init__(self) -> None:
        nbytes = sum(
            math.prod(state.shape) * np.dtype(state.dtype).itemsize
            for state in self.states.values()
        )
        if nbytes > STATE_MAX_BYTES or any(n < 1 for s in self.states.values() for n in s.shape):
            raise ValueError("the audio step's states have impossible shapes")

    def require_shapes(self, inputs: Mapping[str, tuple[int, ...]]) -> None:
        """Raise `BundleError` when a graph with such inputs has other states than these."""
        if any(inputs.get(name) != state.shape for name, state in self.states.items()):
            raise BundleError(
                "the audio step graph has other states than the manifest says; "
                "export the bundle again"
            )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What `manifest.json` says. `files` maps each file's name to its sha256.

    `parity` is of the ONNX graphs, `engine_parity` of the TensorRT engines where there are any,
    and `step_parity` of the audio step, where there is one, at the points of a long run.
    `calibration` says what the heads' scale was set with, where that was a folder of pairs.
    """

    model: str
    trained: bool
    source: str
    precision: str
    opset: int
    heads: tuple[Head, ...]
    image: ImageInput
    audio: AudioInput
    parity: Mapping[str, Any]
    files: Mapping[str, str]
    engine_parity: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    audio_step: AudioStep | None = None
    step_parity: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A folder whose files are the ones its manifest names."""

    folder: Path
    manifest: Manifest

    def graph(self, name: str) -> Path:
        """Return the path of the graph `image`, `audio`, `heatmap` or `audio_step`."""
        return self.folder / f"{name}.onnx"

    @property
    def graphs(self) -> tuple[str, ...]:
        """Name the graphs that the bundle has."""
        return GRAPHS if self.manifest.audio_step is None else (*GRAPHS, AUDIO_STEP)

    @property
    def sha256(self) -> str:
        """Name this very model: the hash over the hashes of all its files."""
        joined = "".join(
            f"{name}:{digest}\n" for name, digest in sorted(self.manifest.files.items())
        )
        return hashlib.sha256(joined.encode()).hexdigest()


def require_audio_step(bundle: Bundle) -> None:
    """Raise `BundleError` with the remedy when the bundle has no graph for streaming."""
    if bundle.manifest.audio_step is None:
        raise BundleError(
            f"{bundle.folder} cannot stream audio: it was exported by a denseav that could not; "
            "export the model again, or use --audio window"
        )


def demo_folder() -> Path:
    """Return the folder of the demo bundle, which is part of the package."""
    return Path(__file__).parents[1] / "demo"


def default_folder() -> Path:
    """Return where `denseav-export` writes, and `denseav-live` looks, when no folder is named."""
    return user_cache_path("denseav") / "bundle"


def window_samples(tokens: int) -> int:
    """Return how many samples at 16 kHz hold exactly `tokens` audio tokens."""
    return TOKEN_SPAN_SAMPLES + TOKEN_HOP_SAMPLES * (tokens - 1)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` into `folder`."""
    text = json.dumps(dataclasses.asdict(manifest), indent=2)
    (folder / MANIFEST).write_text(text + "\n")


def open_bundle(folder: Path) -> Bundle:
    """Read and check the bundle in `folder`.

    Raises
    ------
    BundleError
        When the folder holds no bundle, its schema is newer than this program, a file is
        missing, or a file's hash is not the manifest's.
    """
    manifest = _read_manifest(folder)
    for name, digest in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{folder}: {name} is missing; export or copy the bundle again")
        if file_sha256(path) != digest:
            raise BundleError(
                f"{folder}: {name} is not the file that the manifest names (its sha256 differs); "
                "export or copy the bundle again"
            )
    bundle = Bundle(folder=folder, manifest=manifest)
    for graph in bundle.graphs:
        if bundle.graph(graph).name not in manifest.files:
            raise BundleError(f"{folder}: the manifest names no {graph}.onnx; export it again")
    return bundle


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        record = json.loads(path.read_text())
    except OSError:
        raise BundleError(
            f"{folder} holds no {MANIFEST}; make a bundle with: denseav-export CHECKPOINT --out DIR"
        ) from None
    except ValueError as error:
        raise BundleError(f"{path} is not JSON ({error}); export the bundle again") from None
    schema = record.get("schema") if isinstance(record, dict) else None
    if not isinstance(schema, int) or schema < 1:
        raise BundleError(f"{path} is not a denseav manifest; export the bundle again")
    if schema > SCHEMA:
        raise BundleError(
            f"{folder} has schema {schema}, newer than the {SCHEMA} this denseav reads; "
            "upgrade denseav"
        )
    try:
        return _parse(record)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path} is damaged ({error!r}); export the bundle again") from None


def _parse(record: dict[str, Any]) -> Manifest:
    names = {field.name for field in dataclasses.fields(Manifest)}
    fields = {name: value for name, value in record.items() if name in names}
    fields["heads"] = tuple(Head(**head) for head in fields["heads"])
    fields["image"] = ImageInput(**fields["image"])
    fields["audio"] = AudioInput(**fields["audio"])
    if fields.get("audio_step") is not None:
        fields["audio_step"] = _parse_step(fields["audio_step"])
    if any(Path(name).name != name for name in fields["files"]):
        raise ValueError("a file name leads out of the bundle")
    return Manifest(**fields)


def _parse_step(record: dict[str, Any]) -> AudioStep:
    states = {
        name: StateTensor(shape=tuple(map(int, state["shape"])), dtype=state["dtype"])
        for name, state in record["states"].items()
    }
    return AudioStep(**record | {"states": states})
