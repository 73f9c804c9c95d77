"""What changes while a run goes on: rate and weights; and that every recipe can be read."""

from pathlib import Path

import pytest
import yaml

from denseav.train.cli.train import parse
from denseav.train.errors import SettingsError
from denseav.train.loss.denseav_loss import Weights
from denseav.train.trainer.loop import ramp
from denseav.train.trainer.optimizer import learning_rate
from denseav.train.trainer.settings import Optimization

RECIPES = sorted((Path(__file__).parents[3] / "configs" / "train").glob("*.yaml"))
PLAN = Optimization(
    steps=100,
    learning_rate=1.0,
    warmup_steps=10,
    cooldown_steps=20,
    contrast_steps=30,
    ramp_steps=40,
)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_read(recipe: Path, tmp_path: Path) -> None:
    given = ["--config", str(recipe), "--out", str(tmp_path / "run")]
    settings, out = parse(given)
    assert settings.optimization.steps > 0
    assert out == tmp_path / "run"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_no_recipe_says_a_thing_twice(recipe: Path) -> None:
    nodes = [yaml.compose(recipe.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys))
            nodes += [value for _, value in node.value]


def test_the_rate_warms_up_stays_and_cools_down() -> None:
    rates = [learning_rate(PLAN, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:81] == [1.0] * 72
    assert rates[90] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.05)


def test_without_a_cool_down_the_rate_stays() -> None:
    plain = Optimization(steps=100, learning_rate=1.0, warmup_steps=10)
    assert learning_rate(plain, 99) == 1.0


def test_terms_beside_the_contrast_come_in_slowly() -> None:
    shares = [ramp(PLAN, step) for step in range(100)]
    assert shares[:30] == [0.0] * 30
    assert shares[49] == pytest.approx(0.5)
    assert shares[69:] == [1.0] * 31
    assert ramp(Optimization(), 0) == 1.0


def test_only_the_contrast_keeps_its_weight() -> None:
    half = Weights(contrast=2.0, disentanglement=0.4).ramped(0.5)
    assert half.contrast == 2.0
    assert half.disentanglement == pytest.approx(0.2)
    assert half.image_mixup == pytest.approx(Weights().image_mixup / 2)


def test_no_number_of_steps_is_negative() -> None:
    with pytest.raises(SettingsError, match="below 0"):
        Optimization(cooldown_steps=-1)


def test_mix_and_separate_has_its_papers_loss() -> None:
    recipe = next(path for path in RECIPES if path.stem == "mix_and_separate")
    settings, _ = parse(["--config", str(recipe), "--out", "run"])
    optimization, loss = settings.optimization, settings.loss
    # Correspondence alone in the warm-up of the aligners, then with mixtures; equation 11.
    assert optimization.contrast_steps == optimization.aligner_steps == 3_000
    assert set(vars(loss.ramped(ramp(optimization, 2_999))).values()) == {0.0, loss.contrast}
    assert [ramp(optimization, step) for step in (3_000, 3_499, 3_999)] == [0.001, 0.5, 1.0]
    assert loss.ramped(ramp(optimization, 3_999)) == loss
    assert loss.disentanglement == loss.wrong_head == 0
