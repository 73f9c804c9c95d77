"""The four graphs of a bundle as torch modules: preprocessing, network and similarity.

A trained `DenseAV` enters; modules that take what sensors give leave. ONNX and TensorRT are
both made from these, so that one precision means the same numbers in both.
Axes: K heads, C channels, H W pixels or grid, T tokens, S samples.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from denseav.export.runtime.bundle import AUDIO_STEP, TOKEN_SPAN_SAMPLES
from denseav.export.runtime.session import Level, normalized
from denseav.models import DenseAV
from denseav.models.audio_stream import AudioStream, StreamState
from denseav.models.image_encoder import IMAGE_MEAN, IMAGE_STD
from denseav.models.similarity import similarity_slice
from denseav.models.streaming_mask import StreamConfig


class Graph(nn.Module):
    """A module with the names that its inputs and outputs have in a bundle."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class ImageGraph(Graph):
    """The picture's way: scaled, normalised as in training, encoded."""

    inputs = ("image",)
    outputs = ("image_features",)

    def __init__(self, model: DenseAV) -> None:
        super().__init__()
        self.model = model

    def forward(self, image_HW3: Tensor) -> Tensor:
        """Encode a uint8 RGB picture into features [K, C, H, W] over the grid."""
        mean_311 = torch.tensor(IMAGE_MEAN)[:, None, None]
        std_311 = torch.tensor(IMAGE_STD)[:, None, None]
        pixels_3HW = (image_HW3.float().permute(2, 0, 1) / 255 - mean_311) / std_311
        return self.model.encode_image(pixels_3HW[None].to(_dtype(self.model)))[0]


class AudioGraph(Graph):
    """The sound's way: a window that the session has normalised, encoded."""

    inputs = ("wave",)
    outputs = ("audio_features",)

    def __init__(self, model: DenseAV) -> None:
        super().__init__()
        self.model = model

    def forward(self, normed_S: Tensor) -> Tensor:
        """Encode a float32 waveform at 16 kHz, zero mean and unit deviation, into [K, C, T]."""
        return self.model.encode_audio(normed_S[None].to(_dtype(self.model)))[0]


