"""How audio is encoded: as asked, or as this machine can afford, and it is said."""

import dataclasses
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from denseav.export.runtime.bundle import (
    TOKEN_SPAN_SAMPLES,
    Bundle,
    BundleError,
    demo_folder,
    open_bundle,
)
from denseav.export.runtime.open_session import open_session
from denseav.export.runtime.session import AudioWay, Level, Session, Threads
from denseav.stream.app import audio_choice
from denseav.stream.app.audio_choice import open_for_audio
from denseav.stream.app.offline_loop import run_offline
from denseav.stream.inference.hop_controller import TOKEN_S
from denseav.stream.inference.pipeline import Pipeline
from denseav.stream.options import ModelOptions
from denseav.stream.sources.media_file import Clip
from denseav.stream.stats.stats import Stats
from denseav.stream.types import Frame
from tests.stream.app.test_offline_loop import Shown
from tests.support.export.tiny_exports import exported
from tests.support.live_command import live, live_here
from tests.support.media import grey, tone, write_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, shared_graphs: None) -> Path:
    """A bundle of the tiny network that can do both."""
    return exported(tmp_path_factory.mktemp("bundle")).folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mov"
    return write_clip(path, (grey(index % 250) for index in range(75)), tone(48_000, 3.0))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle from before streaming."""
    old = tmp_path_factory.mktemp("old") / "bundle"
    shutil.copytree(demo_folder(), old)
    manifest = json.loads((old / "manifest.json").read_text())
    manifest.pop("audio_step", None)
    manifest.pop("step_parity", None)
    manifest["files"].pop("audio_step.onnx", None)
    (old / "audio_step.onnx").unlink(missing_ok=True)
    (old / "manifest.json").write_text(json.dumps(manifest))
    return old


@pytest.mark.parametrize("audio", ["window", "streaming"])
def test_what_is_asked_for_is_opened_and_in_the_figures(
    folder: Path, clip: Path, tmp_path: Path, audio: str
) -> None:
    arguments = ("--source", clip, "--offline", "--headless", "--model", folder)
    done = live(tmp_path, *arguments, "--audio", audio, "--stats-json", "s.json")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "s.json").read_text().splitlines()[-1])
    assert report["audio"] == audio
    assert report["frames_out"] == 75
    assert report["audio_hops"] >= 15


@pytest.mark.parametrize(("share", "chosen"), [(0.1, "window"), (0.3, "streaming")])
def test_else_it_is_chosen_by_what_a_window_costs_here(
    folder: Path, monkeypatch: pytest.MonkeyPatch, share: float, chosen: str
) -> None:
    monkeypatch.setattr(audio_choice, "_window_s", lambda *_: share * TOKEN_S)
    said: list[str] = []
    session, audio = open_for_audio(open_bundle(folder), ModelOptions(device="cpu"), said.append)
    assert audio == chosen
    assert f"a whole window takes {share:.0%} of its 180 ms here" in said[0]
    assert (chosen == "streaming") == ("streamed" in said[0])
    if chosen == "streaming":
        session.audio_stream()


def test_where_the_device_cannot_stream_it_stays_by_the_window(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = audio_choice.open_session

    def cannot(bundle: Bundle, *, audio: AudioWay, **options: Any) -> Session:
        if audio == "streaming":
            raise BundleError("this device keeps no state; use --audio window")
        return real(bundle, audio=audio, **options)

    monkeypatch.setattr(audio_choice, "open_session", cannot)
    monkeypatch.setattr(audio_choice, "_window_s", lambda *_: 1.0)
    said: list[str] = []
    _, audio = open_for_audio(open_bundle(folder), ModelOptions(device="cpu"), said.append)
    assert audio == "window"
    assert said[0].endswith("this device keeps no state; use --audio window")


def test_what_a_window_costs_is_measured(folder: Path) -> None:
    session, _ = open_for_audio(
        open_bundle(folder), ModelOptions(device="cpu", audio="window"), print
    )
    assert 0 < audio_choice._window_s(session, open_bundle(folder)) < 2
    assert 0 < audio_choice._image_s(session, open_bundle(folder)) < 2


@pytest.mark.parametrize("asked", ["streaming", None], ids=["asked for", "chosen"])
@pytest.mark.parametrize(("share", "lags"), [(1.4, True), (0.5, False)])
def test_a_step_that_does_not_keep_up_is_said_with_the_remedy(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: AudioWay | None,
    share: float,
    lags: bool,
) -> None:
    monkeypatch.setattr(audio_choice, "_window_s", lambda *_: 1.0)
    monkeypatch.setattr(audio_choice, "_step_s", lambda *_: share * TOKEN_S)
    said: list[str] = []
    options = ModelOptions(device="cpu", audio=asked, threads=1)
    _, audio = open_for_audio(open_bundle(folder), options, said.append)
    assert audio == "streaming"
    lines = [line for line in said if "audio will lag: a step takes 140%" in line]
    assert len(lines) == lags
    assert all("--precision int8" in line for line in lines)


def test_a_step_in_eight_bits_that_lags_is_not_told_to_become_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle(folder)
    manifest = dataclasses.replace(bundle.manifest, precision="int8")
    monkeypatch.setattr(audio_choice, "_step_s", lambda *_: TOKEN_S)
    said: list[str] = []
    options = ModelOptions(device="cpu", audio="streaming", threads=1)
    open_for_audio(dataclasses.replace(bundle, manifest=manifest), options, said.append)
    assert said[0].endswith("pictures are encoded beside it; give --threads")


@pytest.mark.parametrize(
    ("cores", "image_s", "step_s", "asked", "audio", "threads"),
    [
        (8, 0.2, 0.1, None, "window", [1, Threads(image=4, audio=3)]),
        (8, 0.2, 0.1, None, "streaming", [1, Threads(image=6, audio=1)]),
        (8, 0.2, 0.2, None, "streaming", [1, Threads(image=5, audio=2)]),
        (8, 0.2, 9.0, None, "streaming", [1, Threads(image=4, audio=3)]),
        (3, 0.2, 9.0, None, "streaming", [1, Threads(image=1, audio=1)]),
        (8, 0.02, 0.2, None, "streaming", [1]),
        (2, 0.2, 0.2, None, "streaming", [1]),
        (8, 0.2, 0.2, 3, "streaming", [3]),
    ],
    ids=[
        "windows",
        "a step that keeps up",
        "one that needs two",
        "one that never will",
        "three cores",
        "quick pictures",
        "no core to spare",
        "asked for",
    ],
)
def test_passes_that_one_thread_is_too_slow_for_share_all_cores_but_one(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    image_s: float,
    step_s: float,
    asked: int | None,
    audio: AudioWay,
    threads: list[int | Threads],
) -> None:
    real, opened = audio_choice.open_session, []

    def noted(bundle: Bundle, *, threads: int | Threads, **options: Any) -> Session:
        opened.append(threads)
        return real(bundle, threads=threads, **options)

    monkeypatch.setattr(audio_choice, "open_session", noted)
    monkeypatch.setattr(audio_choice, "_cores", lambda: cores)
    monkeypatch.setattr(audio_choice, "_image_s", lambda *_: image_s)
    monkeypatch.setattr(audio_choice, "_step_s", lambda *_: step_s)
    said: list[str] = []
    options = ModelOptions(device="cpu", audio=audio, threads=asked)
    open_for_audio(open_bundle(folder), options, said.append)
    assert opened == threads
    assert len([line for line in said if "for the passes" in line]) == len(threads) - 1


@pytest.mark.parametrize("device", ["cpu", "openvino"])
@pytest.mark.parametrize("audio", ["window", "streaming"])
def test_each_pass_has_its_own_threads_and_gives_the_same(
    folder: Path, device: str, audio: AudioWay
) -> None:
    bundle = open_bundle(folder)
    wave_S = tone(16_000, 2.0)[: bundle.manifest.audio.window_samples].astype(np.float32).ravel()

    def features(threads: int | Threads) -> np.ndarray:
        session = open_session(bundle, device, threads=threads, audio=audio)
        if audio == "window":
            found = session.encode_audio(wave_S)
        else:
            found = session.audio_stream().step(wave_S[:TOKEN_SPAN_SAMPLES], Level.of(wave_S))
        return np.asarray(found if isinstance(found, np.ndarray) else found.numpy())

    np.testing.assert_allclose(features(Threads(image=1, audio=2)), features(1), atol=1e-5)


def test_a_bundle_that_cannot_stream_is_run_by_the_window_and_nothing_is_measured(
    old: Path,
) -> None:
    said: list[str] = []
    _, audio = open_for_audio(open_bundle(old), ModelOptions(device="cpu"), said.append)
    assert (audio, said) == ("window", [])


def test_to_stream_with_one_is_one_line_and_the_remedy(old: Path, tmp_path: Path) -> None:
    done = live_here(tmp_path, "--demo", "--headless", "--model", old, "--audio", "streaming")
    assert done.returncode == 4
    (line,) = done.stderr.splitlines()
    assert "export the model again, or use --audio window" in line


def streamed(bundle: Bundle) -> Pipeline:
    options = ModelOptions(device="cpu", audio="streaming")
    session, audio = open_for_audio(bundle, options, print)
    return Pipeline(session, bundle.manifest, audio=audio)


def test_offline_gives_the_very_heat_that_live_gives(folder: Path, clip: Path) -> None:
    bundle = open_bundle(folder)
    pipeline, heats = streamed(bundle), []
    for item in Clip(clip):
        if isinstance(item, Frame):
            heats.append(pipeline.heatmap(item).heat_KHW)
        else:
            pipeline.push(item)
            pipeline.encode_audio()
    view = Shown()
    run_offline(Clip(clip), streamed(bundle), view, Stats(), stop=threading.Event())
    np.testing.assert_array_equal([h.heat_KHW for h in view.heatmaps], heats)
    assert np.abs(heats[-1]).max() > 0
