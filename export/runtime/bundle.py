"""The bundle: a folder with a manifest and the graphs of one exported model.

A folder enters, a checked `Bundle` leaves: every field of the manifest within its bounds, every
file the one it names, every graph taking and giving what it says. No graph runs here, and no
torch is imported.

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
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from msgspec import Meta

from denseav.export.outside_files import parse_json, read_bounded
from denseav.export.runtime.graph_files import GraphFile, Layout, read_graph
from denseav.export.user_folders import cache_folder

SCHEMA = 2  # 1 had audio graphs that normalise the window themselves
MANIFEST = "manifest.json"
GRAPHS = ("image", "audio", "heatmap")
AUDIO_STEP = "audio_step"  # the fourth graph; bundles from before streaming lack it
MANIFEST_MAX_BYTES = 2**20
STATE_MAX_BYTES = 2**30

Count = Annotated[int, Meta(ge=1, le=2**24)]
Side = Annotated[int, Meta(ge=1, le=8192)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Precision = Literal["fp32", "fp16", "int8"]
Parity = Mapping[str, Mapping[str, float]]
"""Figures of each head by name."""

_SHOWN = 4

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

    name: Name
    threshold: float
    ceiling: float

    def __post_init__(self) -> None:
        if not -math.inf < self.threshold < self.ceiling < math.inf:
            raise ValueError(
                f"head {self.name!r} has no scale from {self.threshold} to {self.ceiling}"
            )


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """What the image graph takes: `uint8 [height, width, 3]`, RGB; and its grid of features."""

    height: Side
    width: Side
    grid_height: Side
    grid_width: Side

    def __post_init__(self) -> None:
        patch, rest = divmod(self.height, self.grid_height)
        if rest or self.width != patch * self.grid_width:
            raise ValueError(
                f"frames of {self.height}x{self.width} are no grid of square patches, "
                f"{self.grid_height}x{self.grid_width}"
            )


@dataclass(frozen=True, kw_only=True)
class AudioInput:
    """What the audio graph takes: `float32 [window_samples]` at 16 kHz; and its tokens.

    `takes_normalized` says whether the window has to be normalised before; where not, the graph
    does it itself, each window by its own deviation.
    """

    window_samples: Count
    tokens: Count
    energy_floor_dbfs: Annotated[float, Meta(ge=-400, le=0)]
    takes_normalized: bool = False

    def __post_init__(self) -> None:
        if window_samples(self.tokens) != self.window_samples:
            raise ValueError(
                f"a window of {self.window_samples} samples does not hold {self.tokens} tokens"
            )


@dataclass(frozen=True, kw_only=True)
class StateTensor:
    """One tensor of an audio step's state, before any audio all zeros."""

    shape: Annotated[tuple[Count, ...], Meta(max_length=8)]
    dtype: Annotated[str, Meta(pattern="^(float32|float16|int64)$")]


