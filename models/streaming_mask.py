"""Whole waveforms at once, seen as a stream sees them: the oracle of `AudioStream`, for training.

Waveforms and a `StreamConfig` enter; what every step of the stream gives leaves. A stream computes
its newest tokens again with each new one, so a token has as many versions as it was computed
times, and an older one is seen as it was when it was last computed. All versions side by side make
one plain sequence, and what a step remembers is a mask over it. Gradients pass.

B clips, T steps (one a token), R tokens computed in a step, F frames of a token, D hidden,
E shared channels, K heads, C channels of a head, S samples at 16 kHz.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from denseav.models.config import CheckpointError
from denseav.models.denseav import DenseAV


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """What a stream remembers.

    `context_tokens` older tokens are remembered as they were when they were last computed;
    `revisit` tokens are computed anew beside each new one.
    """

    context_tokens: int
    revisit: int

    def __post_init__(self) -> None:
        if self.context_tokens < 1 or self.revisit < 0:
            raise CheckpointError(
                "a stream remembers at least 1 token and computes at least 0 again, not "
                f"{self.context_tokens} and {self.revisit}"
            )

    @property
    def active_tokens(self) -> int:
        """Return R, how many tokens one step computes."""
        return 1 + self.revisit

    @property
    def tokens(self) -> int:
        """Return how many tokens a step sees once its memory is full."""
        return self.context_tokens + self.active_tokens


def stream_mask(steps: int, config: StreamConfig) -> Tensor:
    """Return what each step sees, bool [T, T, R]: of step t, token r of step s.

    Token r of step s is token `s - revisit + r` of the audio. A step sees its own tokens, and of
    the `context_tokens` steps before it the oldest token, which was not computed again after.
    Tokens before the audio began are seen by none.
    """
    step_T11 = torch.arange(steps)[:, None, None]
    step_1T1 = torch.arange(steps)[None, :, None]
    token_11R = torch.arange(config.active_tokens)
    back_TT1 = step_T11 - step_1T1
    remembered_TTR = (back_TT1 > 0) & (back_TT1 <= config.context_tokens) & (token_11R == 0)
    begun_1TR = step_1T1 - config.revisit + token_11R >= 0
    return ((back_TT1 == 0) | remembered_TTR) & begun_1TR


def encode_audio_streamed(model: DenseAV, wave_BS: Tensor, config: StreamConfig) -> Tensor:
    """Return what `AudioStream` gives at every step, [B, T, K, C, R].

    Parameters
    ----------
    wave_BS
        float32 at 16 kHz, normalised; T tokens, what is left over is dropped.

    Returns
    -------
    Tensor
        The features of token `t - revisit + r` as of step t; zeros before the audio began.
        With `revisit` of T - 1, the last step is `encode_audio`.
    """
    frames = model.config.audio.frames_per_token
    hidden_BLD = model.audio_encoder.stem(wave_BS)
    batch, steps = len(hidden_BLD), hidden_BLD.shape[1] // frames
    seen_TTR = stream_mask(steps, config).to(hidden_BLD.device)
    versions_BLD = _transformed(model, hidden_BLD[:, : steps * frames], seen_TTR)
    versions_NDA = versions_BLD.reshape(batch * steps, -1, hidden_BLD.shape[2]).transpose(1, 2)
    cls_ND = None if model.audio_cls is None else model.audio_cls.expand(len(versions_NDA), -1)
    tokens_NER, cls_NE = model.audio_aligner.tokens(versions_NDA, cls_ND)
    tokens_NER, cls_NE = _mixed(model, tokens_NER, cls_NE, seen_TTR)
    features_NKCR = model.split_heads(tokens_NER, cls_NE)
    begun_TR = seen_TTR.diagonal(dim1=0, dim2=1).T
    features_BTKCR = features_NKCR.reshape(batch, steps, *features_NKCR.shape[1:])
    return features_BTKCR * begun_TR[:, None, None, :]


def _transformed(model: DenseAV, hidden_BLD: Tensor, seen_TTR: Tensor) -> Tensor:
    """Return the transformer's frames [B, T R F, D]: step after step, in all their versions."""
    frames, encoder = model.config.audio.frames_per_token, model.audio_encoder.hubert.encoder
    active = seen_TTR.shape[2]
    before = model.config.audio.position_kernel // 2
    padded_BLD = functional.pad(hidden_BLD, (0, 0, (active - 1) * frames + before, 0))
    blocks_BTDA = padded_BLD.unfold(1, before + active * frames, frames)
    blocks_NAD = blocks_BTDA.flatten(0, 1).transpose(1, 2)
    placed_NAD = (blocks_NAD + encoder.pos_conv_embed(blocks_NAD))[:, before:]
    frames_BLD = encoder.dropout(placed_NAD.reshape(len(hidden_BLD), -1, hidden_BLD.shape[2]))
    seen_TL = seen_TTR.flatten(1).repeat_interleave(frames, dim=1)
    mask_LL = _additive(seen_TL.repeat_interleave(active * frames, dim=0), frames_BLD.dtype)
    for layer in encoder.layers:
        frames_BLD = layer(frames_BLD, attention_mask=mask_LL[None, None])
    normed_BLD: Tensor = encoder.layer_norm(frames_BLD)
    return normed_BLD


def _mixed(
    model: DenseAV, tokens_NER: Tensor, cls_NE: Tensor | None, seen_TTR: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Mix each step's tokens with what it sees: all CLS first, one a step, then all tokens."""
    steps, _, active = seen_TTR.shape
    seen_TL = seen_TTR.flatten(1)
    tokens_NRE = tokens_NER.transpose(1, 2)
    tokens_BLE = tokens_NRE.reshape(-1, steps * active, tokens_NER.shape[1])
    seen_LL = seen_TL.repeat_interleave(active, dim=0)
    if cls_NE is not None:
        own_TT = torch.eye(steps, dtype=torch.bool, device=seen_TL.device)
        seen_TL = torch.cat((own_TT, seen_TL), dim=1)
        seen_LL = torch.cat((seen_TL, seen_TL.repeat_interleave(active, dim=0)))
        tokens_BLE = torch.cat((cls_NE.reshape(-1, steps, cls_NE.shape[1]), tokens_BLE), dim=1)
    mask_LL = _additive(seen_LL, tokens_BLE.dtype)
    mixed_BLE = model.audio_aligner.mixer.mix(tokens_BLE, mask_LL[None, None])
    if cls_NE is not None:
        cls_NE, mixed_BLE = mixed_BLE[:, :steps].flatten(0, 1), mixed_BLE[:, steps:]
    return mixed_BLE.reshape(tokens_NRE.shape).transpose(1, 2), cls_NE


def _additive(seen_LL: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to attention: 0 where something is seen, else -inf."""
    mask_LL = torch.zeros(seen_LL.shape, dtype=dtype, device=seen_LL.device)
    return mask_LL.masked_fill(~seen_LL, float("-inf"))
