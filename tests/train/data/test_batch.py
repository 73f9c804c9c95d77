"""Batches: stacked, mixed, resumed with the very next one, and never stopped by damage."""

import dataclasses
import logging
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from denseav.train.data.batch import SOUND, SPEECH, Batch
from denseav.train.data.dataset import ClipDataset, DataSettings, Mixing
from denseav.train.data.example import NO_AUGMENTATION, WAVE_SAMPLES, Augmentation
from denseav.train.data.loader import Loader, make_loader
from denseav.train.errors import DataError
from tests.support.train.made_clips import made_clip, made_shards

CLIPS = 14


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    return made_shards(folder, map(made_clip, range(1, CLIPS + 1)), each=3)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips = (made_clip(number, kind="speech") for number in range(15, 20))
    return made_shards(tmp_path_factory.mktemp("speech"), clips)


def settings(shards: Path, **chosen: Any) -> DataSettings:
    plain = {"batch_size": 3, "workers": 0, "image_size": 16, "changes": NO_AUGMENTATION}
    return DataSettings(shards=str(shards), **{**plain, **chosen})


def loader(chosen: DataSettings, *, rank: int = 0, world_size: int = 1, seed: int = 1) -> Loader:
    return make_loader(chosen, rank=rank, world_size=world_size, seed=seed)


def numbers(batch: Batch) -> list[int]:
    """Which clips a batch of unchanged clips holds, by the level of their sound."""
    return [round(100 * level) for level in batch.wave_BS.amax(dim=1).tolist()]


def fields(batch: Batch) -> Iterator[torch.Tensor]:
    for field in dataclasses.fields(batch):
        part = getattr(batch, field.name)
        if isinstance(part, Batch):
            yield from fields(part)
        elif part is not None:
            yield part


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert all(map(torch.equal, fields(mine), fields(other)))


def test_a_batch_has_the_shapes_that_training_expects(sounds: Path) -> None:
    [batch, *_] = loader(settings(sounds))
    assert len(batch) == 3
    assert batch.image_B3HW.shape == (3, 3, 16, 16)
    assert batch.image_mask_B1HW.shape == (3, 1, 16, 16)
    for wave_BS in (batch.wave_BS, batch.audio_mask_BS, batch.positive_mask_BS):
        assert wave_BS.shape == (3, WAVE_SAMPLES)
    assert {part.dtype for part in fields(batch)} == {torch.float32, torch.int64}
    assert batch.kind_B.tolist() == [SOUND] * 3
    assert batch.partner is None
    assert batch.mixed_wave_BS is None


def test_an_epoch_has_every_clip_but_the_rest_of_a_batch(sounds: Path) -> None:
    batches = list(loader(settings(sounds)))
    seen = [number for batch in batches for number in numbers(batch)]
    assert [len(batch) for batch in batches] == [3, 3, 3, 3]
    assert len(set(seen)) == 12
    assert set(seen) <= set(range(1, CLIPS + 1))


def test_without_shuffling_all_clips_come_in_order(sounds: Path) -> None:
    batches = list(loader(settings(sounds, shuffle=False)))
    assert [number for batch in batches for number in numbers(batch)] == list(range(1, CLIPS + 1))


def test_iterating_does_not_move_on(sounds: Path) -> None:
    once = loader(settings(sounds))
    next(iter(once))
    assert_same(list(once), list(once))


def test_unshuffled_batches_are_shared_by_ranks_to_the_last_clip(sounds: Path) -> None:
    parts = [list(loader(settings(sounds, shuffle=False), rank=r, world_size=2)) for r in range(2)]
    seen = sorted(number for part in parts for batch in part for number in numbers(batch))
    assert seen == list(range(1, CLIPS + 1))


def test_others_stand_in_as_often_as_asked(sounds: Path, speech: Path) -> None:
    for share, kinds in ((0.0, {SOUND}), (0.5, {SOUND, SPEECH}), (1.0, {SPEECH})):
        batches = list(loader(settings(sounds, others=str(speech), others_share=share)))
        assert {int(kind) for batch in batches for kind in batch.kind_B} == kinds


