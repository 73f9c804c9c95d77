"""Export: real graphs of a tiny model, and every way in which no bundle may be left behind."""

import dataclasses
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from denseav.export import cli
from denseav.export.builder import build as building
from denseav.export.builder import probe_inputs
from denseav.export.builder.build import Precision, make_plan
from denseav.export.builder.graphs import make_graphs
from denseav.export.builder.half_precision import half, spell_out_attention
from denseav.export.runtime.bundle import Bundle, BundleError, open_bundle
from denseav.export.runtime.open_session import open_session
from denseav.export.runtime.proof import Tolerance
from denseav.models import save
from tests.support.disk import room
from tests.support.export.tiny_exports import ARGUMENTS, FRAME_SIZE, TOKENS, exported, plan
from tests.support.tiny_model import CONFIG, tiny, tiny_audio

FILES = {"image.onnx", "audio.onnx", "heatmap.onnx", "probes.npz", "audio_step.onnx"}


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exported(tmp_path_factory.mktemp("fp32"), "fp32")


@pytest.fixture(scope="module")
def fp16(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exported(tmp_path_factory.mktemp("fp16"), "fp16")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model with the CLS in its similarity, whose weights count as large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "_ONE_FILE_BYTES", 1000)
        return exported(tmp_path_factory.mktemp("large"), "fp32", cls_similarity=True)


def operators(bundle: Bundle, graph: str) -> list[onnx.NodeProto]:
    model = onnx.load(bundle.graph(graph))
    onnx.checker.check_model(model)
    return [*model.graph.node]


