"""The order of clips: complete, shared, renewed, and resumed anywhere."""

import json
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from denseav.train.data.sampler import SHARDS_AT_ONCE, ClipSampler
from denseav.train.errors import DataError

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=40)


def order(
    sizes: list[int], batch: int = 2, rank: int = 0, world_size: int = 1, seed: int = 0
) -> ClipSampler:
    return mixed([sizes], [1.0], batch, rank, world_size, seed)


def mixed(
    sizes: list[list[int]],
    weights: list[float],
    batch: int = 2,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 0,
) -> ClipSampler:
    return ClipSampler(
        sizes, weights, batch, rank=rank, world_size=world_size, seed=seed, shuffle=True
    )


def numbers(one: ClipSampler) -> list[int]:
    return [number for batch in one.batches() for _, number in batch]


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(1, 5), st.integers(1, 4), st.data())
def test_whatever_the_grid_every_clip_comes_at_most_once(
    sizes: list[int], batch: int, world_size: int, data: st.DataObject
) -> None:
    clips = sum(sizes)
    steps = data.draw(st.integers(0, clips // batch))
    alone = order(sizes, batch)
    before = [number for part in islice(alone.batches(), steps) for _, number in part]
    for _ in range(steps):
        alone.advance()
    seen, lengths = before, set()
    for rank in range(world_size):
        one = order(sizes, batch, rank, world_size)
        one.load_state_dict(json.loads(json.dumps(alone.state_dict())))
        mine = list(one.batches())
        assert all(len(part) == batch for part in mine)
        lengths.add(len(mine))
        seen = seen + [number for part in mine for _, number in part]
    assert len(lengths) == 1
    assert len(seen) == len(set(seen))
    assert set(seen) <= set(range(clips))
    assert clips - len(seen) < batch * world_size


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    sizes, one = [5] * 20, order([5] * 20)
    first = numbers(one)
    one.next_epoch()
    assert sorted(numbers(one)) == sorted(first) == list(range(100))
    assert len({tuple(o) for o in (first, numbers(one), numbers(order(sizes, seed=1)))}) == 3
    assert {epoch for batch in one.batches() for epoch, _ in batch} == {1}


def test_reading_stays_within_a_few_shards() -> None:
    shards = np.array(numbers(order([64] * 200, batch=1))) // 64
    for at in range(0, len(shards), 64):
        assert len(set(shards[at : at + 64].tolist())) <= 2 * SHARDS_AT_ONCE
    assert len(set(shards[: 64 * SHARDS_AT_ONCE].tolist())) == SHARDS_AT_ONCE
    assert (np.diff(shards[:500]) != 0).mean() > 0.8


@pytest.mark.parametrize(("clips", "seed"), [([5, 5], 0), ([5], 1)])
def test_a_state_of_others_is_refused(clips: list[int], seed: int) -> None:
    with pytest.raises(DataError, match="the checkpoint was made with"):
        order(clips, seed=seed).load_state_dict(order([5]).state_dict())


FOLDERS = [[4, 3], [2], [5, 5, 1]]
"""Clips 0 to 6, 7 and 8, 9 to 19."""


def test_each_folder_has_its_part_and_no_clip_comes_again_before_all_have() -> None:
    one = mixed(FOLDERS, [0.5, 0.3, 0.2], batch=1)
    given = list[list[int]]()
    for _ in range(6):
        given.append(numbers(one))
        one.next_epoch()
    for epoch in given:
        folders = [sum(number >= first for first in (7, 9)) for number in epoch]
        assert [folders.count(folder) for folder in range(3)] == [10, 6, 4]
        assert folders != sorted(folders)
    every = [number for epoch in given for number in epoch]
    for clips in (range(7), range(7, 9), range(9, 20)):
        own = [number for number in every if number in clips]
        for at in range(0, len(own) - len(clips), len(clips)):
            assert sorted(own[at : at + len(clips)]) == [*clips]


def test_a_clip_that_comes_twice_is_in_another_pass() -> None:
    one = mixed(FOLDERS, [0.1, 0.8, 0.1], batch=1)
    places = [place for batch in one.batches() for place in batch]
    assert len(set(places)) == len(places) == 20
    assert {number_of_pass for number_of_pass, number in places if number in (7, 8)} == {*range(8)}


def test_weighted_folders_go_on_where_another_number_of_processes_stopped() -> None:
    whole = numbers(mixed(FOLDERS, [0.5, 0.3, 0.2], batch=1))
    stopped = mixed(FOLDERS, [0.5, 0.3, 0.2], batch=1, world_size=4)
    for _ in range(2):
        stopped.advance()
    state = json.loads(json.dumps(stopped.state_dict()))
    left = list[list[int]]()
    for rank in range(2):
        one = mixed(FOLDERS, [0.5, 0.3, 0.2], batch=1, rank=rank, world_size=2)
        one.load_state_dict(state)
        left.append(numbers(one))
    assert [number for pair in zip(*left, strict=True) for number in pair] == whole[8:]
    with pytest.raises(DataError, match="made with parts"):
        mixed(FOLDERS, [0.5, 0.2, 0.3], batch=1).load_state_dict(state)


def test_a_folder_alone_has_the_order_that_it_always_had() -> None:
    random = np.random.default_rng([3, 0])
    shards = random.permutation(2)
    starts, sizes = [0, 4], [4, 3]
    pool = np.concatenate([starts[shard] + np.arange(sizes[shard]) for shard in shards])
    assert numbers(order([4, 3], batch=1, seed=3)) == random.permutation(pool).tolist()