def test_mixing_adds_a_partner_of_the_other_set(sounds: Path, speech: Path) -> None:
    mixing = Mixing(level=False, gain_low_db=0, gain_high_db=0)
    for batch in loader(settings(speech, others=str(sounds), mixing=mixing)):
        assert batch.partner is not None
        assert batch.mixed_wave_BS is not None
        assert batch.kind_B.tolist() == [SPEECH] * 3
        assert batch.partner.kind_B.tolist() == [SOUND] * 3
        both_BS = batch.wave_BS + batch.partner.wave_BS
        torch.testing.assert_close(batch.mixed_wave_BS, both_BS)
        assert torch.equal(batch.mixed_mask_BS, batch.audio_mask_BS)


def test_gains_are_drawn_within_their_bounds(sounds: Path, speech: Path) -> None:
    mixing = Mixing(gain_low_db=-5, gain_high_db=5)
    chosen = settings(sounds, others=str(speech), mixing=mixing, batch_size=1)
    gains_db = []
    for batch in loader(chosen):
        assert batch.mixed_wave_BS is not None
        own, both = batch.wave_BS[0, 100], batch.mixed_wave_BS[0, 100]
        gains_db.append(float(20 * torch.log10(own / (both - own))))
    assert all(-5.01 < gain_db < 5.01 for gain_db in gains_db)
    assert max(gains_db) - min(gains_db) > 3


def all_changes(sounds: Path, speech: Path, workers: int) -> DataSettings:
    return DataSettings(
        shards=str(sounds),
        others=str(speech),
        mixing=Mixing(gain_low_db=-5, gain_high_db=5),
        batch_size=3,
        workers=workers,
        image_size=16,
    )


def resumed(chosen: DataSettings, cut: int, more: int) -> list[Batch]:
    """Take batches, save, and go on in a new loader as after a restart."""
    first = loader(chosen)
    stream = first.endless()
    before = list(islice(stream, cut))
    state = first.state_dict()
    stream.close()
    second = loader(chosen)
    second.load_state_dict(state)
    return before + list(islice(second.endless(), more))


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 6])
def test_a_restart_continues_with_the_very_next_batch(sounds: Path, speech: Path, cut: int) -> None:
    chosen = all_changes(sounds, speech, workers=0)
    whole = list(islice(loader(chosen).endless(), 9))
    assert_same(resumed(chosen, cut, 9 - cut), whole)