@pytest.mark.parametrize("token", range(TOKENS))
def test_a_session_gives_the_heatmaps_that_pytorch_gives(fp32: Bundle, token: int) -> None:
    model = tiny()
    model.prepare_export(*FRAME_SIZE)
    reference, session = make_graphs(model), open_session(fp32, "cpu")
    picture = probe_inputs.frames(1, *FRAME_SIZE, seed=9)[0]
    wave_S = probe_inputs.sounds(1, fp32.manifest.audio.window_samples, seed=9)[0]
    expected, heat = (
        s.heatmap(s.encode_image(picture), s.encode_audio(wave_S), token)
        for s in (reference, session)
    )
    assert heat.dtype == np.float32
    assert heat.shape == (2, 4, 6)
    assert np.abs(heat - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_local_attention_travels(
    tmp_path: Path, precision: Precision, request: pytest.FixtureRequest
) -> None:
    """In the graph of pictures, which is all that another attention of theirs changes."""
    bundle: Bundle = request.getfixturevalue(precision)
    shutil.copytree(bundle.folder, tmp_path, dirs_exist_ok=True)
    model = tiny(image=dataclasses.replace(CONFIG.image, attention_width=3))
    model.prepare_export(*FRAME_SIZE)
    everywhere, _ = probe_inputs.frames(2, *FRAME_SIZE, seed=9)
    exact = make_graphs(model)
    expected = exact.dense(exact.encode_image(everywhere))
    spell_out_attention(model)
    graph = make_graphs(half(model) if precision == "fp16" else model).image_graph
    building._export(graph, (torch.from_numpy(everywhere),), tmp_path / "image.onnx")
    changed = everywhere.copy()
    changed[:8, :8] = 255 - changed[:8, :8]
    session = open_session(Bundle(folder=tmp_path, manifest=bundle.manifest), "cpu")
    before, after = (session.dense(session.encode_image(frame)) for frame in (everywhere, changed))
    error = {"fp32": 1e-4, "fp16": 2e-2}[precision]
    assert np.abs(before - expected).max() <= error * np.abs(expected).max()
    assert np.array_equal(before[..., :, 3:], after[..., :, 3:])
    assert not np.array_equal(before[..., :3, :3], after[..., :3, :3])


def test_the_features_to_look_at_are_those_that_make_the_heatmaps(
    fp32: Bundle, fp16: Bundle
) -> None:
    picture = probe_inputs.frames(1, *FRAME_SIZE, seed=9)[0]
    wave_S = probe_inputs.sounds(1, fp32.manifest.audio.window_samples, seed=9)[0]
    for bundle, tolerance in ((fp32, 1e-5), (fp16, 1e-2)):
        session = open_session(bundle, "cpu")
        image, audio = session.encode_image(picture), session.encode_audio(wave_S)
        features_KCHW = session.dense(image)
        assert features_KCHW.dtype == np.float32
        sound_KC = np.asarray(audio.numpy(), np.float32)[:, :, 0]
        expected = session.heatmap(image, audio, 0)
        heat = np.einsum("kc,kchw->khw", sound_KC, features_KCHW)
        assert np.abs(heat - expected).max() <= tolerance * np.abs(expected).max()
        features_KCHW[:] = 0  # a copy: the session's own stay
        np.testing.assert_array_equal(session.heatmap(image, audio, 0), expected)


def test_the_manifest_says_what_was_built(fp32: Bundle) -> None:
    manifest = fp32.manifest
    assert [head.name for head in manifest.heads] == ["speech", "sound"]
    assert manifest.trained is False
    assert (manifest.image.grid_height, manifest.image.grid_width) == (4, 6)
    assert manifest.audio.window_samples == 2960 + 2880 * (TOKENS - 1)
    assert manifest.opset >= 18
    assert set(manifest.parity) == {"speech", "sound"}
    assert all(figures["cosine"] >= 0.99999 for figures in manifest.parity.values())
    assert set(manifest.step_parity) == {"filled", "long"}
    assert all(
        figures["cosine"] >= 0.99999
        for heads in manifest.step_parity.values()
        for figures in heads.values()
    )
    assert set(manifest.files) == FILES


@pytest.mark.parametrize("graph", ["image", "audio"])
def test_graphs_are_plain(fp32: Bundle, graph: str) -> None:
    kinds = [node.op_type for node in operators(fp32, graph)]
    # Each norm of the modules is one operator; the audio aligner runs its own on the CLS as well.
    norms = sum(isinstance(m, torch.nn.LayerNorm) for m in tiny().modules())
    in_graph = {"image": 2 * 2 + 2, "audio": norms - (2 * 2 + 2) + 1}
    assert kinds.count("LayerNormalization") == in_graph[graph]
    assert kinds.count("Softmax") == {"image": 2, "audio": 3}[graph]
    assert not {"IsNaN", "Where", "Resize", "If", "Loop", "ReduceL2"} & set(kinds)
    # Where it was exported is nobody's business.
    assert (
        str(Path(__file__).parents[2]).encode() not in (fp32.folder / f"{graph}.onnx").read_bytes()
    )


@pytest.mark.parametrize("graph", ["image", "audio"])
def test_half_precision_is_in_the_graph(fp16: Bundle, graph: str) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load(fp16.graph(graph)))
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Gemm", "Conv"):
            assert types[node.input[0]] == half
            assert types[node.input[1]] == half
        if node.op_type in ("LayerNormalization", "Softmax"):
            assert types[node.input[0]] == single
    assert model.graph.output[0].type.tensor_type.elem_type == half


def test_half_precision_keeps_the_similarity_in_float32(fp16: Bundle) -> None:
    model = onnx.load(fp16.graph("heatmap"))
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert [node.op_type for node in model.graph.node].count("Cast") == 2
    assert all(figures["rank_correlation"] >= 0.999 for figures in fp16.manifest.parity.values())
    assert fp16.graph("audio").stat().st_size > 0


