"""Several folders of shards as one: every clip by its number, drawn by weight, loaded again."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from denseav.train.data.dataset import DataSettings
from denseav.train.data.loader import Loader, make_loader
from denseav.train.data.weighted_shards import WeightedShards
from denseav.train.errors import DataError
from tests.support.train.made_clips import made_clip, made_shards

CLIPS = {"speech": range(5), "sound": range(5, 8), "mine": range(8, 17)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("folders")
    return {
        name: made_shards(root / name, [made_clip(number) for number in numbers])
        for name, numbers in CLIPS.items()
    }


def test_clips_are_numbered_through_all_folders(folders: dict[str, Path]) -> None:
    shards = WeightedShards({str(folder): 1 for folder in folders.values()})
    assert shards.clips == 17
    for number in range(17):
        assert shards.clip(number) == made_clip(number)
    assert [Path(shards.source(number)).name for number in (4, 5, 7, 8)] == [
        "speech",
        "sound",
        "sound",
        "mine",
    ]


def test_folders_are_drawn_from_by_weight(folders: dict[str, Path]) -> None:
    weights = {str(folders["speech"]): 6, str(folders["sound"]): 1, str(folders["mine"]): 3}
    shards, random = WeightedShards(weights), np.random.default_rng(0)
    drawn = np.bincount([shards.draw(random) for _ in range(2_000)], minlength=17)
    shares = [drawn[numbers].sum() / 2_000 for numbers in map(list, CLIPS.values())]
    assert shares == pytest.approx([0.6, 0.1, 0.3], abs=0.03)
    assert drawn.min() > 0


def test_a_folder_alone_is_drawn_from_as_ever(folders: dict[str, Path]) -> None:
    shards = WeightedShards(str(folders["mine"]))
    drawn = [shards.draw(np.random.default_rng(seed)) for seed in range(9)]
    assert drawn == [int(np.random.default_rng(seed).integers(9)) for seed in range(9)]


@pytest.mark.parametrize("weights", [{}, {"a": 0.0}, {"a": 1, "b": float("nan")}])
def test_weights_that_are_none_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(DataError, match=r"weight|one folder"):
        DataSettings(shards=weights)


def test_weighted_loading_goes_on_to_the_digit(folders: dict[str, Path]) -> None:
    settings = DataSettings(
        shards={str(folders["speech"]): 2, str(folders["sound"]): 1, str(folders["mine"]): 1},
        others={str(folders["mine"]): 1, str(folders["sound"]): 3},
        batch_size=2,
        workers=0,
        image_size=16,
    )

    def loader() -> Loader:
        return make_loader(settings, rank=0, world_size=1, seed=2)

    whole = list(itertools.islice(loader().endless(), 5))
    stopped, resumed = loader(), loader()
    for _ in itertools.islice(stopped.endless(), 2):
        pass
    resumed.load_state_dict(stopped.state_dict())
    for ours, theirs in zip(whole[2:], resumed.endless(), strict=False):
        assert torch.equal(ours.wave_BS, theirs.wave_BS)
        assert torch.equal(ours.image_B3HW, theirs.image_B3HW)
