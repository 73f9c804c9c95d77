"""Checkpoints: a path or hub id to a `DenseAV` in evaluation mode, and that to a folder.

Our form is a folder with `config.json` and `model.safetensors`. What another program wrote
goes through `released_checkpoint`. Nothing here ever runs code that a file brings along.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from denseav.export.outside_files import read_json, require_file
from denseav.models.checkpoints import released_checkpoint
from denseav.models.checkpoints.atomic_files import replacing
from denseav.models.checkpoints.keys import check_keys, expected_shapes
from denseav.models.checkpoints.pickled_file import CodeInFileError, load_pickled
from denseav.models.config import FORMAT, CheckpointError, ModelConfig
from denseav.models.denseav import DenseAV
from denseav.models.lora import merge

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
HUB = "hf:"
DEMO = "demo"
CONFIG_BYTES_MAX = 2**20
SEED = 0

LoraUse = Literal["merged", "separate"]
Weights = dict[str, Tensor]


def load(source: str | Path, *, lora: LoraUse = "merged") -> DenseAV:
    """Open a model.

    Parameters
    ----------
    source
        One of: `demo`, the small network that is part of the package; a folder of ours
        (`config.json` with `model.safetensors`); a folder in the released Hugging Face form; a
        released Lightning `.ckpt`; a hub id such as `hf:mhamilton723/DenseAV-sound-language`,
        optionally with `@revision`; or a bare configuration `.json`, which gives random weights,
        always the same, marked untrained.
    lora
        `merged` adds LoRA weights to those they stand beside, to run and to export; `separate`
        keeps them apart, to train on. The outputs are the same. A model without LoRA stays so.

    Returns
    -------
    DenseAV
        In evaluation mode, on the CPU, in float32.

    Raises
    ------
    CheckpointError
        When there is no model at `source`, or it cannot be used: damaged, for another model,
        bringing code along, or with keys that do not fit, all of which are listed.
    """
    config, weights = _read(str(source))
    if weights is None:
        return _random(config.without_lora() if lora == "merged" else config).eval()
    if lora == "merged":
        config, weights = merge(config, weights)
    return fill(config, weights).eval()


def save(model: DenseAV, folder: Path) -> None:
    """Write a model to `folder` as `config.json` and `model.safetensors`."""
    write(model.config, model.state_dict(), folder)


def write(config: ModelConfig, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write weights to `folder` as the model of a configuration.

    Each file appears whole or not at all; an older model in the folder is replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain = {key: tensor.detach().contiguous() for key, tensor in weights.items()}
    with replacing(folder / CONFIG) as config_file, replacing(folder / WEIGHTS) as weights_file:
        config_file.write_text(config.to_json())
        save_file(plain, weights_file, metadata={"format": "pt"})
        # safetensors lets nobody else read what it writes.
        shutil.copymode(config_file, weights_file)


def fill(config: ModelConfig, weights: Weights) -> DenseAV:
    """Return the network with these very tensors as its weights, in training mode."""
    with torch.device("meta"):
        model = DenseAV(config)
    model.load_state_dict(weights, assign=True)
    return model


def _read(source: str) -> tuple[ModelConfig, Weights | None]:
    path = Path(source)
    if source == DEMO:  # a folder of that name is ./demo
        return _read_folder(Path(str(files("denseav.export") / "demo")), source)
    if source.startswith(HUB):
        return _read_folder(_download(source), source)
    if os.path.isdir(path):  # noqa: PTH112 - likewise
        return _read_folder(path, source)
    if not os.path.exists(path):  # noqa: PTH110 - Path's raises of a name that is too long
        raise CheckpointError(
            f"{source} does not exist; give a model's folder, a .ckpt, a configuration .json, "
            "demo, or a hub id such as hf:mhamilton723/DenseAV-sound-language"
        )
    if path.suffix == ".json":
        return replace(_config(path), trained=False), None
    if path.suffix == ".ckpt":
        return released_checkpoint.adopt(*_read_lightning(path), source=source)
    raise CheckpointError(
        f"{source} is no model; give the folder that holds {CONFIG} and {WEIGHTS}, or a .ckpt"
    )


def _read_folder(folder: Path, source: str) -> tuple[ModelConfig, Weights]:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(f"{source} is no model's folder: it holds no {name}")
    record = _json(folder / CONFIG)
    weights = _tensors(folder / WEIGHTS)
    if released_checkpoint.is_released(record):
        return released_checkpoint.adopt(record, weights, source=source)
    config = _config(folder / CONFIG)
    shapes = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    check_keys(expected_shapes(config), shapes, source)
    return config, {key: tensor.float() for key, tensor in weights.items()}


def _config(path: Path) -> ModelConfig:
    record = _json(path)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} describes another model, not a DenseAV; give one of configs/models/ "
            "or a folder that denseav-train wrote"
        )
    try:
        return ModelConfig.from_json(path.read_text(encoding="utf-8"))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _json(path: Path) -> Any:
    try:
        return read_json(path, object, CONFIG_BYTES_MAX)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({_first_line(error)})") from None


def _tensors(path: Path) -> Weights:
    try:
        require_file(path)
        return load_file(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} is damaged or not whole ({error}); copy or download it again"
        ) from None


def _read_lightning(path: Path) -> tuple[Any, Weights]:
    try:
        record = load_pickled(path)
    except CodeInFileError as name:
        raise CheckpointError(
            f"{path} wants to run code ({name}) and was not opened; get the model as "
            "safetensors instead, such as hf:mhamilton723/DenseAV-sound-language"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged or not whole ({_first_line(error)}); copy or download it again"
        ) from None
    weights = record.get("state_dict") if isinstance(record, dict) else None
    if not isinstance(weights, dict) or not all(
        isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in weights.items()
    ):
        raise CheckpointError(f"{path} is no Lightning checkpoint: it holds no state_dict")
    return record.get("hyper_parameters"), weights


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _download(source: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    repository, _, revision = source.removeprefix(HUB).partition("@")
    try:
        hf_hub_download(repository, CONFIG, revision=revision or None)
        return Path(hf_hub_download(repository, WEIGHTS, revision=revision or None)).parent
    except HFValidationError:
        raise CheckpointError(
            f"{source} is no hub id; it looks like hf:owner/name or hf:owner/name@revision"
        ) from None
    except LocalEntryNotFoundError:
        raise CheckpointError(
            f"{source} is not in the cache and the hub cannot be reached; connect to the "
            "network, or copy the model's folder here and give its path"
        ) from None
    except (EntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise CheckpointError(
            f"{source} cannot be downloaded ({_first_line(error)}); check the id, your access "
            "to it and the free space on disk"
        ) from None


def _random(config: ModelConfig) -> DenseAV:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return DenseAV(config)
