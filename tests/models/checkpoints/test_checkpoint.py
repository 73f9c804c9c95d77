import json
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from denseav.models import CheckpointError, ModelConfig, load, save
from denseav.models.config import LoraConfig
from tests.support.tiny_model import CONFIG, inputs, tiny

CONFIGS = Path(__file__).parents[3] / "configs" / "models"
HUB_ID = "hf:mhamilton723/DenseAV-sound-language"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tiny(trained=True), tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def offline_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def refused(source: str | Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(source)
    assert "\n" not in str(caught.value)
    assert str(source) in str(caught.value)
    return str(caught.value)


def edit_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    weights = {key: t.clone() for key, t in load_file(folder / "model.safetensors").items()}
    for key, tensor in changes.items():
        weights.pop(key, None)
        if tensor is not None:
            weights[key] = tensor
    save_file(weights, folder / "model.safetensors")


def test_a_saved_model_comes_back_exactly(folder: Path) -> None:
    model, again = tiny(trained=True), load(folder)
    assert again.config == model.config
    assert not again.training
    for ours, theirs in zip(again(*inputs()), model(*inputs()), strict=True):
        assert torch.equal(ours, theirs)


def test_saving_replaces_and_leaves_nothing_else_behind(folder: Path) -> None:
    save(tiny(heads=("sound",)), folder)
    assert load(str(folder)).config.heads == ("sound",)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_weights_are_readable_by_whoever_may_read_the_folders_files(folder: Path) -> None:
    (folder / "other").touch()
    modes = {path.stat().st_mode for path in folder.iterdir()}
    assert len(modes) == 1


def test_lora_stays_apart_to_train_and_is_merged_to_run(tmp_path: Path) -> None:
    model = tiny(image=replace(CONFIG.image, lora=LoraConfig(rank=2)))
    save(model, tmp_path)
    apart, merged = load(tmp_path, lora="separate"), load(tmp_path)
    assert apart.config == model.config
    assert merged.config == model.config.without_lora()
    image = inputs()[0]
    assert torch.equal(apart.encode_image(image), model.encode_image(image))
    torch.testing.assert_close(merged.encode_image(image), model.encode_image(image))
    learning = [name for name, p in apart.image_encoder.named_parameters() if p.requires_grad]
    assert all("lora" in name for name in learning)
    assert len(learning) == 12


def test_half_weights_load_as_float32(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({key: t.half() for key, t in weights.items()}, folder / "model.safetensors")
    assert {p.dtype for p in load(folder).parameters()} == {torch.float32}


def test_a_bare_configuration_gives_the_same_random_model_every_time() -> None:
    torch.manual_seed(1)
    one = load(CONFIGS / "demo.json")
    state = torch.random.get_rng_state()
    two = load(CONFIGS / "demo.json")
    assert torch.equal(state, torch.random.get_rng_state())
    assert not one.training
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert sum(p.numel() for p in one.parameters()) < 4_000_000


def test_random_weights_never_look_trained(tmp_path: Path) -> None:
    path = tmp_path / "claims.json"
    path.write_text(replace(CONFIG, trained=True).to_json())
    assert not load(path).config.trained


def test_a_bare_configuration_keeps_new_lora_apart_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(replace(CONFIG, image=replace(CONFIG.image, lora=LoraConfig())).to_json())
    assert load(path).config.image.lora is None
    assert load(path, lora="separate").config.image.lora == LoraConfig()


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    assert "does not exist; give a model's folder" in refused(tmp_path / "nothing")


def test_files_that_are_no_model(tmp_path: Path, folder: Path) -> None:
    assert "holds no config.json" in refused(tmp_path)
    assert "give the folder that holds" in refused(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    assert "holds no model.safetensors" in refused(folder)


def test_a_truncated_download(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "damaged or not whole" in refused(folder)
    path.write_bytes(b"")
    assert "damaged or not whole" in refused(folder)


def test_a_configuration_for_another_model(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "bert", "hidden_size": 768}')
    assert "describes another model" in refused(folder)
    (folder / "config.json").write_text("not json")
    assert "cannot be read as JSON" in refused(folder)
    (folder / "config.json").write_text('{"format": "denseav-model", "schema": 9, "model": {}}')
    assert "upgrade denseav" in refused(folder)


def test_all_keys_that_do_not_fit_are_listed_in_one_error(folder: Path) -> None:
    edit_weights(
        folder,
        **{
            "image_aligner.projection.bias": None,
            "audio_cls": None,
            "stray.weight": torch.zeros(2),
            "calibrator.log_scale": torch.zeros(3, 1),
        },
    )
    message = refused(folder)
    assert "2 missing: " in message
    assert "image_aligner.projection.bias" in message
    assert "audio_cls" in message
    assert "1 unknown: stray.weight" in message
    assert "1 misshapen: calibrator.log_scale is 3x1, not 1" in message


def test_weights_of_another_size_are_counted_beyond_the_first_twenty(folder: Path) -> None:
    wider = replace(CONFIG, trained=True, image=replace(CONFIG.image, hidden=24))
    (folder / "config.json").write_text(wider.to_json())
    message = refused(folder)
    assert "misshapen" in message
    assert message.count(" is ") == 20
    assert " more" in message


def test_hub_offline_with_nothing_cached_says_what_to_do(offline_cache: Path) -> None:
    message = refused(HUB_ID)
    assert "not in the cache and the hub cannot be reached; connect" in message


def test_hub_offline_opens_what_is_cached(offline_cache: Path, folder: Path) -> None:
    cached = offline_cache / "models--mhamilton723--DenseAV-sound-language"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(COMMIT)
    (cached / "snapshots").mkdir()
    folder.rename(cached / "snapshots" / COMMIT)
    assert load(HUB_ID).config.name == "tiny"
    assert load(f"{HUB_ID}@{COMMIT}").config.name == "tiny"


def test_a_hub_id_that_cannot_be_one() -> None:
    assert "is no hub id" in refused("hf:not an id/at/all")


def test_configuration_file_is_readable_json(folder: Path) -> None:
    record = json.loads((folder / "config.json").read_text())
    assert record["model"]["heads"] == ["speech", "sound"]
    assert ModelConfig.from_json((folder / "config.json").read_text()).trained
