"""The audio encoder as a stream: each sample is encoded once; a step's state goes into the next.

The newest token's samples and the state enter; features of the newest tokens and the next state
leave, all plain tensors of fixed shapes. What stays the same is kept: frames before the
transformer, its keys and values, tokens before the aligner's mixer. What new audio changes most,
the last tokens, is computed anew. `streaming_mask.encode_audio_streamed` is the oracle.

Scaling is the caller's affair: a sample is scaled as it enters, and never again.

S samples at 16 kHz, L frames, N keys, R tokens computed in a step, D hidden, E shared channels,
H attention heads, K heads, C channels of a head.
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.hubert.modeling_hubert import (
    HubertAttention,
    HubertEncoderLayerStableLayerNorm,
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
    """A network's audio encoder, aligner and heads, a token at a time; in evaluation mode."""

    def __init__(self, model: DenseAV, config: StreamConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.frames_per_token = model.config.audio.frames_per_token
        self.active_frames = config.active_tokens * self.frames_per_token
        self.ring_frames = config.tokens * self.frames_per_token
        self.positions_before = model.config.audio.position_kernel // 2

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
        taken, memory = state.taken + 1, self.config.tokens
        return features_KCR, StreamState(
            taken=torch.where(taken < 2 * memory, taken, taken - memory),
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
        dtype = next(self.model.parameters()).dtype
        frames_BLD: Tensor = self.model.audio_encoder.stem(wave_S[None].to(dtype))
        return frames_BLD[0]

    def _transform(
        self, frames_LD: Tensor, state: StreamState
    ) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the active frames [L, D], and each layer's next keys and values."""
        encoder = self.model.audio_encoder.hubert.encoder
        hidden_LD = frames_LD[self.positions_before :] + self._positions(frames_LD)
        hidden_1LD = hidden_LD[None]  # products of three axes are exported so that int8 fits them
        places_L, mask_N = self._places(state.taken)
        keys, values = [], []
        for module, keys_HND, values_HND in zip(
            encoder.layers, state.keys_HND, state.values_HND, strict=True
        ):
            layer = cast(HubertEncoderLayerStableLayerNorm, module)
            normed_1LD = layer.layer_norm(hidden_1LD)
            attended_1LD, keys_HND, values_HND = self._attend(
                attention=layer.attention,
                normed_1LD=normed_1LD,
                keys_HND=keys_HND,
                values_HND=values_HND,
                places_L=places_L,
                mask_N=mask_N,
            )
            hidden_1LD = hidden_1LD + attended_1LD
            hidden_1LD = hidden_1LD + layer.feed_forward(layer.final_layer_norm(hidden_1LD))
            keys.append(keys_HND)
            values.append(values_HND)
        return encoder.layer_norm(hidden_1LD)[0], tuple(keys), tuple(values)

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

    def _attend(
        self,
        attention: HubertAttention,
        normed_1LD: Tensor,
        keys_HND: Tensor,
        values_HND: Tensor,
        places_L: Tensor,
        mask_N: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Put the active frames in their places in the ring, and let them see all that is there."""
        heads = attention.num_heads
        places = torch.arange(heads, device=places_L.device)[:, None], places_L[None]

        def split(projected_1LD: Tensor) -> Tensor:
            return projected_1LD.reshape(self.active_frames, heads, -1).transpose(0, 1)

        keys_HND = torch.index_put(keys_HND, places, split(attention.k_proj(normed_1LD)))
        values_HND = torch.index_put(values_HND, places, split(attention.v_proj(normed_1LD)))
        queries_HLD = split(attention.q_proj(normed_1LD) * attention.scaling)
        scores_HLN = torch.matmul(queries_HLD, keys_HND.transpose(1, 2)).float() + mask_N
        weights_HLN = functional.softmax(scores_HLN, dim=-1).to(values_HND.dtype)
        seen_LHD = torch.matmul(weights_HLN, values_HND).transpose(0, 1)
        attended_1LD: Tensor = attention.out_proj(seen_LHD.flatten(1)[None])
        return attended_1LD, keys_HND, values_HND

    def _places(self, taken: Tensor) -> tuple[Tensor, Tensor]:
        """Return where in the ring the active frames are put, [L], and its mask, [1, N].

        The mask is added to attention: -inf for places that no token of this audio has had.
        """
        first = (taken + self.config.tokens - self.config.revisit) * self.frames_per_token
        places_L = (
            first + torch.arange(self.active_frames, device=taken.device)
        ) % self.ring_frames
        frames_N = torch.arange(self.ring_frames, device=taken.device)
        begun_N = frames_N < (taken + 1) * self.frames_per_token
        return places_L, torch.where(begun_N, 0.0, float("-inf"))[None]

    def _align(self, hidden_LD: Tensor, state: StreamState) -> tuple[Tensor, Tensor]:
        """Return the active tokens' features [K, C, R], and the tokens to remember."""
        aligner, active = self.model.audio_aligner, self.config.active_tokens
        cls_BD = None if self.model.audio_cls is None else self.model.audio_cls[None]
        new_BER, cls_BE = aligner.tokens(hidden_LD.T[None], cls_BD)
        tokens_NE = torch.cat((state.tokens_NE, new_BER[0].T))
        age_N = torch.arange(self.config.tokens, device=state.taken.device).flip(0)
        mask_N = torch.where(age_N <= state.taken, 0.0, float("-inf"))[None]
        sequence_NE = tokens_NE
        if cls_BE is not None:
            mask_N = functional.pad(mask_N, (1, 0))
            sequence_NE = torch.cat((cls_BE, tokens_NE))
        mixed_BNE = aligner.mixer.mix(sequence_NE[None], mask_N.to(sequence_NE.dtype)[None, None])
        mixed_BER = mixed_BNE[:, -active:].transpose(1, 2)
        features_KCR = self.model.split_heads(
            mixed_BER, None if cls_BE is None else mixed_BNE[:, 0]
        )[0]
        begun_R = age_N[-active:] <= state.taken
        return features_KCR * begun_R, tokens_NE[1 : 1 + self.config.context_tokens]
