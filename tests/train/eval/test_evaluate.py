"""The evaluation with a source that knows the answer: what is right must score as right."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from denseav.train.errors import DataError
from denseav.train.eval import mixtures
from denseav.train.eval.evaluate import Variants, evaluate, subset
from denseav.train.eval.heatmaps import heat
from denseav.train.eval.items import EvalSet, Item, Kind
from denseav.train.eval.model import BatchedModel, TorchModel, token_mask
from denseav.train.eval.pieces import Pieces, T
from denseav.train.eval.read import read_wave
from denseav.train.eval.report import Row
from tests.support import tiny_model
from tests.support.train import eval_trees

SIDE, GRID, TOKENS = 64, 16, 8
SECOND = 16_000


class Painter:
    """Sees what is red while anything is heard, with the head `speech`; what is blue with `sound`.

    Both only as loud as the sound is, token by token.
    """

    heads = ("speech", "sound")
    frame_size = (SIDE, SIDE)
    window_samples = TOKENS * SECOND

    batch_size = 2

    def encode_images(self, images_BHW3: NDArray[np.uint8]) -> Tensor:
        return torch.stack([self.encode_image(image_HW3) for image_HW3 in images_BHW3])

    def encode_waves(self, waves_BS: NDArray[np.float32]) -> Tensor:
        return torch.stack([self.encode_audio(wave_S) for wave_S in waves_BS])

    def encode_image(self, image_HW3: NDArray[np.uint8]) -> Tensor:
        cells = torch.from_numpy(image_HW3).float().reshape(GRID, SIDE // GRID, GRID, -1, 3)
        return cells.mean(dim=(1, 3))[..., [0, 2]].movedim(-1, 0) / 255

    def encode_audio(self, wave_S: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(wave_S).reshape(TOKENS, SECOND).square().mean(dim=1).sqrt()

    def volumes(self, sounds: Sequence[Tensor], pictures: Sequence[Tensor]) -> Tensor:
        return torch.einsum("at,vkhw->avkthw", torch.stack([*sounds]), torch.stack([*pictures]))


def untracked(sequence: Sequence[T], description: str) -> Iterable[T]:
    return sequence


def run(
    sets: Sequence[EvalSet], variants: Variants | None = None
) -> dict[tuple[str, str, str], Row]:
    """Evaluate the painter; rows by set, metric and head."""
    source: BatchedModel = Painter()
    found = evaluate(source, sets, variants or Variants(), Pieces(None, {}, track=untracked))
    return {(row.data, row.metric, row.head): row for rows in found for row in rows}


def painted(root: Path, kind: Kind, count: int = 3) -> tuple[Item, ...]:
    """Items with a red and a blue square in pictures twice as wide as high; masks show one."""
    items = []
    root.mkdir(exist_ok=True)
    for index in range(count):
        pixels = np.zeros((SIDE, 2 * SIDE, 3), np.uint8)
        red, blue = (
            (slice(8 * index, 8 * index + 16), slice(40, 56)),
            (slice(40, 56), slice(72, 88)),
        )
        pixels[(*red, 0)] = 255
        pixels[(*blue, 2)] = 255
        Image.fromarray(pixels).save(root / f"{index}.png")
        mask = pixels[..., 0 if kind == "speech" else 2]
        Image.fromarray(mask).save(root / f"{kind}{index}.png")
        eval_trees.sound(root / f"{kind}{index}.wav", 300 + 100 * index, 2.0)
        item = Item(
            key=f"{kind}{index}",
            image=root / f"{index}.png",
            audio=root / f"{kind}{index}.wav",
            category="ab"[index % 2],
            mask=root / f"{kind}{index}.png",
        )
        items.append(item)
    return tuple(items)


def segmentation_set(root: Path, kind: Kind) -> EvalSet:
    return EvalSet(name=kind, kind=kind, task="segmentation", items=painted(root, kind))


@pytest.mark.parametrize(("kind", "wrong"), [("speech", "sound"), ("sound", "speech")])
def test_the_head_that_knows_scores_high_and_the_wrong_one_low(
    tmp_path: Path, kind: Kind, wrong: str
) -> None:
    rows = run([segmentation_set(tmp_path, kind)])
    own, other = rows[kind, "mAP", kind], rows[kind, "mAP", wrong]
    assert own.value > 99
    assert rows[kind, "mIoU", kind].value > 85  # cells are softened to pixels
    assert other.value < 15
    assert other.value < rows[kind, "mAP", "total"].value < own.value
    assert own.count == 2


def test_the_interval_holds_the_value_and_is_a_point_where_all_are_equal(tmp_path: Path) -> None:
    rows = run([segmentation_set(tmp_path, "sound")])
    row = rows["sound", "mIoU", "sound"]
    assert row.low is not None
    assert row.high is not None
    assert row.low <= row.value <= row.high


def boxes_set(root: Path) -> EvalSet:
    """Boxes round the blue squares; stretched, they are half as wide."""
    items = tuple(
        Item(
            key=item.key,
            image=item.image,
            audio=item.audio,
            category=item.category,
            scene=f"scene{index // 2}",
            boxes=((72 / 128, 40 / 64, 88 / 128, 56 / 64),),
        )
        for index, item in enumerate(painted(root, "sound", 4))
    )
    return EvalSet(name="boxes", kind="sound", task="boxes", items=items, stretch=True)


def test_boxes_are_met_at_the_adaptive_threshold_and_not_at_the_median(tmp_path: Path) -> None:
    rows = run([boxes_set(tmp_path)])
    assert rows["boxes", "cIoU adaptive", "sound"].value == 100
    assert rows["boxes", "IIoU adaptive", "sound"].value == 100
    assert rows["boxes", "IIoU adaptive", "sound"].count == 2
    assert rows["boxes", "cIoU adaptive", "speech"].value == 0
    assert rows["boxes", "AUC adaptive", "sound"].value > 80


def test_silence_stays_dark_and_wrong_sounds_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("denseav.train.eval.negative_audio.SEEDS", (1234, 2345))
    rows = run([boxes_set(tmp_path)], Variants(negative_audio=True))
    assert rows["boxes", "pIA silence", "sound"].value == 0
    assert rows["boxes", "AOC silence", "sound"].value == pytest.approx(100)
    # Noise is N(0, 1), louder than the tones of rms 0.21, so that the threshold is above them.
    assert rows["boxes", "threshold U", "sound"].value == pytest.approx(1.0, abs=0.1)
    assert rows["boxes", "cIoU_U", "sound"].value == 0
    assert rows["boxes", "F", "sound"].value == 0


def test_off_screen_needs_another_category(tmp_path: Path) -> None:
    data = boxes_set(tmp_path)
    alone = EvalSet(name="one", kind="sound", task="boxes", items=data.items[:1], stretch=True)
    with pytest.raises(DataError, match="needs items of at least two categories"):
        run([alone], Variants(negative_audio=True))


def test_only_the_tokens_of_the_word_count(tmp_path: Path) -> None:
    source = Painter()
    seen = source.encode_image(np.full((SIDE, SIDE, 3), 255, np.uint8))
    heard = torch.arange(8.0)
    item = painted(tmp_path, "speech", 1)[0]
    whole, cut = heat(source, seen, heard, 4 * SECOND, item)
    assert whole[0].mean() == pytest.approx(1.5)  # tokens 0 to 3
    assert not cut
    word = Item(key="w", image=item.image, audio=item.audio, word_s=(2.3, 3.7))
    said, cut = heat(source, seen, heard, 4 * SECOND, word)
    assert said[0].mean() == pytest.approx(2.5)  # tokens 2 and 3
    assert not cut


def test_words_beyond_their_clip_are_counted(tmp_path: Path) -> None:
    data = segmentation_set(tmp_path, "speech")
    late = tuple(replace(item, word_s=(7.0, 9.0)) for item in data.items)
    rows = run([replace(data, items=late)])
    assert rows["speech", "words cut to the clip", "total"].value == 3
    assert ("speech", "words cut to the clip", "total") not in run([data])


def test_a_sound_too_short_for_a_token_counts_as_one() -> None:
    assert token_mask(100, 164_200, 56).tolist() == [True] + [False] * 55


def test_the_draw_of_retrieval_items_is_the_released_one() -> None:
    items = tuple(Item(key=str(n), image=Path("i"), audio=Path("a")) for n in range(20))
    data = EvalSet(name="r", kind="speech", task="retrieval", items=items)
    np.random.seed(0)
    expected = np.random.permutation(20)[:7]
    assert [int(item.key) for item in subset(data, 7).items] == expected.tolist()
    assert subset(data, 20) is data


def test_a_pair_is_made_equally_loud_and_added(tmp_path: Path) -> None:
    eval_trees.sound(tmp_path / "quiet.wav", 400, 1.0, level=0.05)
    eval_trees.sound(tmp_path / "loud.wav", 900, 2.0, level=0.5)
    quiet, loud = (
        Item(key=name, image=Path("i"), audio=tmp_path / f"{name}.wav")
        for name in ("quiet", "loud")
    )
    (pair,) = mixtures.draw([quiet], [loud], 10 * SECOND)
    assert (pair.item, pair.distractor) == ("quiet", "loud")
    assert pair.gain_db == pytest.approx(-20, abs=0.01)
    waves = read_wave(quiet), read_wave(loud)
    mixed, heard = mixtures.mix(*waves, pair.gain_db, 10 * SECOND)
    assert heard == 2 * SECOND
    assert not mixed[heard:].any()
    tail = mixed[SECOND:heard]  # the loud one alone, now as loud as the quiet one
    assert np.sqrt(np.mean(tail**2)) == pytest.approx(0.05 / np.sqrt(2), rel=1e-3)
    np.testing.assert_allclose(mixed[:SECOND] - tail, waves[0], atol=2e-4)


def test_lists_of_pairs_survive_a_file_and_another_seed_draws_others(tmp_path: Path) -> None:
    items = painted(tmp_path, "sound", 4)
    pool = painted(tmp_path, "speech", 4)
    pairs = mixtures.draw(items, pool, SECOND)
    assert pairs == mixtures.draw(items, pool, SECOND)
    assert pairs != mixtures.draw(items, pool, SECOND, seed=1)
    path = tmp_path / "deep" / "list.csv"
    mixtures.write_pairs(path, pairs)
    assert mixtures.read_pairs(path, items, pool) == pairs
    with pytest.raises(DataError, match="made for other data"):
        mixtures.read_pairs(path, items, items)
    with pytest.raises(DataError, match="cannot be written"):
        mixtures.write_pairs(path.parent, pairs)
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []
    path.write_text(path.read_text().replace(str(pairs[0].gain_db), "loud"))
    with pytest.raises(DataError, match="'loud'; write numbers"):
        mixtures.read_pairs(path, items, pool)


def mute(root: Path, key: str = "mute") -> Item:
    eval_trees.sound(root / f"{key}.wav", 100, level=0.0)
    return Item(key=key, image=Path("i"), audio=root / f"{key}.wav")


def test_silence_cannot_be_mixed(tmp_path: Path) -> None:
    items = painted(tmp_path, "sound", 1)
    with pytest.raises(DataError, match="all that could be mixed in is silent"):
        mixtures.draw(items, [mute(tmp_path)], SECOND)
    with pytest.raises(DataError, match=r"mute\.wav is silent and cannot be mixed"):
        mixtures.draw([mute(tmp_path)], items, SECOND)


def test_a_silent_distractor_is_drawn_again_and_the_list_is_true(tmp_path: Path) -> None:
    items, pool = painted(tmp_path, "sound", 4), painted(tmp_path, "speech", 2)
    silent = [mute(tmp_path, f"mute{number}") for number in range(3)]
    pairs = mixtures.draw(items, [*silent, *pool], 10 * SECOND)
    assert {pair.distractor for pair in pairs} <= {item.key for item in pool}
    assert pairs == mixtures.draw(items, [*silent, *pool], 10 * SECOND)
    for pair in pairs:
        item, other = (
            next(i for i in (*items, *pool) if i.key == k) for k in (pair.item, pair.distractor)
        )
        levels = [mixtures.loudness(one, 10 * SECOND) for one in (item, other)]
        assert pair.gain_db == pytest.approx(20 * np.log10(levels[0] / levels[1]), abs=1e-4)


def test_a_scene_needs_a_second_object(tmp_path: Path) -> None:
    items = painted(tmp_path, "sound", 1)
    with pytest.raises(DataError, match="has one object only"):
        mixtures.from_scene(items, items, SECOND)


def test_a_network_as_source_is_fed_as_in_training() -> None:
    """Pictures are normalised, sounds have zero mean and unit variance over the window."""
    model = tiny_model.tiny()
    source = TorchModel(model, window_samples=2960 + 2880 * 3)
    image = np.random.default_rng(0).integers(256, size=(32, 32, 3), dtype=np.uint8)
    wave = np.random.default_rng(1).standard_normal(source.window_samples).astype(np.float32)
    (volume_KTHW,) = source.volumes(
        [source.encode_audio(7 * wave + 1)], [source.encode_image(image)]
    )[0]
    scaled = (wave - wave.mean()) / wave.std()
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normal = ((image / 255 - mean) / deviation).astype(np.float32)
    with torch.no_grad():
        expected = model.similarity(
            model.encode_image(torch.from_numpy(normal).movedim(-1, 0)[None]),
            model.encode_audio(torch.from_numpy(scaled)[None]),
        )[0]
    torch.testing.assert_close(volume_KTHW, expected, rtol=1e-4, atol=1e-4)