def test_int8_is_of_images_and_of_an_audio_step_that_is_near_enough(
    fp32: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(building.TOLERANCES, "int8", Tolerance(cosine=0.9, rank_correlation=0.9))
    int8 = exported(tmp_path, "int8")
    kinds = [node.op_type for node in operators(int8, "image")]
    assert kinds.count("MatMulInteger") == 2 * 6  # each block: query, key, value, output, two more
    kinds = [node.op_type for node in operators(int8, "audio_step")]
    assert kinds.count("MatMulInteger") >= 2 * 5
    assert int8.manifest.files["audio.onnx"] == fp32.manifest.files["audio.onnx"]
    assert int8.manifest.step_precision == "int8"
    for parity in (int8.manifest.parity, *int8.manifest.step_parity.values()):
        assert all(0.98 <= figures["cosine"] < 1 for figures in parity.values())


def test_an_audio_step_that_is_too_far_off_in_eight_bits_stays_in_float32(
    fp32: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(building.TOLERANCES, "int8", building.TOLERANCES["fp32"])
    shutil.copytree(fp32.folder, tmp_path, dirs_exist_ok=True)
    copy, planned = Bundle(folder=tmp_path, manifest=fp32.manifest), plan("int8")
    exact = open_session(fp32, "cpu", audio="streaming")
    said: list[str] = []
    manifest = building._with_step(
        copy, planned, dict(building._stream_heatmaps(exact, planned)), said.append
    )
    assert "the audio step in float32, as its heatmaps differ too much in eight bits" in said
    assert manifest.step_precision == "fp32"
    assert manifest.files == fp32.manifest.files
    assert copy.graph("audio_step").read_bytes() == fp32.graph("audio_step").read_bytes()
    for parity in manifest.step_parity.values():
        assert all(figures["cosine"] == pytest.approx(1) for figures in parity.values())


def test_a_model_with_cls_similarity_exports_with_it(fp32: Bundle, large: Bundle) -> None:
    heats = []
    for bundle in (fp32, large):
        session = open_session(bundle, "cpu")
        image = session.encode_image(probe_inputs.frames(1, *FRAME_SIZE)[0])
        sound = session.encode_audio(
            probe_inputs.sounds(1, bundle.manifest.audio.window_samples)[0]
        )
        heats.append(session.heatmap(image, sound, 0))
    difference_KHW = heats[1] - heats[0]
    assert np.abs(difference_KHW).min() > 1e-3
    assert difference_KHW.std(axis=(1, 2)) == pytest.approx([0, 0], abs=1e-3)


def test_large_weights_go_beside_the_graph(large: Bundle, tmp_path: Path) -> None:
    beside = set(large.manifest.files) - FILES
    assert beside == {"image.onnx.data", "audio.onnx.data"}  # the audio step's are the audio's
    assert large.graph("audio_step").stat().st_size < 2 * large.graph("audio").stat().st_size
    shutil.copytree(large.folder, tmp_path / "copy")
    (tmp_path / "copy" / beside.pop()).write_bytes(b"")
    with pytest.raises(BundleError, match="sha256"):
        open_bundle(tmp_path / "copy")


@pytest.mark.parametrize("device", ["cuda", "trt"])
def test_a_missing_device_is_an_error_and_never_another_device(
    fp32: Bundle, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("denseav.export.runtime.open_session.cuda_is_here", lambda: False)
    with pytest.raises(BundleError, match=r"no NVIDIA GPU .* --device cpu"):
        open_session(fp32, device)
    assert open_session(fp32, "auto").backend == "onnxruntime-cpu"


def test_a_gpu_that_cannot_be_used_is_said_and_the_cpu_taken(
    fp32: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in ("open_session", "nvidia.cuda_session"):
        monkeypatch.setattr(f"denseav.export.runtime.{module}.cuda_is_here", lambda: True)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    assert open_session(fp32, "auto").backend == "onnxruntime-cpu"
    assert ".[cuda]" in caplog.text
    with pytest.raises(BundleError, match=r"pip install .\.\[cuda\]"):
        open_session(fp32, "cuda")


def test_a_damaged_graph_is_one_line(fp32: Bundle, tmp_path: Path) -> None:
    (tmp_path / "image.onnx").write_bytes(b"not a graph")
    broken = Bundle(folder=tmp_path, manifest=fp32.manifest)
    with pytest.raises(BundleError, match="cannot be opened") as caught:
        open_session(broken, "cpu")
    assert "\n" not in str(caught.value)


def test_plans_follow_the_model_and_the_asked_window() -> None:
    small = make_plan(CONFIG, "x", "fp32", None, 2.0)
    assert small.frame_size == (32, 40)  # 4:3 of the trained side, whole patches
    assert small.tokens == 11
    assert make_plan(CONFIG, "x", "fp32", (64, 96), 0.01).tokens == 1
    with pytest.raises(BundleError, match="multiples of 8"):
        make_plan(CONFIG, "x", "fp32", (30, 48), 2.0)


def test_a_model_with_another_token_rate_is_refused() -> None:
    model = tiny(audio=tiny_audio(aligner="project"))
    with pytest.raises(BundleError, match="a token every 320 samples"):
        make_plan(model.config, "x", "fp32", None, 2.0)


def checkpoint(folder: Path) -> Path:
    save(tiny(), folder / "checkpoint")
    return folder / "checkpoint"


def export_command(source: Path, out: Path, *more: str) -> list[str]:
    command = "import sys; from denseav.export.cli import main; sys.exit(main())"
    return [sys.executable, "-c", command, str(source), "--out", str(out), *ARGUMENTS, *more]


def test_the_command_makes_a_bundle_and_says_how_to_run_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "bundle"
    assert cli.main([str(checkpoint(tmp_path)), "--out", str(out), *ARGUMENTS]) == 0
    said = capsys.readouterr().err
    assert "denseav-live --camera 0 --model" in said.replace("\n", "")
    assert "rank correlation" in said
    assert open_bundle(out).manifest.audio.tokens == TOKENS
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = checkpoint(tmp_path)
    assert cli.main([str(source), "--out", str(tmp_path / "bundle"), "--dry-run"]) == 0
    assert "(56 tokens)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_graphs_over_tolerance_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = {"fp32": Tolerance(cosine=1.1, rank_correlation=0)}
    monkeypatch.setattr(building, "TOLERANCES", strict)
    asked = [str(checkpoint(tmp_path)), "--out", str(tmp_path / "bundle"), *ARGUMENTS]
    assert cli.main(asked) == 4
    assert "differ too much from PyTorch" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_an_output_that_exists_is_not_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine.txt").write_text("keep")
    assert cli.main(["no-such-checkpoint", "--out", str(tmp_path / "bundle")]) == 4
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "bundle" / "mine.txt").read_text() == "keep"


def test_an_output_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["no-such-checkpoint", "--out", str(tmp_path / "file" / "bundle")]) == 4
    assert "cannot be written" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [str(checkpoint(tmp_path)), "--out", str(tmp_path / "bundle"), *ARGUMENTS]
    with room(4096):
        assert cli.main(asked) == 4
    said = capsys.readouterr().err
    assert "make room" in said
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_an_interrupted_export_leaves_nothing(tmp_path: Path) -> None:
    command = export_command(checkpoint(tmp_path), tmp_path / "bundle")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline_s = time.monotonic() + 60
        while len([*tmp_path.iterdir()]) == 1 and time.monotonic() < deadline_s:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        try:
            _, said = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:  # it came where a callback cannot pass it on
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in said.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize(("asked", "extra"), [([], "export"), (["--trt", "fp16"], "trt")])
def test_without_the_network_it_is_said_what_to_install(
    asked: list[str],
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delitem(sys.modules, "denseav.export.builder.build", raising=False)
    monkeypatch.delattr("denseav.export.builder.build", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cli.main(["demo", "--out", str(tmp_path / "bundle"), *asked]) == 4
    said = " ".join(capsys.readouterr().err.split())
    assert "torch is not installed; install it, in a clone" in said
    assert said.endswith(f"pip install '.[{extra}]'")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--window", "--stream-context"])
@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "0", "61", "x"])
def test_seconds_of_audio_that_no_graph_has_are_refused(
    option: str, seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["demo", f"{option}={seconds}"])
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"argument {option}: " in last
