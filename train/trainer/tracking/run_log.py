"""What can be seen of a run: console lines, `metrics.jsonl`, TensorBoard, Weights & Biases.

Only the first process shows anything; where it cannot record, all stop. Nothing here changes what
is learned.

B clips, K heads, T tokens, H W grid.

Errors
------
DiskError            a figure cannot be written
"""

import contextlib
import dataclasses
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import psutil
import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional

from denseav.models.image_encoder import IMAGE_MEAN, IMAGE_STD
from denseav.models.similarity import volume
from denseav.train.data.batch import Batch
from denseav.train.distributed.collectives import rank
from denseav.train.distributed.rank0_files import on_rank_zero, replacing, writing
from denseav.train.errors import DiskError
from denseav.train.loss.learner import Learner
from denseav.train.trainer.settings import Settings
from denseav.train.trainer.tracking.tensorboard import EventWriter
from denseav.train.trainer.tracking.weights_and_biases import WandbWriter

METRICS = "metrics.jsonl"
EXAMPLES = 4
"""How many validation clips are drawn with their heatmaps."""


class RunLog:
    """Shows and records a run in its folder.

    Parameters
    ----------
    folder : where `metrics.jsonl` and all other files go.
    settings : of the run.
    start : the step it goes on from; what was recorded after it is forgotten.
    console : where lines are shown.
    """

    def __init__(self, folder: Path, settings: Settings, start: int, console: Console) -> None:
        self._settings = settings
        self._steps = settings.optimization.steps
        self._console = console
        self._first_process = rank() == 0
        self._began, self._first = time.monotonic(), start
        self._since, self._clips, self._waited_s = self._began, 0, 0.0
        self._path = folder / METRICS
        on_rank_zero(lambda: self._open(start))

    def __enter__(self) -> "RunLog":
        """Begin."""
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        """Write what is left; what went wrong before is what is told."""
        if failure is None:
            on_rank_zero(self._close)
        elif self._first_process:
            with contextlib.suppress(DiskError):
                self._close()

    def message(self, text: str) -> None:
        """Show a line."""
        if self._first_process:
            self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    def count_step(self, clips: int, waited_s: float) -> None:
        """Note how many clips a step learned from, and how long it waited for them."""
        self._clips += clips
        self._waited_s += waited_s

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let what is done until the context ends be no part of the speed of training."""
        began = time.monotonic()
        yield
        self._since += time.monotonic() - began

    def record_step(
        self, step: int, terms: Mapping[str, float], rate: float, norm: float, skipped: int
    ) -> None:
        """Show and record a step: losses, learning rate, the gradient's norm, speed, memory."""
        now = time.monotonic()
        trained_s = max(now - self._since, 1e-9)
        speed, waiting = self._clips / trained_s, 100 * self._waited_s / trained_s
        left_s = (self._steps - step) * (now - self._began) / max(step - self._first, 1)
        self._since, self._clips, self._waited_s = now, 0, 0.0
        memory_gb = _memory_bytes() / 2**30
        shown = "  ".join(f"{name} {value:.4f}" for name, value in terms.items())
        self.message(
            f"step {step}/{self._steps}  {shown}  lr {rate:.2e}  norm {norm:.2g}  "
            f"{speed:.1f} clips/s  waiting {waiting:.0f} %  {memory_gb:.1f} GB  "
            f"ETA {timedelta(seconds=round(left_s))}" + (f"  skipped {skipped}" if skipped else "")
        )
        figures = {f"loss/{name}": value for name, value in terms.items()}
        figures |= {"learning_rate": rate, "gradient_norm": norm, "skipped": float(skipped)}
        speeds = {"clips_per_s": speed, "waiting_percent": waiting, "memory_gb": memory_gb}
        self.record(step, figures | speeds | _gpu_use())

    def record_validation(self, step: int, found: Mapping[str, float]) -> None:
        """Show and record what validation found, in percent."""
        shown = "  ".join(
            f"{name.removeprefix('recall/')} {value:.1f}" for name, value in found.items()
        )
        self.message(f"step {step}/{self._steps}  validation: {shown}")
        self.record(step, found)

    def record(self, step: int, figures: Mapping[str, float]) -> None:
        """Write figures wherever they are kept; all processes call it."""
        on_rank_zero(lambda: self._write(step, figures))

    def record_heatmaps(self, step: int, name: str, learner: Learner, batch: Batch) -> None:
        """Draw the first clips of a batch and, of each head, where it hears them; all call it."""
        pictures = draw_heatmaps(learner, batch)
        on_rank_zero(lambda: self._draw(step, name, pictures))

    def _open(self, start: int) -> None:
        _forget_after(self._path, start)
        with writing(self._path.parent):
            self._writers: list[EventWriter | WandbWriter] = [EventWriter(self._path.parent, start)]
        if self._settings.wandb is not None:
            config = dataclasses.asdict(self._settings)
            self._writers.append(WandbWriter(self._path.parent, self._settings.wandb, config))

    def _write(self, step: int, figures: Mapping[str, float]) -> None:
        numbers = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        with writing(self._path), self._path.open("a") as file:
            file.write(json.dumps({"step": step, **numbers}) + "\n")
        with writing(self._path.parent):
            for writer in self._writers:
                writer.scalars(step, figures)

    def _draw(self, step: int, name: str, picture_B3HW: Tensor) -> None:
        with writing(self._path.parent):
            for writer in self._writers:
                writer.images(step, name, picture_B3HW)

    def _close(self) -> None:
        with writing(self._path.parent):
            for writer in self._writers:
                writer.close()


@torch.no_grad()
def draw_heatmaps(learner: Learner, batch: Batch) -> Tensor:
    """Return [B, 3, H, (1 + K) W]: each picture, and once for each head lit where it hears.

    Light is the similarity's mean over time, from the lowest of the map to the highest.
    """
    image_B3HW, wave_BS = batch.image_B3HW[:EXAMPLES], batch.wave_BS[:EXAMPLES]
    features = learner(image_B3HW, wave_BS, batch.audio_mask_BS[:EXAMPLES])
    volume_BKTHW = volume(features.image_VKCHW, features.audio_bKCT)
    heat_BKHW = functional.interpolate(
        volume_BKTHW.mean(dim=2), image_B3HW.shape[-2:], mode="bilinear"
    )
    low, high = heat_BKHW.amin((2, 3), keepdim=True), heat_BKHW.amax((2, 3), keepdim=True)
    light_BKHW = (heat_BKHW - low) / (high - low).clamp_min(1e-6)
    mean, deviation = (torch.tensor(x, device=image_B3HW.device) for x in (IMAGE_MEAN, IMAGE_STD))
    picture_B3HW = image_B3HW * deviation[:, None, None] + mean[:, None, None]
    lit = [picture_B3HW * light_BHW[:, None] for light_BHW in light_BKHW.unbind(1)]
    return torch.cat((picture_B3HW, *lit), dim=-1).clamp(0, 1).cpu()


def _memory_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    resident: int = psutil.Process(os.getpid()).memory_info().rss
    return resident


def _gpu_use() -> dict[str, float]:
    """Return in how much of the last moments the GPU was busy, where there is one that counts."""
    if torch.cuda.is_available():
        from pynvml import NVMLError

        with contextlib.suppress(NVMLError):  # a Jetson's driver does not
            return {"gpu_percent": float(torch.cuda.utilization())}
    return {}


def _forget_after(path: Path, step: int) -> None:
    if path.exists():
        kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
        with replacing(path) as partial:
            partial.write_text("".join(f"{line}\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # a line cut off by a kill
        return float("inf")
