"""Released Lightning checkpoints: pickles, so the one form that could bring code along."""

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from denseav.models import CheckpointError, load
from tests.golden import released as golden


def write_ckpt(path: Path, **changes: Any) -> Path:
    record = {
        "state_dict": golden.empty(golden.shapes(small=False)),
        "hyper_parameters": golden.hyperparameters(),
        "pytorch-lightning_version": "1.9.4",
        "epoch": 3,
    }
    torch.save(record | changes, path)
    return path


def refused(source: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(source)
    assert "\n" not in str(caught.value)
    assert str(source) in str(caught.value)
    return str(caught.value)


def test_the_full_size_checkpoint_loads_whole(tmp_path: Path) -> None:
    model = load(write_ckpt(tmp_path / "denseav_2head.ckpt"))
    plain = sum(parameter.numel() for parameter in model.parameters())
    assert plain == sum(map(math.prod, golden.shapes(small=False).values())) - 147_456
    assert model.config.name == "denseav_2head"
    assert model.config.heads == ("speech", "sound")
    assert model.config.trained
    assert not model.training


def test_a_checkpoint_without_hyper_parameters(tmp_path: Path) -> None:
    path = write_ckpt(tmp_path / "a.ckpt", hyper_parameters=None)
    assert "holds no hyper_parameters" in refused(path)
    path = write_ckpt(tmp_path / "b.ckpt", hyper_parameters={"code_dim": 384, "lr": 1.0})
    assert "lacks the hyper-parameters image_model_type, " in refused(path)
    path = write_ckpt(tmp_path / "c.ckpt", state_dict=[1, 2])
    assert "holds no state_dict" in refused(path)


def test_a_truncated_checkpoint(tmp_path: Path) -> None:
    path = write_ckpt(tmp_path / "cut.ckpt")
    whole = path.read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:size])
        assert "damaged" in refused(path)
    path.write_text("<html>404: not found</html>")
    assert "damaged" in refused(path)


class Payload:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.proof),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path: Path, zipped: bool) -> None:
    path, proof = tmp_path / "evil.ckpt", tmp_path / "it-ran"
    torch.save(
        {"state_dict": {}, "callbacks": Payload(proof)}, path, _use_new_zipfile_serialization=zipped
    )
    message = refused(path)
    assert "wants to run code (posix.mkdir)" in message
    assert not proof.exists()
