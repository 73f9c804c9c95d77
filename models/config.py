"""What one network is, as a checked, frozen record that travels as JSON beside the weights.

JSON enters, a `ModelConfig` leaves, and back. This file knows sizes, kinds and head names;
it knows nothing of weights and imports no torch.

Errors
------
CheckpointError      a configuration or checkpoint cannot be used as it is (exit code 4)
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from denseav.export.outside_files import parse_json

SAMPLE_RATE_HZ = 16_000

FORMAT = "denseav-model"
SCHEMA = 1

WEIGHTS_MAX = 2**31  # eight times as many as the paper's network: 8 GB
LAYERS_MAX = 256
SIZE_MAX = 2**16
HEADS_MAX = 64
NAME_CHARS_MAX = 200
_SHOWN = 20

STEM_KERNELS = (10, 3, 3, 3, 3, 2, 2)
STEM_STRIDES = (5, 2, 2, 2, 2, 2, 2)
STEM_HOP_SAMPLES = 320
STEM_SPAN_SAMPLES = 400

AudioAlignerKind = Literal["pool", "project_pool", "project"]
Clips = Literal["misa", "mima", "sisa", "paired"]
HeadUnion = Literal["max_elementwise", "max", "sum"]


class CheckpointError(ValueError):
    """A configuration or checkpoint cannot be used as it is; the message says what to do."""

    exit_code: ClassVar[int] = 4


def _positive(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise CheckpointError(f"{name} must be at least 1, not {getattr(config, name)}")
        most = LAYERS_MAX if name == "layers" else SIZE_MAX
        if getattr(config, name) > most:
            raise CheckpointError(f"{name} must be at most {most}, not {getattr(config, name)}")


def _fraction(config: object, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise CheckpointError(f"{name} must be in [0, 1), not {getattr(config, name)}")


def _divides(config: object, divisor: str, whole: str) -> None:
    if getattr(config, whole) % getattr(config, divisor):
        raise CheckpointError(
            f"{whole} {getattr(config, whole)} is no multiple of "
            f"{divisor} {getattr(config, divisor)}"
        )


def _one_of(config: object, name: str, kinds: object) -> None:
    if getattr(config, name) not in get_args(kinds):
        raise CheckpointError(
            f"{name} must be one of {', '.join(get_args(kinds))}, not {getattr(config, name)!r}"
        )


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters beside the query, key and value projections of one encoder.

    Attributes
    ----------
    rank
        Of the two factors of each adapter.
    alpha
        What they add counts alpha / rank times.
    dropout
        How much of their input is left out, in training mode only.
    """

    rank: int = 8
    alpha: int = 32
    dropout: float = 0.1

    def __post_init__(self) -> None:
        _positive(self, "rank", "alpha")
        _fraction(self, "dropout")


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """A DINO vision transformer and its aligner.

    Attributes
    ----------
    size
        Side, in pixels, of the square image the position table was made for; other sizes
        interpolate it.
    patch
        Side of a patch, in pixels.
    hidden
        Channels of the transformer.
    layers
        How many it has.
    heads
        Of its attention.
    pool_width
        Side of the squares over which the aligned grid is averaged, in training mode only.
    attention_width
        A patch sees only so many patches across and down, itself in the middle (an odd number;
        the CLS token still sees all, and no patch sees it); 0 has no limit.
    lora
        Adapters, with the encoder's own weights as they are; None lets those learn.
    """

    size: int = 224
    patch: int = 8
    hidden: int = 384
    layers: int = 12
    heads: int = 6
    pool_width: int = 2
    attention_width: int = 0
    lora: LoraConfig | None = None

    def __post_init__(self) -> None:
        _positive(self, "size", "patch", "hidden", "layers", "heads", "pool_width")
        _divides(self, "heads", "hidden")
        _divides(self, "patch", "size")
        if self.attention_width and (self.attention_width < 0 or self.attention_width % 2 == 0):
            raise CheckpointError(
                f"attention_width must be odd, or 0 for no limit, not {self.attention_width}"
            )


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """A HuBERT encoder and its aligner.

    Attributes
    ----------
    stem_channels
        Of the convolutions before the transformer.
    hidden
        Channels of the transformer.
    layers
        How many it has.
    heads
        Of its attention.
    position_kernel
        Width of the convolution that stands for positions, in frames of 20 ms.
    position_groups
        Groups of that convolution.
    aligner
        `pool` (norm, two stride-3 convolutions, a transformer block: the released one),
        `project_pool` (a 1x1 projection before two normed stride-3 convolutions) or `project`
        (no pooling: one token for every 20 ms).
    aligner_heads
        Of the attention in the aligner's block.
    learned_cls
        Give that block a learned CLS token.
    pool_width
        Over so many tokens features are averaged, in training mode only.
    dropout
        Of the encoder, in training mode only.
    layer_drop
        How often a layer is passed by, in training mode only.
    time_mask
        How much of the time is hidden from the encoder, about, in training mode only.
    lora
        Adapters, with the encoder's own weights as they are; None lets those learn.
    """

    stem_channels: int = 512
    hidden: int = 1024
    layers: int = 24
    heads: int = 16
    position_kernel: int = 128
    position_groups: int = 16
    aligner: AudioAlignerKind = "pool"
    aligner_heads: int = 6
    learned_cls: bool = True
    pool_width: int = 1
    dropout: float = 0.1
    layer_drop: float = 0.1
    time_mask: float = 0.05
    lora: LoraConfig | None = None

    def __post_init__(self) -> None:
        _positive(self, "stem_channels", "hidden", "layers", "heads", "position_kernel")
        _positive(self, "position_groups", "aligner_heads", "pool_width")
        _divides(self, "heads", "hidden")
        _divides(self, "position_groups", "hidden")
        _one_of(self, "aligner", AudioAlignerKind)
        _fraction(self, "dropout", "layer_drop", "time_mask")

    @property
    def frames_per_token(self) -> int:
        """Return how many of the encoder's frames the aligner pools into one token."""
        return 1 if self.aligner == "project" else 9

    @property
    def token_hop_samples(self) -> int:
        """Return the distance between two audio tokens, in samples at 16 kHz."""
        return STEM_HOP_SAMPLES * self.frames_per_token

    @property
    def token_span_samples(self) -> int:
        """Return how many samples one token's convolutions hear, the least there can be."""
        return self.token_hop_samples + STEM_SPAN_SAMPLES - STEM_HOP_SAMPLES


