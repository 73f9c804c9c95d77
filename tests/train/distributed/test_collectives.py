"""Gradients of several processes, added up by gloo, are those of one with the whole batch."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from denseav.train.data.batch import Batch
from denseav.train.distributed.collectives import gather, gather_objects, rank, total, world_size
from denseav.train.loss import regularizers
from denseav.train.loss.cluster_mixtures import Assigned
from denseav.train.loss.denseav_loss import Weights, denseav_terms
from denseav.train.loss.learner import Encode
from denseav.train.loss.mix_and_separate import Separation, separation_terms
from denseav.train.loss.pooling import Pooling
from tests.support.train.parts import batch, learner, mixed_batch, rows

CLIPS = 8
HEADS = ("speech", "sound")
WEIGHTS = Weights(
    disentanglement=0.5,
    splice=0.5,
    nonnegativity=0.5,
    total_variation=0.5,
    silence_l1=0.5,
    silence_l2=0.5,
    image_mixup=0.5,
    wrong_head=0.5,
)
LOSSES = ("dense", "gated", "dense_sum", "average", "simpool", "separate", "mixed")
HEAD_A = torch.tensor([0, 0, 1, 1, 0, 1, 1, 0])
"""Where clips are gated: of four processes, some have clips of one head alone."""
MIXED_A = torch.arange(8) % 2
"""So any number of processes makes the same mixtures."""
Gradients = dict[str, Tensor]


def data(loss: str) -> Batch:
    return mixed_batch(CLIPS) if loss == "separate" else batch(CLIPS)


def terms_of(loss: str, encode: Encode, part: Batch) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    common = (encode, part, HEADS, WEIGHTS, generator)
    if loss == "separate":
        return separation_terms(*common, Separation(shared_negatives=True), mixtures=True)
    count = len(part)
    own = slice(rank() * count, (rank() + 1) * count)
    assigned = {
        "gated": Assigned(HEAD_A[own], alone=True),
        "mixed": Assigned(MIXED_A[own], alone=False),
    }
    return denseav_terms(*common, assigned.get(loss))


def gradients(loss: str) -> tuple[dict[str, float], Gradients]:
    """Return the terms of the whole batch and every gradient, from this process's part of it."""
    pooling: Pooling = "dense" if loss in ("separate", "gated", "mixed") else loss  # type: ignore[assignment]
    made = learner(pooling=pooling)
    made.model.image_aligner.cls_projection.requires_grad_(False)
    made.model.audio_encoder.hubert.masked_spec_embed.requires_grad_(False)
    whole = data(loss)
    count = len(whole) // world_size()
    part = rows(whole, slice(rank() * count, (rank() + 1) * count))
    encode = DistributedDataParallel(made) if world_size() > 1 else made
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regularizers, "PLACES", 9)  # so that a few clips have silence enough
        terms = terms_of(loss, encode, part)
    (WEIGHTS.total(terms) * world_size()).backward()
    found = {name: p.grad for name, p in made.named_parameters() if p.grad is not None}
    return {name: total(term).item() for name, term in terms.items()}, found


def work(process: int, folder: str) -> None:
    """Compute with four processes, then with the first two of them."""
    torch.set_num_threads(1)
    for size in (4, 2):
        if process < size:
            meeting = f"file://{folder}/meeting{size}"
            distributed.init_process_group(
                "gloo", init_method=meeting, rank=process, world_size=size
            )
            assert gather_objects(process) == list(range(size))
            found = {loss: gradients(loss) for loss in LOSSES}
            torch.save(found, f"{folder}/{size}-{process}.pt")
            distributed.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gloo")
    multiprocessing.start_processes(work, (str(folder),), nprocs=4, start_method="forkserver")
    return folder


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [2, 4])
def test_every_gradient_is_that_of_one_process(together: Path, loss: str, size: int) -> None:
    terms, alone = gradients(loss)
    assert all(abs(value) > 0 for value in terms.values()), terms
    assert "model.calibrator.log_scale" in alone
    silent = [name for name, gradient in alone.items() if not gradient.abs().sum() > 0]
    # An attention key's bias moves all scores alike; a softmax does not see it.
    assert all(name.endswith("k_proj.bias") for name in silent), silent
    largest = max(gradient.abs().max().item() for gradient in alone.values())
    for process in range(size):
        shared, found = torch.load(together / f"{size}-{process}.pt")[loss]
        assert shared == pytest.approx(terms, rel=1e-5)
        assert found.keys() == alone.keys()
        for name, gradient in alone.items():
            scale = gradient.abs().max().item()
            torch.testing.assert_close(
                found[name], gradient, rtol=1e-3, atol=1e-4 * scale + 1e-6 * largest, msg=name
            )


def test_alone_everything_is_the_identity() -> None:
    values = torch.randn(3, requires_grad=True)
    assert gather(values) is values
    assert torch.equal(total(values), values)
    assert not total(values).requires_grad
    assert (rank(), world_size(), gather_objects("x")) == (0, 1, ["x"])