def test_little_shared_memory_costs_time_and_no_batch(
    sounds: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = settings(sounds, workers=1)
    expected = [numbers(batch) for batch in loader(settings(sounds))]
    for room, said in ((1000, "come by pipe"), (0, "without workers")):
        monkeypatch.setattr("denseav.train.data.loader.shared_memory_bytes", lambda room=room: room)
        caplog.clear()
        assert [numbers(batch) for batch in loader(chosen)] == expected
        assert said in caplog.text
        assert caplog.text.count("\n") == 1


def test_a_restart_is_exact_with_workers_that_load_ahead(sounds: Path, speech: Path) -> None:
    chosen = all_changes(sounds, speech, workers=1)
    whole = list(islice(loader(chosen).endless(), 6))
    assert_same(resumed(chosen, 2, 4), whole)


def test_a_second_restart_is_exact_too(sounds: Path) -> None:
    chosen = settings(sounds)
    whole = list(islice(loader(chosen).endless(), 8))
    state, taken = loader(chosen).state_dict(), []
    for _ in range(4):
        part = loader(chosen)
        part.load_state_dict(state)
        taken += list(islice(part.endless(), 2))
        state = part.state_dict()
    assert_same(taken, whole)


def test_epochs_change_order_and_drawings(sounds: Path) -> None:
    endless = loader(settings(sounds)).endless()
    first, second = list(islice(endless, 4)), list(islice(endless, 4))
    assert [numbers(batch) for batch in first] != [numbers(batch) for batch in second]


def test_ranks_never_share_a_clip(sounds: Path) -> None:
    parts = [list(loader(settings(sounds), rank=rank, world_size=2)) for rank in range(2)]
    assert [len(part) for part in parts] == [2, 2]
    seen = [number for part in parts for batch in part for number in numbers(batch)]
    assert len(seen) == len(set(seen)) == 12


def test_the_rest_of_an_epoch_moves_to_more_ranks(sounds: Path) -> None:
    chosen = settings(sounds, batch_size=2)
    alone = loader(chosen)
    before = [numbers(batch) for batch in islice(alone.endless(), 3)]
    state = alone.state_dict()
    after = []
    for rank in range(2):
        part = loader(chosen, rank=rank, world_size=2)
        part.load_state_dict(state)
        after += [numbers(batch) for batch in part]
    seen = [number for batch in before + after for number in batch]
    assert len(after) == 4
    assert len(seen) == len(set(seen)) == CLIPS


def test_a_state_can_move_with_its_shards(sounds: Path, tmp_path: Path) -> None:
    here, there = settings(sounds), settings(tmp_path / "there")
    whole = list(loader(here))
    first = loader(here)
    next(first.endless())
    state = first.state_dict()
    shutil.copytree(sounds, tmp_path / "there")
    moved = loader(there)
    moved.load_state_dict(state)
    assert_same(list(moved), whole[1:])


def test_a_state_of_other_shards_or_seed_is_refused(sounds: Path, speech: Path) -> None:
    state = loader(settings(sounds)).state_dict()
    with pytest.raises(DataError, match=r"made with clips 14, not 5"):
        loader(settings(speech)).load_state_dict(state)
    with pytest.raises(DataError, match="made with seed 1, not 2"):
        loader(settings(sounds), seed=2).load_state_dict(state)


def test_a_damaged_shard_costs_its_clips_not_the_run(
    sounds: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(sounds, tmp_path / "copy")
    shard = tmp_path / "copy" / "shard-000001-0.bin"  # clips 4, 5 and 6
    shard.write_bytes(shard.read_bytes()[:-50])
    with caplog.at_level(logging.WARNING):
        batches = list(loader(settings(tmp_path / "copy")))
    seen = {number for batch in batches for number in numbers(batch)}
    assert [len(batch) for batch in batches] == [3, 3, 3, 3]
    assert not seen & {4, 5, 6}
    assert caplog.messages == [
        f"{tmp_path / 'copy'}: shard-000001-0.bin is damaged; other clips stand in for it"
    ]


def test_of_two_clips_the_damaged_one_is_named_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Splices and quarters draw other clips; what is wrong with those is not the first one's."""
    clips = [made_clip(number) for number in range(6)]
    broken = dataclasses.replace(clips[4], audio=b"noise" * 9, frames=(b"noise" * 9,))
    made_shards(tmp_path, [*clips[:4], broken, clips[5]])
    changes = Augmentation(window_share=0, quad_share=1.0, pictures=False)
    dataset = ClipDataset(settings(tmp_path, changes=changes), seed=0)
    with caplog.at_level(logging.WARNING):
        samples = [dataset[epoch, number] for epoch in range(6) for number in (0, 1, 2, 3, 5)]
    levels = [float(sample.example.plain_S[0]) for sample in samples]
    assert levels == pytest.approx([number / 100 for number in (0, 1, 2, 3, 5)] * 6, abs=1e-3)
    assert caplog.messages
    assert all(": clip 4: " in message for message in caplog.messages)


@pytest.mark.parametrize("workers", [0, 1])
def test_damage_everywhere_ends_with_one_line(sounds: Path, tmp_path: Path, workers: int) -> None:
    shutil.copytree(sounds, tmp_path / "copy")
    for shard in (tmp_path / "copy").glob("*.bin"):
        shard.write_bytes(b"")
    with pytest.raises(DataError, match=r"^20 clips in a row .* are damaged; copy .*$"):
        list(loader(settings(tmp_path / "copy", workers=workers)))


def test_a_batch_larger_than_the_data_names_what_fits(sounds: Path) -> None:
    with pytest.raises(DataError, match="lower batch_size to 14"):
        loader(settings(sounds, batch_size=15))
    with pytest.raises(DataError, match="lower batch_size to 7"):
        loader(settings(sounds, batch_size=8), world_size=2)
    assert len(list(loader(settings(sounds, batch_size=14)))) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"image_size": 15}, "even"),
        ({"others_share": 1.5}, r"\[0, 1\], not 1.5"),
        ({"mixing": Mixing()}, "set others"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        DataSettings(shards="somewhere", **wrong)


def test_gain_bounds_are_in_order() -> None:
    with pytest.raises(DataError, match="exchange"):
        Mixing(gain_low_db=1, gain_high_db=0)


def test_a_batch_moves_as_a_whole(sounds: Path, speech: Path) -> None:
    [batch, *_] = loader(settings(speech, others=str(sounds), mixing=Mixing()))
    moved = batch.to("meta")
    assert {part.device.type for part in fields(moved)} == {"meta"}
    assert len(list(fields(moved))) == 13