@dataclass(frozen=True, kw_only=True)
class AudioStep:
    """What the audio step graph remembers, and its state tensors by name.

    It takes `float32 [TOKEN_SPAN_SAMPLES]`, normalised, the features before, and the state; it
    gives features like the audio graph's, of which the newest `1 + revisit` tokens are new, and
    the next state. `context_tokens` older tokens are seen by those. The states `in_place` may be
    written over those they were read from: a step reads nothing of them that it changes.
    """

    context_tokens: Count
    revisit: Annotated[int, Meta(ge=0)]
    states: Annotated[Mapping[Name, StateTensor], Meta(max_length=10_000)]
    in_place: Annotated[tuple[Name, ...], Meta(max_length=10_000)] = ()

    def __post_init__(self) -> None:
        if unknown := set(self.in_place) - set(self.states):
            raise ValueError(f"the audio step has no state {min(unknown)!r} to write in place")
        nbytes = sum(
            math.prod(state.shape) * np.dtype(state.dtype).itemsize
            for state in self.states.values()
        )
        if nbytes > STATE_MAX_BYTES:
            raise ValueError(f"the audio step's states have {nbytes:,} bytes")

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
    and `step_parity` of the audio step, where there is one, at the points of a long run, in
    `step_precision` where that was chosen by measure.
    `calibration` says what the heads' scale was set with, where that was a folder of pairs, and
    `naming` how heads got their names, and what they were called, where that was at export.
    """

    model: Name
    trained: bool
    source: Annotated[str, Meta(max_length=4096)]
    precision: Precision
    opset: Count
    heads: Annotated[tuple[Head, ...], Meta(min_length=1, max_length=64)]
    image: ImageInput
    audio: AudioInput
    parity: Parity
    files: Annotated[
        Mapping[
            Annotated[str, Meta(pattern=r"^[^/\\:\x00]{1,255}$")],
            Annotated[str, Meta(pattern="^[0-9a-f]{64}$")],
        ],
        Meta(max_length=1000),
    ]
    engine_parity: Parity = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    naming: Mapping[str, Any] = field(default_factory=dict)
    audio_step: AudioStep | None = None
    step_parity: Mapping[str, Parity] = field(default_factory=dict)
    step_precision: Precision | None = None
    schema: Annotated[int, Meta(ge=1)] = SCHEMA

    def __post_init__(self) -> None:
        names = {head.name for head in self.heads}
        if len(names) != len(self.heads):
            raise ValueError("two heads have the same name")
        for parity in (self.parity, self.engine_parity, *self.step_parity.values()):
            if not names.issuperset(parity):
                raise ValueError(f"parity is of other heads: {', '.join(parity)}")
        if self.audio_step is not None and self.audio_step.revisit >= self.audio.tokens:
            raise ValueError("the audio step computes more tokens again than a window holds")


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
    return cache_folder() / "bundle"


def window_samples(tokens: int) -> int:
    """Return how many samples at 16 kHz hold exactly `tokens` audio tokens."""
    return TOKEN_SPAN_SAMPLES + TOKEN_HOP_SAMPLES * (tokens - 1)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` into `folder`."""
    text = json.dumps(dataclasses.asdict(manifest), indent=2, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def open_bundle(folder: Path) -> Bundle:
    """Read and check the bundle in `folder`.

    Raises
    ------
    BundleError
        When the folder holds no bundle, its schema is newer than this program, a field is
        missing, of a wrong type or out of range, fields contradict each other, a file is missing
        or has another hash than the manifest's, or a graph takes or gives other tensors or reads
        files that the manifest does not name.
    """
    manifest = read_manifest(folder)
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
    _check_graphs(bundle)
    return bundle


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest in `folder`, and not the files that it names.

    Raises
    ------
    BundleError
        When there is none, or it is not one.
    """
    path = folder / MANIFEST
    try:
        data = read_bounded(path, MANIFEST_MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(
            f"{folder} holds no {MANIFEST}; make a bundle with: denseav-export CHECKPOINT --out DIR"
        ) from None
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read ({error.strerror}); export the bundle again"
        ) from None
    try:
        schema = parse_json(data, _Schema).schema
        if schema > SCHEMA:
            raise BundleError(
                f"{folder} has schema {schema}, newer than the {SCHEMA} this denseav reads; "
                "upgrade denseav"
            )
        return parse_json(data, Manifest)
    except ValueError as error:
        raise BundleError(
            f"{path} is no denseav manifest, or is damaged ({error}); export the bundle again"
        ) from None


@dataclass(frozen=True)
class _Schema:
    """What every manifest has, and all that is known of a newer one."""

    schema: Annotated[int, Meta(ge=1)]


def _check_graphs(bundle: Bundle) -> None:
    """Compare what each graph says of itself with the manifest, and with the other graphs."""
    graphs: dict[str, GraphFile] = {}
    for name in bundle.graphs:
        try:
            graphs[name] = read_graph(bundle.graph(name))
        except (OSError, ValueError) as error:
            raise BundleError(
                f"{bundle.graph(name)} cannot be read ({error}); export the bundle again"
            ) from None
        if unnamed := sorted(graphs[name].weights - set(bundle.manifest.files)):
            raise BundleError(
                f"{bundle.folder}: {name}.onnx reads {', '.join(unnamed)}, which the manifest does "
                "not name; export the bundle again"
            )
    for name, (inputs, outputs) in _expected(bundle.manifest, graphs).items():
        for what, found, expected in (
            ("takes", graphs[name].inputs, inputs),
            ("gives", graphs[name].outputs, outputs),
        ):
            if found != expected:
                raise BundleError(
                    f"{bundle.folder}: the {name} graph {what} {_listed(found)}, and the manifest "
                    f"says {_listed(expected)}; export the bundle again"
                )


Layouts = Mapping[str, Layout]


def _expected(
    manifest: Manifest, graphs: Mapping[str, GraphFile]
) -> dict[str, tuple[Layouts, Layouts]]:
    """Return what each graph has to take and give; features are as the encoders give them."""
    image, audio, heads = manifest.image, manifest.audio, len(manifest.heads)
    grid = (image.grid_height, image.grid_width)
    dtype, channels = _features(graphs["image"].outputs.get("image_features"))
    image_features: Layouts = {"image_features": (dtype, (heads, channels, *grid))}
    audio_features: Layouts = {"audio_features": (dtype, (heads, channels, audio.tokens))}
    expected: dict[str, tuple[Layouts, Layouts]] = {
        "image": ({"image": ("uint8", (image.height, image.width, 3))}, image_features),
        "audio": ({"wave": ("float32", (audio.window_samples,))}, audio_features),
        "heatmap": (
            {**image_features, **audio_features, "token": ("int64", (1,))},
            {"heat": ("float32", (heads, *grid))},
        ),
    }
    if manifest.audio_step is not None:
        past = {"past_features": audio_features["audio_features"]}
        states = {name: (s.dtype, s.shape) for name, s in manifest.audio_step.states.items()}
        expected[AUDIO_STEP] = (
            {"wave": ("float32", (TOKEN_SPAN_SAMPLES,)), **past, **states},
            {**audio_features, **{f"next_{name}": layout for name, layout in states.items()}},
        )
    return expected


def _features(layout: Layout | None) -> tuple[str, int]:
    """Return the dtype and number of channels of features `[K, C, H, W]`."""
    dtype, shape = layout or ("", ())
    return dtype, shape[1] if len(shape) == 4 else 0


def _listed(layouts: Layouts) -> str:
    shown = [f"{name} {dtype}{list(shape)}" for name, (dtype, shape) in layouts.items()]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return (", ".join(shown[:_SHOWN]) or "nothing") + more
