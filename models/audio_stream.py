"""The audio encoder as a stream: each sample is encoded once; a step's state goes into the next.

The newest token's samples and the state enter; features of the newest tokens and the next state
leave, all plain tensors of fixed shapes. What stays the same is kept: frames before the
transformer, its keys and values, tokens before the aligner's mixer. What new audio changes most,
the last tokens, is computed anew. `streaming_mask.encode_audio_streamed` is the oracle.

Scaling is the caller's affair: a sample is scaled as it enters, and never again.

S samples at 16 kHz, L frames, N keys, R tokens computed in a step, D hidden, E shared channels,
H attention heads, K heads, C channels of a head.
"""

from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.hubert.modeling_hubert import (
    HubertEncoderLayerStableLayerNorm,
    HubertLayerNormConvLayer,
)

from denseav.models.config import STEM_HOP_SAMPLES, STEM_SPAN_SAMPLES
from denseav.models.denseav import DenseAV
from denseav.models.streaming_mask import StreamConfig

OVERLAP_SAMPLES = STEM_SPAN_SAMPLES - STEM_HOP_SAMPLES
LOUDEST = 1000.0  # deviations; a sample of more, or that is no number, would never be forgotten


class StreamState(NamedTuple):
    """What a stream remembers between two steps.

    `taken` tokens were heard, int64 [1], counted round once its memory is full; `samples` are the
    last 80, float32; `frames` [L, D] enter the transformer again, those before them only its
    position convolution; `tokens` [N, E] are final, oldest first. Each layer's `keys` and `values`
    [H, N, D / H] are a ring: a token is always in the same place, and is written there again as
    long as it is computed again. A step reads no place that it does not write before, but those
    it leaves as they are, so it may write in place, and be repeated.
    """

    taken: Tensor
    samples_S: Tensor
    frames_LD: Tensor
    tokens_NE: Tensor
    keys_HND: tuple[Tensor, ...]
    values_HND: tuple[Tensor, ...]

    def named(self) -> dict[str, Tensor]:
        """Return all tensors by name, in the order that `from_flat` takes."""
        layers = range(len(self.keys_HND))
        return {
            "taken": self.taken,
            "samples": self.samples_S,
            "frames": self.frames_LD,
            "tokens": self.tokens_NE,
            **{f"keys_{layer}": self.keys_HND[layer] for layer in layers},
            **{f"values_{layer}": self.values_HND[layer] for layer in layers},
        }

    @classmethod
    def from_flat(cls, tensors: tuple[Tensor, ...]) -> "StreamState":
        """Return the state of which these are the tensors, in the order of `named`."""
        taken, samples_S, frames_LD, tokens_NE, *cached = tensors
        layers = len(cached) // 2
        keys, values = tuple(cached[:layers]), tuple(cached[layers:])
        return cls(taken, samples_S, frames_LD, tokens_NE, keys, values)


