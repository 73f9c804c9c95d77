"""The scale of the heads from a folder of pairs: what lights up then, and which are no use."""

import json
import shutil
import wave
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from denseav.export import cli
from denseav.export.builder import probe_inputs
from denseav.export.builder.threshold_calibration import SHARES, calibrate_on, find_pairs
from denseav.export.runtime.bundle import BundleError, Manifest, open_bundle, window_samples
from denseav.export.runtime.open_session import open_session
from denseav.export.runtime.session import Session
from denseav.models import save
from tests.support.export.tiny_exports import ARGUMENTS, FRAME_SIZE, exported
from tests.support.export.tiny_exports import TOKENS as EXPORTED_TOKENS
from tests.support.fake_session import TOKENS, FakeSession, fake_manifest
from tests.support.tiny_model import tiny

SAMPLES = window_samples(EXPORTED_TOKENS)


def write_pair(
    folder: Path, name: str, wave_S: NDArray[np.float32], seed: int = 0, rate_hz: int = 16_000
) -> None:
    picture = probe_inputs.frames(1, *FRAME_SIZE, seed=seed)[0]
    cv2.imwrite(str(folder / f"{name}.png"), picture)
    with wave.open(str(folder / f"{name}.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((np.clip(wave_S, -1, 1) * 32767).astype("<i2").tobytes())


def negatives(folder: Path, count: int = 3) -> Path:
    """Write pairs of every kind of negative."""
    folder.mkdir()
    for i in range(count):
        noise_S = probe_inputs.negatives(SAMPLES, seed=i)[3]
        write_pair(folder, f"silence-{i}", np.zeros(SAMPLES, np.float32), seed=10 + i)
        write_pair(folder, f"noise-{i}", noise_S, seed=20 + i)
        for j, kind in enumerate(("offscreen_sound", "offscreen_speech")):
            sound_S = probe_inputs.sounds(1, SAMPLES, seed=100 * j + i)[0]
            write_pair(folder, f"{kind}-{i}", sound_S, seed=30 + 10 * j + i)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return negatives(tmp_path_factory.mktemp("calibration") / "negatives")


@pytest.fixture(scope="module")
def bundle_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, exported and calibrated by the command."""
    parent = tmp_path_factory.mktemp("bundles")
    save(tiny(), parent / "checkpoint")
    arguments = [str(parent / "checkpoint"), "--out", str(parent / "bundle"), *ARGUMENTS]
    arguments += ["--calibration", str(folder)]
    assert cli.main(arguments) == 0
    return parent / "bundle"


def heats_of(
    session: Session, manifest: Manifest, folder: Path, kind: str
) -> Iterator[NDArray[np.float32]]:
    """All slices of all tokens of one kind [K, T, H, W], read without the code under test."""
    for picture in sorted(folder.glob(f"{kind}-*.png")):
        image = session.encode_image(np.ascontiguousarray(cv2.imread(str(picture))[..., ::-1]))
        with wave.open(str(picture.with_suffix(".wav"))) as file:
            raw = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        sound = session.encode_audio((raw / 32768).astype(np.float32))
        tokens = range(manifest.audio.tokens)
        yield np.stack([session.heatmap(image, sound, t) for t in tokens], axis=1)


def test_of_no_kind_more_lights_up_than_its_share(bundle_folder: Path, folder: Path) -> None:
    bundle = open_bundle(bundle_folder)
    session = open_session(bundle, "cpu")
    threshold_K111 = np.array([h.threshold for h in bundle.manifest.heads])[:, None, None, None]
    shares = {}
    for kind in ("noise", "offscreen_sound", "offscreen_speech"):
        heats = [*heats_of(session, bundle.manifest, folder, kind)]
        above = np.stack([heat_KTHW > threshold_K111 for heat_KTHW in heats])
        shares[kind] = above.mean(axis=(0, 2, 3, 4))
        assert above.any(axis=1).mean() <= SHARES[kind] + 0.01
    # One kind decides for each head, and that one is let use its share.
    used_K = np.max([shares[kind] / (SHARES[kind] / 2) for kind in shares], axis=0)
    assert (used_K > 0.7).all()
    assert (used_K < 1.2).all()


def test_the_manifest_says_what_the_scale_was_set_with(bundle_folder: Path, folder: Path) -> None:
    calibration = open_bundle(bundle_folder).manifest.calibration
    assert (calibration["negatives"], calibration["positives"]) == (12, 0)
    assert len(calibration["sha256"]) == 64
    assert "noise 3 %" in calibration["rule"]
    assert all(h.ceiling > h.threshold for h in open_bundle(bundle_folder).manifest.heads)


def test_a_calibrated_bundle_is_known_again_by_its_scale_without_the_folder(
    bundle_folder: Path, tmp_path: Path
) -> None:
    plain = exported(tmp_path).manifest
    calibrated = open_bundle(bundle_folder).manifest
    assert plain.heads != calibrated.heads
    record = json.loads((bundle_folder / "manifest.json").read_text())
    assert record["calibration"]["probed"][0]["threshold"] == plain.heads[0].threshold


def calibrated(folder: Path, **manifest: float) -> tuple[float, float]:
    """The threshold and ceiling of the head that answers a token's last sample."""
    head = calibrate_on(FakeSession(), fake_manifest(**manifest), find_pairs(folder))[1]
    return head.threshold, head.ceiling


def level(value: float, tokens: int = TOKENS) -> NDArray[np.float32]:
    return np.full(window_samples(tokens), value, np.float32)


def test_tokens_that_are_quiet_or_under_a_loud_sound_do_not_count(tmp_path: Path) -> None:
    loud_S = level(0.5)
    loud_S[: -2880 - 80] = -0.01  # 34 dB below what follows
    write_pair(tmp_path, "noise-1", loud_S)
    write_pair(tmp_path, "noise-2", level(0.0001))  # below the energy floor
    assert calibrated(tmp_path)[0] == pytest.approx(0.5, abs=1e-3)
    (tmp_path / "noise-1.png").unlink()
    (tmp_path / "noise-1.wav").unlink()
    with pytest.raises(BundleError, match="quieter than -60 dBFS"):
        calibrated(tmp_path)


def test_the_strictest_kind_decides_and_pictures_that_show_it_set_the_ceiling(
    tmp_path: Path,
) -> None:
    write_pair(tmp_path, "noise-1", level(0.1))
    write_pair(tmp_path, "offscreen_sound-1", level(0.3))
    write_pair(tmp_path, "anything", level(0.2))
    threshold, ceiling = calibrated(tmp_path)
    assert threshold == pytest.approx(0.3, abs=1e-3)
    assert threshold < ceiling < 0.5
    write_pair(tmp_path, "sound-1", level(0.9))
    assert calibrated(tmp_path) == pytest.approx((0.3, 0.9), abs=1e-3)


def test_long_sounds_are_windows_and_short_ones_end_one(tmp_path: Path) -> None:
    session = FakeSession()
    samples = window_samples(TOKENS)
    write_pair(tmp_path, "a", level(0.5)[: samples // 3])
    write_pair(tmp_path, "b", np.tile(level(0.5), 3)[: samples * 3 - 100])
    calibrate_on(session, fake_manifest(), find_pairs(tmp_path))
    assert [len(wave_S) for wave_S in session.windows] == [samples] * 4
    first = session.windows[0]
    assert not first[: samples - samples // 3].any()
    assert first[-(samples // 3) :] == pytest.approx(level(0.5)[: samples // 3], abs=1e-3)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "is not a folder"),
        (lambda f: [p.unlink() for p in f.iterdir()], "holds no picture with sound"),
        (lambda f: (f / "noise-1.wav").unlink(), "noise-1 has no sound NAME.wav"),
        (lambda f: (f / "noise-1.png").unlink(), "noise-1 has no picture NAME.png"),
        (lambda f: (f / "noise-1.png").write_bytes(b"no"), "noise-1.png cannot be decoded"),
        (lambda f: (f / "noise-1.wav").write_bytes(b"no"), "noise-1.wav cannot be decoded"),
        (lambda f: write_pair(f, "noise-1", level(0.1), rate_hz=8000), "1 channels at 8000 Hz"),
    ],
)
def test_a_folder_that_is_no_use_is_one_line(spoil: object, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    write_pair(folder, "noise-1", level(0.1))
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(BundleError, match=message) as caught:
        calibrated(folder)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_the_command_looks_at_the_folder_before_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["no-such-model", "--out", str(tmp_path / "b"), "--calibration", str(tmp_path)]
    assert cli.main(arguments) == 4
    assert "holds no picture with sound" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


def test_engines_keep_their_scale(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--rebuild-engines", str(tmp_path), "--calibration", str(tmp_path)])
    assert caught.value.code == 2