@dataclass(frozen=True, kw_only=True)
class Aggregation:
    """How a whole volume becomes one similarity.

    Attributes
    ----------
    clips
        The reduction: `misa` (max over the image, mean over time), `mima` (max, max), `sisa`
        (mean, mean) or `paired` (the half sum of misa and of the image mean of the time max).
    heads
        How heads are joined: element by element before it, or `max` or `sum` after it.
    nonnegative
        Take negative inner products as 0.
    mask_silence
        Leave tokens without sound out of the mean.
    """

    clips: Clips = "misa"
    heads: HeadUnion = "max_elementwise"
    nonnegative: bool = False
    mask_silence: bool = True

    def __post_init__(self) -> None:
        _one_of(self, "clips", Clips)
        _one_of(self, "heads", HeadUnion)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One network: its encoders, its aligners and its heads.

    Attributes
    ----------
    name
        What it is called; any word.
    trained
        False for random weights; nothing that is untrained may look trained.
    heads
        Their names.
    code_dim
        Channels of all heads together.
    cls_similarity
        Add the inner product of the CLS features to the whole volume.
    unit_vectors
        Give features unit length: similarities are cosines.
    calibrator_bias
        There when the loss is not InfoNCE, which would not see it.
    image
        The image encoder and its aligner.
    audio
        The audio encoder and its aligner.
    aggregation
        How a whole volume becomes one similarity.
    """

    name: str
    trained: bool = False
    heads: tuple[str, ...] = ("speech", "sound")
    code_dim: int = 384
    cls_similarity: bool = False
    unit_vectors: bool = False
    calibrator_bias: bool = False
    image: ImageConfig = ImageConfig()
    audio: AudioConfig = AudioConfig()
    aggregation: Aggregation = Aggregation()

    def __post_init__(self) -> None:
        _positive(self, "code_dim")
        if not self.heads or len(set(self.heads)) != len(self.heads) or "" in self.heads:
            raise CheckpointError(f"heads must be different names, not {list(self.heads)}")
        if len(self.heads) > HEADS_MAX or max(map(len, self.heads)) > NAME_CHARS_MAX:
            raise CheckpointError(
                f"there can be at most {HEADS_MAX} heads, with names of {NAME_CHARS_MAX} characters"
            )
        if self.code_dim % len(self.heads):
            raise CheckpointError(
                f"code_dim {self.code_dim} does not divide among {len(self.heads)} heads"
            )
        if self.cls_similarity and not self.audio.learned_cls:
            raise CheckpointError("cls_similarity needs audio.learned_cls: audio has no other CLS")
        if self._weights() > WEIGHTS_MAX:
            raise CheckpointError(
                f"a network of these sizes has about {self._weights():,} weights, more than "
                f"{WEIGHTS_MAX:,}; lower hidden, layers, size or kernels"
            )

    @property
    def channels(self) -> int:
        """Return the channels C of one head's features, the CLS channels included."""
        return self.code_dim // len(self.heads) * (2 if self.cls_similarity else 1)

    @property
    def frame_size(self) -> tuple[int, int]:
        """Return height and width, in pixels, of a 4:3 frame with the trained short side."""
        return self.image.size, self.image.size * 4 // 3 // self.image.patch * self.image.patch

    def _weights(self) -> int:
        """Return about how many weights there are: what grows fastest with each size."""
        image, audio = self.image, self.audio
        layers = 12 * (image.hidden**2 * image.layers + audio.hidden**2 * audio.layers)
        patches = image.hidden * ((image.size // image.patch) ** 2 + 3 * image.patch**2)
        stem = sum(STEM_KERNELS) * audio.stem_channels**2
        position = audio.hidden**2 // audio.position_groups * audio.position_kernel
        aligners = self.code_dim * (image.hidden + 9 * audio.hidden) + 20 * self.code_dim**2
        return layers + patches + stem + position + aligners

    def without_lora(self) -> "ModelConfig":
        """Return the same network with plain layers only, as it is once LoRA is merged."""
        image = dataclasses.replace(self.image, lora=None)
        return dataclasses.replace(
            self, image=image, audio=dataclasses.replace(self.audio, lora=None)
        )

    @classmethod
    def from_json(cls, text: str) -> "ModelConfig":
        """Read a configuration.

        Raises
        ------
        CheckpointError
            When the text is no denseav configuration, is newer than this program, or a field
            is unknown, missing, of the wrong type or out of range.
        """
        try:
            record = parse_json(text.encode(), object)
        except ValueError as error:
            raise CheckpointError(f"the configuration is not JSON ({error})") from None
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise CheckpointError("this is not a denseav configuration")
        schema = record.get("schema")
        if not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
            raise CheckpointError(
                f"the configuration has schema {schema!r}, this denseav reads up to {SCHEMA}; "
                "upgrade denseav"
            )
        config: ModelConfig = _parse(cls, record.get("model"), "model")
        return config

    def to_json(self) -> str:
        """Return the configuration as indented JSON."""
        record = {"format": FORMAT, "schema": SCHEMA, "model": dataclasses.asdict(self)}
        return json.dumps(record, indent=2) + "\n"


_NESTED: Mapping[str, type] = {
    "image": ImageConfig,
    "audio": AudioConfig,
    "aggregation": Aggregation,
    "lora": LoraConfig,
}


def _parse(kind: type, record: object, where: str) -> Any:
    if not isinstance(record, dict):
        raise CheckpointError(f"configuration: {where} must be an object")
    known = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(set(record) - set(known))
    if unknown:
        shown = ", ".join(name[:40] for name in unknown[:_SHOWN])
        raise CheckpointError(f"configuration: {where} has unknown fields: {shown}")
    values = {
        name: _value(known[name].type, value, f"{where}.{name}") for name, value in record.items()
    }
    try:
        return kind(**values)
    except TypeError:
        raise CheckpointError(f"configuration: {where} needs a name") from None


def _value(kind: Any, value: Any, where: str) -> Any:
    name = where.rsplit(".", 1)[-1]
    if name in _NESTED:
        return None if value is None and name == "lora" else _parse(_NESTED[name], value, where)
    if kind is float and type(value) is int:
        value = float(value)
    if kind == tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise CheckpointError(f"configuration: {where} must be a list of names")
        return tuple(value)
    expected = kind if isinstance(kind, type) else str
    if type(value) is not expected:
        raise CheckpointError(
            f"configuration: {where} must be {expected.__name__}, not {value!r:.80}"
        )
    return value