class AudioStepGraph(Graph):
    """A stream's way: one token that the session has normalised, and all that is remembered.

    Its features are shaped like a window's: those of older tokens are handed on as they were.
    """

    def __init__(self, stream: AudioStream, tokens: int) -> None:
        super().__init__()
        self.stream = stream
        self.tokens = tokens
        states = tuple(stream.start().named())
        self.inputs = ("wave", "past_features", *states)
        self.outputs = ("audio_features", *(f"next_{name}" for name in states))

    def forward(self, normed_S: Tensor, past_KCT: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Return the features [K, C, T] and the next states, from those before."""
        features_KCR, state = self.stream(normed_S, StreamState.from_flat(states))
        older = self.tokens - self.stream.config.active_tokens
        features_KCT = torch.cat((past_KCT[:, :, 1 : 1 + older], features_KCR), dim=2)
        return features_KCT, *state.named().values()

    def start(self) -> tuple[Tensor, ...]:
        """Return features and states before any audio."""
        config, like = self.stream.model.config, next(self.parameters())
        past_KCT = like.new_zeros(len(config.heads), config.channels, self.tokens)
        return past_KCT, *self.stream.start().named().values()


class HeatmapGraph(Graph):
    """Both features and the token in question: the similarity slice, in float32."""

    inputs = ("image_features", "audio_features", "token")
    outputs = ("heat",)

    def forward(self, image_KCHW: Tensor, audio_KCT: Tensor, token_1: Tensor) -> Tensor:
        """Return the heat [K, H, W] of audio token `token_1`, int64 [1]."""
        return similarity_slice(image_KCHW, audio_KCT.index_select(2, token_1).squeeze(2))


@dataclass(frozen=True, eq=False)
class Graphs:
    """The modules, run by PyTorch: the slow session that every other is compared with."""

    image_graph: ImageGraph
    audio_graph: AudioGraph
    heatmap_graph: HeatmapGraph
    step_graph: AudioStepGraph | None = None
    backend: str = "torch-cpu"
    precision: str = "fp32"

    def encode_image(self, image_HW3: NDArray[np.uint8]) -> Tensor:
        """As `Session.encode_image`."""
        return _run(self.image_graph, torch.from_numpy(image_HW3))

    def encode_audio(self, wave_S: NDArray[np.float32], least_deviation: float = 0.0) -> Tensor:
        """As `Session.encode_audio`."""
        return _run(self.audio_graph, torch.from_numpy(normalized(wave_S, least_deviation)))

    def audio_stream(self) -> "TorchAudioStream":
        """As `Session.audio_stream`."""
        assert self.step_graph is not None
        return TorchAudioStream(self.step_graph)

    def heatmap(self, image: Tensor, audio: Tensor, token: int) -> NDArray[np.float32]:
        """As `Session.heatmap`."""
        heat_KHW = _run(self.heatmap_graph, image, audio, torch.tensor([token]))
        return np.asarray(heat_KHW.numpy(), dtype=np.float32)

    def dense(self, image: Tensor) -> NDArray[np.float32]:
        """As `Session.dense`."""
        return np.array(image.numpy(), np.float32)

    def named(self) -> dict[str, Graph]:
        """Return the modules by their names in a bundle."""
        graphs: dict[str, Graph] = {
            "image": self.image_graph,
            "audio": self.audio_graph,
            "heatmap": self.heatmap_graph,
        }
        return graphs if self.step_graph is None else graphs | {AUDIO_STEP: self.step_graph}

    def examples(self, height: int, width: int, samples: int) -> dict[str, tuple[Tensor, ...]]:
        """Return inputs for each module by name, for an exporter to trace with."""
        image_HW3 = torch.zeros(height, width, 3, dtype=torch.uint8)
        wave_S = torch.zeros(samples)
        features = _run(self.image_graph, image_HW3), _run(self.audio_graph, wave_S)
        examples: dict[str, tuple[Tensor, ...]] = {
            "image": (image_HW3,),
            "audio": (wave_S,),
            "heatmap": (*features, torch.tensor([0])),
        }
        if self.step_graph is not None:
            examples[AUDIO_STEP] = (torch.zeros(TOKEN_SPAN_SAMPLES), *self.step_graph.start())
        return examples


class TorchAudioStream:
    """The audio step module and its state, run by PyTorch."""

    def __init__(self, graph: AudioStepGraph) -> None:
        self._graph = graph
        self._carried = graph.start()

    def step(self, samples_S: NDArray[np.float32], level: Level) -> Tensor:
        """As `Session.AudioStream.step`."""
        normed_S = torch.from_numpy(level.normalized(samples_S))
        with torch.no_grad():
            carried: tuple[Tensor, ...] = self._graph(normed_S, *self._carried)
        self._carried = carried
        return carried[0]

    def reset(self) -> None:
        """As `Session.AudioStream.reset`."""
        self._carried = self._graph.start()


def make_graphs(model: DenseAV, config: StreamConfig | None = None, tokens: int = 0) -> Graphs:
    """Wrap a model that `prepare_export` has made ready.

    With `config`, the audio step is there too, and gives features of `tokens` tokens.
    """
    step = None if config is None else AudioStepGraph(AudioStream(model, config), tokens)
    graphs = Graphs(ImageGraph(model), AudioGraph(model), HeatmapGraph(), step)
    for graph in graphs.named().values():
        graph.eval()
    return graphs


@torch.no_grad()
def _run(graph: Graph, *inputs: Tensor) -> Tensor:
    output: Tensor = graph(*inputs)
    return output


def _dtype(model: nn.Module) -> torch.dtype:
    return next(model.parameters()).dtype
