"""The proof at start: the measure of agreement, the probes, and wrong sessions refused."""

import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from denseav.export.runtime.bundle import (
    Bundle,
    BundleError,
    demo_folder,
    open_bundle,
    write_manifest,
)
from denseav.export.runtime.onnx_session import OnnxSession
from denseav.export.runtime.open_session import open_proven, open_session
from denseav.export.runtime.openvino_session import OpenVinoSession, load_core
from denseav.export.runtime.proof import (
    PROBES,
    TOLERANCES,
    ProofError,
    failures,
    measure,
    prove,
    read_probes,
    write_probes,
)
from denseav.stream.cli.check_devices import try_device
from tests.support.export.tiny_bundle import (
    signed,
    with_changed_weight,
    with_overflow,
    write_probed_bundle,
)

HEADS = ("speech", "sound")
RNG = np.random.default_rng(0)
HEAT = RNG.standard_normal((6, 2, 5, 7)).astype(np.float32)


def test_equal_heatmaps_agree_fully() -> None:
    parity = measure(HEAT, HEAT, HEADS)
    for head in HEADS:
        assert parity[head].cosine == pytest.approx(1, abs=1e-12)
        assert parity[head].max_abs == 0
        assert parity[head].argmax_agreement == 1
        assert parity[head].rank_correlation == pytest.approx(1)
    assert failures(parity, TOLERANCES["fp32"]) == []


def test_each_head_is_measured_alone() -> None:
    shifted = HEAT.copy()
    shifted[:, 1] = shifted[:, 1, ::-1]
    parity = measure(HEAT, shifted, HEADS)
    assert parity["speech"].cosine == pytest.approx(1)
    assert parity["sound"].cosine < 0.5
    assert parity["sound"].argmax_agreement < 0.5
    failed = failures(parity, TOLERANCES["fp16"])
    assert len(failed) == 2
    assert all("'sound'" in line for line in failed)


def test_a_scaled_map_keeps_its_ranks_and_its_peak() -> None:
    parity = measure(HEAT, 2 * HEAT, HEADS)["speech"]
    assert parity.rank_correlation == pytest.approx(1)
    assert parity.argmax_agreement == 1
    assert parity.max_abs == pytest.approx(np.abs(HEAT[:, 0]).max(), rel=1e-6)


def test_maps_that_are_not_numbers_fail() -> None:
    broken = HEAT.copy()
    broken[0, 0, 0, 0] = np.nan
    assert failures(measure(HEAT, broken, HEADS), TOLERANCES["fp16"])


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return open_bundle(demo_folder())


@pytest.fixture
def copied(tmp_path: Path) -> Bundle:
    """The demo bundle in a folder of its own, to be changed."""
    folder = tmp_path / "bundle"
    shutil.copytree(demo_folder(), folder)
    return open_bundle(folder)


