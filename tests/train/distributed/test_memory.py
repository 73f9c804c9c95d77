"""Less memory for the same gradients, compiled layers, and products that may be rougher."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from denseav.models import ModelConfig
from denseav.train.distributed.fabric import (
    Machine,
    allow_tf32,
    checkpoint_activations,
    compile_layers,
    start,
)
from denseav.train.errors import SettingsError
from denseav.train.loss.denseav_loss import Weights, denseav_terms
from denseav.train.loss.learner import Learner
from tests.support.train.parts import NETWORK, batch, learner, with_lora

CHANCE = replace(NETWORK.audio, layers=2, dropout=0.2, layer_drop=0.5, time_mask=0.2)
NETWORKS = {
    "whole": replace(NETWORK, audio=CHANCE),
    "lora": replace(with_lora(), audio=CHANCE),
}


def gradients(made: Learner, config: ModelConfig) -> dict[str, Tensor]:
    torch.manual_seed(1)
    np.random.seed(1)
    terms = denseav_terms(made, batch(3), config.heads, Weights(), torch.Generator())
    Weights().total(terms).backward()
    return {name: p.grad for name, p in made.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("network", NETWORKS)
def test_layers_computed_twice_have_the_same_gradients(network: str) -> None:
    config = NETWORKS[network]
    plain, twice = learner(config), learner(config)
    checkpoint_activations(twice.model)
    calls = dict.fromkeys(("image", "audio", "stem"), 0)

    def count(part: str) -> None:
        calls[part] += 1

    encoders = twice.model.image_encoder.vit, twice.model.audio_encoder.hubert
    watched = {
        "image": encoders[0].layers[0].layernorm_before,
        "audio": encoders[1].encoder.layers[0].layer_norm,
        "stem": encoders[1].feature_extractor.conv_layers[0].conv,
    }
    for part, module in watched.items():
        module.register_forward_hook(lambda *_, part=part: count(part))
    expected = gradients(plain, config)
    found = gradients(twice, config)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name
    assert set(calls.values()) == {2}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo
def test_compiled_layers_computed_twice_have_the_same_gradients() -> None:
    """All that compiling does but for the code that is made of it, which takes half a minute."""
    config = replace(with_lora(), audio=replace(NETWORK.audio, layers=2))
    plain, compiled = learner(config), learner(config)
    checkpoint_activations(compiled.model)
    torch.compiler.reset()
    counters.clear()
    compile_layers(compiled.model, backend="aot_eager")
    expected, found = gradients(plain, config), gradients(compiled, config)
    assert counters["aot_autograd"]["total"] >= 2
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6 * largest, msg=name)


def test_the_fused_kernel_is_refused_where_it_cannot_run() -> None:
    with pytest.raises(SettingsError, match="needs an NVIDIA GPU"):
        start(Machine(accelerator="cpu", fused_similarity=True))


def test_tf32_is_as_it_is_set() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        for allowed, name in ((True, "high"), (False, "highest")):
            allow_tf32(allowed)
            assert torch.get_float32_matmul_precision() == name
            assert torch.backends.cudnn.allow_tf32 == allowed
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
