"""A full disk: one line, everything before it whole, and the same command again goes on."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from denseav.models import load
from denseav.train.distributed.rank0_files import replacing
from denseav.train.errors import DiskError, StoppedError
from denseav.train.trainer import checkpointer
from denseav.train.trainer.checkpointer import BEST, LAST, MODEL, SETTINGS
from denseav.train.trainer.loop import train
from denseav.train.trainer.pretrain_audio import keep
from denseav.train.trainer.tracking.run_log import METRICS, RunLog
from tests.support.disk import room
from tests.support.train.parts import batch, learner
from tests.support.train.runs import ARGUMENTS, SMALL, losses, make, quiet
from tests.support.train.tasks import run_tasks

SHORT = replace(SMALL, optimization=replace(SMALL.optimization, steps=2))


def test_a_disk_that_is_full_leaves_the_old_checkpoint_whole(tmp_path: Path) -> None:
    train(replace(SMALL, optimization=replace(SMALL.optimization, steps=2)), tmp_path, quiet())
    before = (tmp_path / LAST).read_bytes()
    with room(len(before) // 2), pytest.raises(DiskError, match="checkpoint before it is whole"):
        train(SMALL, tmp_path, quiet())
    assert (tmp_path / LAST).read_bytes() == before
    assert not list(tmp_path.glob(".*.partial"))
    assert train(SMALL, tmp_path, quiet()).step == 8


def test_a_full_disk_stops_all_processes(tmp_path: Path) -> None:
    given = (*ARGUMENTS, "--out", str(tmp_path), "--made.batch_size", "4")
    ended = run_tasks(*given, file_bytes=200_000)
    said = "".join(one.said for one in ended)
    assert [one.code for one in ended] == [7, 7], said
    assert said.count("free some space") == 1
    assert "Traceback" not in said
    assert not list(tmp_path.glob(".*.partial"))


def test_figures_that_do_not_fit_leave_those_before(tmp_path: Path) -> None:
    train(SHORT, tmp_path, quiet())
    path = tmp_path / METRICS
    path.write_text(path.read_text() + '{"step": 2, "note": "' + 20_000 * "-" + '"}\n')
    before = path.read_text()
    with room(len(before) + 20), pytest.raises(DiskError, match=METRICS):
        train(SMALL, tmp_path, quiet())
    assert path.read_text().startswith(before)
    train(SMALL, tmp_path, quiet())
    assert list(losses(tmp_path)) == list(range(1, 9))


def test_settings_that_do_not_fit_leave_the_old_ones(tmp_path: Path) -> None:
    train(SHORT, tmp_path, quiet())
    before = (tmp_path / SETTINGS).read_text()
    with room(len(before) // 2), pytest.raises(DiskError, match=SETTINGS):
        train(SMALL, tmp_path, quiet())
    assert (tmp_path / SETTINGS).read_text() == before


def test_pictures_that_do_not_fit_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(DiskError), RunLog(tmp_path, SMALL, 0, quiet()) as log, room(1_000):
        log.record_heatmaps(1, "heatmaps", learner(), batch(4))


def test_what_went_wrong_first_is_told(tmp_path: Path) -> None:
    def run() -> None:
        with RunLog(tmp_path, SMALL, 0, quiet()) as log, room(1_000):
            with pytest.raises(DiskError):
                log.record_heatmaps(1, "heatmaps", learner(), batch(4))
            raise StoppedError("first")

    with pytest.raises(StoppedError):
        run()


@pytest.mark.parametrize("end", [SafetensorError("No space left on device"), KeyboardInterrupt()])
def test_the_best_is_kept_again_where_its_writing_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    def fail(*_: Any) -> None:
        raise end

    train(SMALL, make(tmp_path / "whole"), quiet())
    with monkeypatch.context() as patch:
        patch.setattr(checkpointer, "write", fail)
        told = DiskError if isinstance(end, Exception) else type(end)
        with pytest.raises(told):
            train(SMALL, make(tmp_path / "ended"), quiet())
    train(SMALL, tmp_path / "ended", quiet())
    found, wanted = (load(tmp_path / run / MODEL).state_dict() for run in ("ended", "whole"))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    best = torch.load(tmp_path / "ended" / BEST, weights_only=True)
    assert torch.equal(
        best["learner"]["model.calibrator.log_scale"], wanted["calibrator.log_scale"]
    )


@pytest.mark.parametrize("lost", [(BEST,), (MODEL,), (BEST, MODEL)])
def test_a_finished_run_keeps_what_is_lost_of_the_best(
    tmp_path: Path, lost: tuple[str, ...]
) -> None:
    train(SHORT, make(tmp_path), quiet())
    wanted = load(tmp_path / MODEL).state_dict()
    for name in lost:
        (tmp_path / name).rename(tmp_path / f"lost-{name}")
    train(SHORT, tmp_path, quiet())
    found = load(tmp_path / MODEL).state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert (tmp_path / BEST).read_bytes() == (tmp_path / LAST).read_bytes()


def test_what_a_kill_left_is_not_written_through(tmp_path: Path) -> None:
    best = tmp_path / BEST
    best.write_text("the best")
    os.link(best, tmp_path / f".{LAST}.partial")
    with replacing(tmp_path / LAST) as partial:
        partial.write_text("the last")
    assert best.read_text() == "the best"
    assert (tmp_path / LAST).read_text() == "the last"


def test_an_encoder_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    hubert = learner().model.audio_encoder.hubert
    with room(1_000), pytest.raises(DiskError, match="audio cannot be written"):
        keep(hubert, tmp_path / "audio")
    assert not list(tmp_path.iterdir())
