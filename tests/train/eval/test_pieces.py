"""An evaluation in batches, in pieces, by many processes and resumed is the one that it is."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from denseav.models import save
from denseav.train.cli.eval import main
from denseav.train.data.preparation.folder_lock import Share, locked
from denseav.train.errors import DataError
from denseav.train.eval import pieces as pieces_module
from denseav.train.eval.heatmaps import maps, similarities
from denseav.train.eval.mixtures import place
from denseav.train.eval.model import TorchModel
from denseav.train.eval.pieces import Pieces, T
from denseav.train.eval.public_sets import places, sound_prompted
from denseav.train.eval.read import read_wave
from tests.support import tiny_model
from tests.support.train import eval_trees

Report = list[dict[str, Any]]
WAVES = 3 + 5 + 3 * (1 + 1 + 2 + 2)
"""Of prompts, captions, and three pictures' own sound, silence, noise and off-screen sounds."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save(tiny_model.tiny(), folder)
    return folder


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trees")
    (root / "places").mkdir()
    eval_trees.places(root / "places" / "distro", 5)
    eval_trees.sound_prompted(root / "sound")
    eval_trees.vggss(root / "vggss")
    return root


@pytest.fixture
def run(
    model: Path, trees: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    monkeypatch.setattr(pieces_module, "PIECE", 2)
    monkeypatch.setattr("denseav.train.eval.negative_audio.SEEDS", (1234, 2345))
    sets = ["--places", trees / "places" / "distro", "--sound-prompted", trees / "sound"]
    sets += ["--vggss", trees / "vggss", "--negative-audio", "--work", tmp_path / "work"]

    def call(*more: object) -> int:
        return main([str(model), *map(str, sets), *map(str, more)])

    return call


@pytest.fixture(scope="module")
def alone(model: Path, trees: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """What one process finds that keeps nothing."""
    out = tmp_path_factory.mktemp("alone") / "out.json"
    sets = ["--places", trees / "places" / "distro", "--sound-prompted", trees / "sound"]
    sets += ["--vggss", trees / "vggss", "--negative-audio", "--json", out]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("denseav.train.eval.negative_audio.SEEDS", (1234, 2345))
        assert main([str(model), *map(str, sets)]) == 0
    report: Report = json.loads(out.read_text())["results"]
    return report


def results(path: Path) -> Report:
    report: Report = json.loads(path.read_text())["results"]
    return report


def test_parts_of_many_processes_measure_what_one_does(
    run: Callable[..., int],
    alone: Report,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run("--part", "2/3") == 0
    said = capfd.readouterr()
    assert "part 2/3 is done; " in said.err
    assert "pieces are left to others" in said.err
    assert said.out == ""
    for part in ("3/3", "1/3"):
        assert run("--part", part) == 0
    assert "part 1/3 is done; when all parts are" in " ".join(capfd.readouterr().err.split())

    def encode(*_: object) -> Tensor:
        raise AssertionError("all is there")

    monkeypatch.setattr(TorchModel, "encode_waves", encode)
    assert run("--json", tmp_path / "out.json") == 0
    assert results(tmp_path / "out.json") == alone


def test_it_goes_on_where_it_was_stopped(
    run: Callable[..., int], alone: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, stop_at, encode = list[int](), [6], TorchModel.encode_waves

    def counted(model: TorchModel, waves_BS: NDArray[np.float32]) -> Tensor:
        if len(encoded) == stop_at[0]:
            raise KeyboardInterrupt
        encoded.append(len(waves_BS))
        return encode(model, waves_BS)

    monkeypatch.setattr(TorchModel, "encode_waves", counted)
    assert run() == 130
    stop_at[0] = -1
    assert run("--json", tmp_path / "out.json") == 0
    assert results(tmp_path / "out.json") == alone
    assert sum(encoded) == WAVES + 1  # of the piece that was begun, one was encoded before


def test_work_on_another_model_is_refused(
    run: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "about.json").write_text('{"weights": "others"}')
    assert run() == 3
    assert "holds work on another model" in " ".join(capfd.readouterr().err.split())


def test_a_part_is_computed_by_one_process(
    run: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "work").mkdir()
    with locked(tmp_path / "work", Share(1, 2)):
        for refused in (["--part", "1/2"], ["--part", "2/3"], []):
            assert run(*refused) == 3
            assert "another process" in capfd.readouterr().err


def test_a_damaged_piece_is_named(tmp_path: Path) -> None:
    def compute(items: range) -> dict[str, NDArray[Any]]:
        return {"number": np.array(items)}

    with Pieces(tmp_path, {}, track=untracked) as pieces:
        assert pieces.of("all", 3, compute) is not None
        (tmp_path / "all-00000.safetensors").write_bytes(b"half")
        with pytest.raises(DataError, match=r"all-00000\.safetensors cannot be read .*remove it"):
            pieces.of("all", 3, compute)


def untracked(sequence: Sequence[T], description: str) -> Iterable[T]:
    return sequence


def test_batches_are_what_items_are_one_by_one(trees: Path) -> None:
    def found(batch_size: int) -> tuple[NDArray[np.float32], Tensor]:
        source = TorchModel(tiny_model.tiny(), 2960 + 2880 * 3, batch_size=batch_size)
        nothing_kept = Pieces(None, {}, track=untracked)

        def load(item: Any) -> tuple[NDArray[np.float32], int]:
            return place(read_wave(item), source.window_samples)

        [prompted], [pairs] = sound_prompted(trees / "sound"), places(trees / "places" / "distro")
        drawn = maps(source, prompted, load, "maps", nothing_kept)
        compared = similarities(source, pairs, load, "pairs", nothing_kept)
        assert drawn is not None
        assert compared is not None
        return drawn.heat_VNhw, compared

    (heat_one, sims_one), (heat_three, sims_three) = found(1), found(3)
    np.testing.assert_allclose(heat_three, heat_one, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sims_three, sims_one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrong", [["--part", "1/2"], ["--part", "3/2", "--work", "w"]])
def test_a_part_needs_work(
    model: Path, trees: Path, wrong: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(model), "--vggss", str(trees / "vggss"), *wrong])
    assert ended.value.code == 2
    assert "--part" in capfd.readouterr().err