class AudioStream(nn.Module):
    """A network's audio encoder, aligner and heads, a token at a time; in evaluation mode.

    The same numbers as the modules give, in fewer and smaller operations: rows of frames stay rows,
    and only tokens that are asked for are mixed.
    """

    places_TL: Tensor
    ring_mask_TN: Tensor
    token_mask_TN: Tensor
    next_T: Tensor

    def __init__(self, model: DenseAV, config: StreamConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.frames_per_token = model.config.audio.frames_per_token
        self.active_frames = config.active_tokens * self.frames_per_token
        self.ring_frames = config.tokens * self.frames_per_token
        self.positions_before = model.config.audio.position_kernel // 2
        self._tabulate(next(model.parameters()).device)

    def _tabulate(self, device: torch.device) -> None:
        """Note what follows from how many tokens were taken: a row for each number, T of them.

        Where in the ring the active frames are put; the masks of ring and tokens, which are added
        to attention: -inf for what no token of this audio has had; and the next number.
        """
        config, memory = self.config, self.config.tokens
        taken_T1 = torch.arange(2 * memory, device=device)[:, None]
        active_L = torch.arange(self.active_frames, device=device)
        first_T1 = (taken_T1 + memory - config.revisit) * self.frames_per_token
        frames_N = torch.arange(self.ring_frames, device=device)
        ages_N = torch.arange(memory, device=device).flip(0)
        if self.model.audio_cls is not None:
            ages_N = functional.pad(ages_N, (0, 1))  # the CLS comes last, and is always there
        tables = {
            "places_TL": (first_T1 + active_L) % self.ring_frames,
            "ring_mask_TN": _additive(frames_N < (taken_T1 + 1) * self.frames_per_token),
            "token_mask_TN": _additive(ages_N <= taken_T1),
            "next_T": torch.cat((taken_T1[1:, 0], taken_T1[memory, :1])),  # round and round
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def start(self) -> StreamState:
        """Return the state before any audio."""
        audio, config = self.model.config.audio, self.config
        like = next(self.model.parameters())
        ring = (audio.heads, self.ring_frames, audio.hidden // audio.heads)
        frames = config.revisit * self.frames_per_token + self.positions_before
        return StreamState(
            taken=torch.zeros(1, dtype=torch.int64, device=like.device),
            samples_S=torch.zeros(OVERLAP_SAMPLES, device=like.device),
            frames_LD=like.new_zeros(frames, audio.hidden),
            tokens_NE=like.new_zeros(config.context_tokens, self.model.config.code_dim),
            keys_HND=tuple(like.new_zeros(ring) for _ in range(audio.layers)),
            values_HND=tuple(like.new_zeros(ring) for _ in range(audio.layers)),
        )

    def forward(self, wave_S: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """Take one token more.

        Parameters
        ----------
        wave_S
            float32, scaled; exactly the samples of the new token, `token_span_samples` of them.
            The first 80 are those that the step before ended with and filled only in a first
            step. A sample that is no number, or beyond 1000 deviations, counts as silence.
        state
            `start()`, or what the step before returned.

        Returns
        -------
        tuple[Tensor, StreamState]
            The features [K, C, R] of the newest R tokens, oldest first, zeros for those before
            the audio began; and the next state.
        """
        wave_S = self._joined(wave_S, state)
        frames_LD = torch.cat((state.frames_LD, self._stem(wave_S)))
        hidden_LD, keys_HND, values_HND = self._transform(frames_LD, state)
        features_KCR, tokens_NE = self._align(hidden_LD, state)
        return features_KCR, StreamState(
            taken=self.next_T.index_select(0, state.taken),
            samples_S=wave_S[-OVERLAP_SAMPLES:],
            frames_LD=frames_LD[self.frames_per_token :],
            tokens_NE=tokens_NE,
            keys_HND=keys_HND,
            values_HND=values_HND,
        )

    def _joined(self, wave_S: Tensor, state: StreamState) -> Tensor:
        """Put the samples that are there already, as they were scaled, before the new ones."""
        wave_S = torch.where(wave_S.abs() <= LOUDEST, wave_S, torch.zeros_like(wave_S))
        before_S = torch.where(state.taken > 0, state.samples_S, wave_S[:OVERLAP_SAMPLES])
        return torch.cat((before_S, wave_S[OVERLAP_SAMPLES:]))

    def _stem(self, wave_S: Tensor) -> Tensor:
        """Return the frames [L, D] of these samples, as `AudioEncoder.stem` does."""
        hubert = self.model.audio_encoder.hubert
        layers = cast(list[HubertLayerNormConvLayer], hubert.feature_extractor.conv_layers)
        first, *others = layers
        convolved_BCL = first.conv(wave_S[None, None].to(first.conv.weight.dtype))
        frames_LC = first.activation(first.layer_norm(convolved_BCL[0].T))
        for layer in others:
            frames_LC = layer.activation(layer.layer_norm(_convolve(layer.conv, frames_LC)))
        projection = hubert.feature_projection
        return _project(projection.projection, projection.layer_norm(frames_LC))

    def _transform(
        self, frames_LD: Tensor, state: StreamState
    ) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the active frames [L, D], and each layer's next keys and values."""
        encoder = self.model.audio_encoder.hubert.encoder
        hidden_LD = frames_LD[self.positions_before :] + self._positions(frames_LD)
        heads_H1 = torch.arange(self.model.config.audio.heads, device=hidden_LD.device)[:, None]
        places = heads_H1, self.places_TL.index_select(0, state.taken)
        mask_1N = self.ring_mask_TN.index_select(0, state.taken)
        keys, values = [], []
        for module, keys_HND, values_HND in zip(
            encoder.layers, state.keys_HND, state.values_HND, strict=True
        ):
            layer = cast(HubertEncoderLayerStableLayerNorm, module)
            attention, normed_LD = layer.attention, layer.layer_norm(hidden_LD)
            split = partial(_split, heads=attention.num_heads)
            keys_HND = torch.index_put(
                keys_HND, places, split(_project(attention.k_proj, normed_LD))
            )
            values_HND = torch.index_put(
                values_HND, places, split(_project(attention.v_proj, normed_LD))
            )
            queries_HLD = split(_project(attention.q_proj, normed_LD) * attention.scaling)
            attended_LD = _attend(queries_HLD, keys_HND, values_HND, mask_1N)
            hidden_LD = hidden_LD + _project(attention.out_proj, attended_LD)
            feed, normed_LD = layer.feed_forward, layer.final_layer_norm(hidden_LD)
            wide_LW = feed.intermediate_act_fn(_project(feed.intermediate_dense, normed_LD))
            hidden_LD = hidden_LD + _project(feed.output_dense, wide_LW)
            keys.append(keys_HND)
            values.append(values_HND)
        return encoder.layer_norm(hidden_LD), tuple(keys), tuple(values)

    def _positions(self, frames_LD: Tensor) -> Tensor:
        """Return the active frames' position terms [L, D]: no frame after the newest is there."""
        embedding = self.model.audio_encoder.hubert.encoder.pos_conv_embed
        convolution = embedding.conv
        after = convolution.kernel_size[0] - 1 - self.positions_before
        placed_1DL = functional.conv1d(
            functional.pad(frames_LD.T[None], (0, after)),
            convolution.weight,
            convolution.bias,
            groups=convolution.groups,
        )
        activated_1DL: Tensor = cast(nn.Module, embedding.activation)(placed_1DL)
        return activated_1DL[0].T

    def _align(self, hidden_LD: Tensor, state: StreamState) -> tuple[Tensor, Tensor]:
        """Return the active tokens' features [K, C, R], and the tokens to remember."""
        cls_BD = None if self.model.audio_cls is None else self.model.audio_cls[None]
        new_BER, cls_BE = self.model.audio_aligner.tokens(hidden_LD.T[None], cls_BD)
        tokens_NE = torch.cat((state.tokens_NE, new_BER[0].T))
        sequence_NE = tokens_NE if cls_BE is None else torch.cat((tokens_NE, cls_BE))
        mask_1N = self.token_mask_TN.index_select(0, state.taken)
        active = self.config.active_tokens
        mixed_RE = self._mix(sequence_NE, mask_1N)
        features_KCR = self.model.split_heads(
            mixed_RE[:active].T[None], None if cls_BE is None else mixed_RE[active:]
        )[0]
        begun_R = mask_1N[0, self.config.context_tokens : self.config.tokens] == 0
        return features_KCR * begun_R, tokens_NE[1 : 1 + self.config.context_tokens]

    def _mix(self, sequence_NE: Tensor, mask_1N: Tensor) -> Tensor:
        """Return the active tokens and the CLS [R, E] as `TokenMixer.mix` does, not the others."""
        mixer = self.model.audio_aligner.mixer
        block, attention = mixer.block, mixer.block.attention
        if mixer.padding:
            sequence_NE = functional.pad(sequence_NE, (mixer.padding, 0))
        mixed_RE = sequence_NE[self.config.context_tokens :]
        normed_NE = block.layernorm_before(sequence_NE)
        normed_RE = normed_NE[self.config.context_tokens :]
        split = partial(_split, heads=attention.num_attention_heads)
        attended_RE = _attend(
            queries_HLD=split(_project(attention.q_proj, normed_RE) * attention.scaling),
            keys_HND=split(_project(attention.k_proj, normed_NE)),
            values_HND=split(_project(attention.v_proj, normed_NE)),
            mask_1N=mask_1N,
        )
        mixed_RE = mixed_RE + _project(attention.o_proj, attended_RE)
        mixed_1RE = mixed_RE[None]  # OpenVINO's compiler crashes on this sum of a few rows as rows
        wide_1RW = block.mlp.activation_fn(
            _project(block.mlp.fc1, block.layernorm_after(mixed_1RE))
        )
        mixed_1RE = mixed_1RE + _project(block.mlp.fc2, wide_1RW)
        return mixed_1RE[0, :, mixer.padding :]


def _additive(seen: Tensor) -> Tensor:
    """Return what is added to attention: 0 where something is seen, else -inf; float32."""
    return torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, float("-inf"))


def _project(linear: nn.Module, rows_xD: Tensor) -> Tensor:
    """Return what a linear layer does, as a plain product and a sum.

    So it is exported: eight bits fit it, and its weights lie as those of the window's graph do.
    """
    assert isinstance(linear, nn.Linear)
    return torch.matmul(rows_xD, linear.weight.T) + linear.bias


def _convolve(convolution: nn.Conv1d, frames_LC: Tensor) -> Tensor:
    """Return what a convolution does, of frames side by side: products of as many as it steps by.

    Nothing has to be transposed, and what one product sees of the frames lies in one piece.
    """
    (taps,), (stride,) = convolution.kernel_size, convolution.stride
    length = (len(frames_LC) - taps) // stride + 1
    weight_TCE = convolution.weight.permute(2, 1, 0)
    convolved_LE = convolution.bias
    assert convolved_LE is not None
    whole = taps - taps % stride
    for tap in range(0, whole, stride):
        blocks_LX = frames_LC[tap : tap + length * stride].reshape(length, -1)
        weight_XE = weight_TCE[tap : tap + stride].flatten(0, 1)
        convolved_LE = torch.matmul(blocks_LX, weight_XE) + convolved_LE
    for tap in range(whole, taps):
        every_LC = frames_LC[tap::stride][:length]
        convolved_LE = torch.matmul(every_LC, weight_TCE[tap]) + convolved_LE
    return convolved_LE


def _split(rows_LD: Tensor, heads: int) -> Tensor:
    """Return rows head by head, [H, L, D / H]."""
    return rows_LD.reshape(len(rows_LD), heads, -1).transpose(0, 1)


def _attend(queries_HLD: Tensor, keys_HND: Tensor, values_HND: Tensor, mask_1N: Tensor) -> Tensor:
    """Return what each query sees, [L, D], all heads side by side; softmax in float32."""
    scores_HLN = torch.matmul(queries_HLD, keys_HND.transpose(1, 2)).float() + mask_1N
    weights_HLN = functional.softmax(scores_HLN, dim=-1).to(values_HND.dtype)
    return torch.matmul(weights_HLN, values_HND).transpose(0, 1).flatten(1)