def with_weight(bundle: Bundle, graph: str, change: float) -> Bundle:
    """Change one weight in the middle of a graph's largest matrix."""
    model = onnx.load(bundle.graph(graph))
    tensors = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    matrices = [t for t in tensors if len(t.dims) == 2 and t.dims[0] != t.dims[1]]
    tensor = max(matrices, key=lambda t: int(np.prod(t.dims)))
    weights = numpy_helper.to_array(tensor).copy()
    weights.flat[weights.size // 2] += change
    tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    onnx.save(model, bundle.graph(graph))
    return signed(bundle)


def test_the_demo_bundle_proves_itself_in_less_than_a_second(demo: Bundle) -> None:
    session = OnnxSession(demo)
    begin_s = time.perf_counter()
    proof = prove(session, demo)
    assert time.perf_counter() - begin_s < 1
    assert proof.least_cosine > 0.999999
    assert set(proof.pass_ms) == {"image", "audio", "heatmap"}
    assert (demo_folder() / PROBES).stat().st_size < 100_000


@pytest.mark.parametrize("graph", ["image", "audio"])
def test_one_changed_weight_is_refused_with_figures_and_remedy(copied: Bundle, graph: str) -> None:
    wrong = with_weight(copied, graph, 1.0)
    with pytest.raises(ProofError, match=r"head '\w+' is off by \d.*%\); .*--device cpu") as caught:
        open_session(wrong, "openvino")
    assert caught.value.exit_code == 4


def test_overflow_in_half_precision_is_refused(copied: Bundle) -> None:
    """Scaled features overflow where float32 does not: the ONNX graphs themselves stay right."""
    model = onnx.load(copied.graph("image"))
    output = model.graph.output[0].name
    producer = next(node for node in model.graph.node if output in node.output)
    producer.output[list(producer.output).index(output)] = "small"
    for name, value in (("up", 1e6), ("down", 1e-6)):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    model.graph.node.append(onnx.helper.make_node("Mul", ["small", "up"], ["huge"]))
    model.graph.node.append(onnx.helper.make_node("Sqrt", ["huge_squared"], ["huge_again"]))
    model.graph.node.insert(
        len(model.graph.node) - 1, onnx.helper.make_node("Mul", ["huge", "huge"], ["huge_squared"])
    )
    model.graph.node.append(onnx.helper.make_node("Sign", ["small"], ["sign"]))
    model.graph.node.append(onnx.helper.make_node("Mul", ["huge_again", "sign"], ["signed"]))
    model.graph.node.append(onnx.helper.make_node("Mul", ["signed", "down"], [output]))
    onnx.save(model, copied.graph("image"))
    overflowing = signed(copied)
    prove(OnnxSession(overflowing), overflowing)
    # A CPU without such products refuses them before there is anything to prove.
    half = "FP16" in load_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    refusal = (ProofError, "in fp16 does not compute") if half else (BundleError, "in fp16 here")
    with pytest.raises(refusal[0], match=refusal[1]):
        open_session(overflowing, "openvino:CPU:fp16")


WRONG = {
    "weight": (with_changed_weight, r"off by 0\.70% of its peak, allowed 0\.10%"),
    "overflow": (with_overflow, r"in fp16 does not compute .* is nan, needed"),
}


@pytest.mark.parametrize("device", ["cpu", "openvino"])
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_graphs_are_refused_with_figures_and_are_a_row_of_the_table(
    tmp_path: Path, device: str, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    right = write_probed_bundle(tmp_path / "bundle")
    try_device(str(right.folder), device, "1")
    assert json.loads(capsys.readouterr().out)["reason"] == ""
    make, figures = WRONG[wrong]
    make(right)
    try_device(str(right.folder), device, "1")
    assert re.search(figures, json.loads(capsys.readouterr().out)["reason"])


def test_a_wrong_device_is_replaced_only_when_asked_and_said(
    copied: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = with_weight(copied, "image", 1.0)
    assert open_session(wrong, "openvino", on_mismatch="onnx").backend == "onnxruntime-cpu"
    assert "running the ONNX graphs instead: openvino-cpu in fp32" in caplog.text


def test_a_bundle_without_probes_says_what_to_do(copied: Bundle) -> None:
    files = {name: digest for name, digest in copied.manifest.files.items() if name != PROBES}
    write_manifest(copied.folder, replace(copied.manifest, files=files))
    older = open_bundle(copied.folder)
    assert open_session(older, "cpu").backend == "onnxruntime-cpu"
    with pytest.raises(BundleError, match=r"older denseav .* export it again, or use --device cpu"):
        open_session(older, "openvino")


@pytest.mark.parametrize("damage", ["bytes", "bit", "shape", "token", "type"])
def test_damaged_probes_are_one_line(copied: Bundle, damage: str) -> None:
    probes = read_probes(copied)
    if damage == "bytes":
        (copied.folder / PROBES).write_bytes(b"no archive")
    elif damage == "bit":
        whole = bytearray((copied.folder / PROBES).read_bytes())
        whole[200] ^= 255
        (copied.folder / PROBES).write_bytes(whole)
    elif damage == "shape":
        write_probes(copied.folder, replace(probes, heat_NKHW=probes.heat_NKHW[:, :, 1:]))
    elif damage == "token":
        write_probes(copied.folder, replace(probes, tokens=probes.tokens + 9))
    else:
        objects = np.array([{}] * len(probes.tokens), dtype=object)
        write_probes(copied.folder, replace(probes, tokens=objects))
    with pytest.raises(BundleError, match=r"probes\.npz is damaged .* export the bundle again"):
        read_probes(signed(copied))


@pytest.mark.parametrize("precision", [None, "bf16"])
def test_openvino_computes_in_the_precision_that_was_asked_for(
    demo: Bundle, precision: str | None
) -> None:
    device = "openvino" if precision is None else f"openvino:CPU:{precision}"
    try:
        session, proof = open_proven(demo, device)
    except BundleError as error:
        # Not every CPU has bfloat16; then it is said, and nothing else is run in its place.
        assert precision == "bf16"
        assert "does not compute in bf16 here" in str(error)  # noqa: PT017
        return
    assert session.precision == (precision or "fp32")
    assert proof is not None
    assert failures(proof.parity, TOLERANCES[session.precision]) == []
    exact = precision is None
    assert (proof.least_cosine > 0.9999999) == exact


def test_openvino_is_interrupted_like_any_session(demo: Bundle) -> None:
    from denseav.export.runtime.session import Interrupted

    session = OpenVinoSession(demo)
    session.interrupt()
    with pytest.raises(Interrupted):
        session.encode_image(np.zeros((128, 168, 3), np.uint8))


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("openvino:GPU.7", r"no device GPU\.7 here, only .*; use --device openvino:"),
        ("openvino:CPU:int4", "is none of auto, cpu"),
        ("metal", "is none of auto, cpu"),
    ],
)
def test_what_is_not_there_is_one_line(demo: Bundle, device: str, message: str) -> None:
    with pytest.raises((BundleError, ValueError), match=message):
        open_session(demo, device)


def test_all_openvino_sessions_share_one_core() -> None:
    """A process that makes one after the other ends at times by SIGSEGV."""
    assert load_core() is load_core()


def test_openvino_tells_nobody_that_it_is_used() -> None:
    """Its own package would, when it is imported, from a process forked beside threads."""
    script = (
        "import os, sys; os.fork = lambda: os._exit(9)\n"
        "from denseav.export.runtime.openvino_session import load_core\n"
        "load_core(); import threading; sys.exit(threading.active_count() - 1)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
