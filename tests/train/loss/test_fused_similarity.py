"""The fused kernels, in Triton's interpreter on a CPU, are the chunked way to 1e-5."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.train.fused import SIZES, results

ROOT = Path(__file__).parents[3]


def computed(folder: Path, device: str, **environment: str) -> dict[str, list[Tensor]]:
    path = folder / "results.pt"
    subprocess.run(
        [sys.executable, "-m", "tests.support.train.fused", str(path), device],
        env=os.environ | environment,
        cwd=ROOT,
        check=True,
    )
    found: dict[str, list[Tensor]] = torch.load(path, weights_only=True)
    return found


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Tensor]]:
    return computed(tmp_path_factory.mktemp("fused"), "cpu", TRITON_INTERPRET="1")


@pytest.mark.parametrize("name", SIZES)
def test_values_and_gradients_are_the_chunked_ones(
    fused: dict[str, list[Tensor]], name: str
) -> None:
    for one, other in zip(fused[name], results(name), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_the_first_of_equals_has_the_gradient(fused: dict[str, list[Tensor]]) -> None:
    grad_image = fused["equals"][1]
    assert grad_image[:, 0, :, 0, 0].all()
    assert grad_image.count_nonzero() == 3 * 4  # the channels of one place of one head


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU")
def test_a_gpu_computes_what_the_interpreter_does(tmp_path: Path) -> None:
    found = computed(tmp_path, "cuda")
    for name in SIZES:
        for one, other in zip(found[name], results(name), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
