"""The sinks of a run: what keys do, what is recorded, what a folder that takes nothing ends."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from mcap.reader import make_reader

from denseav.stream.app.mosaic import Mosaic
from denseav.stream.app.view import View
from denseav.stream.display.drawing import Canvas
from denseav.stream.display.hud import Hud
from denseav.stream.display.overlay import Overlay
from denseav.stream.display.timeline import Strip
from denseav.stream.errors import OutputError, StreamError
from denseav.stream.recording.foxglove_channels import ONE_CAMERA, Inputs
from denseav.stream.recording.mp4_recorder import Recorder
from denseav.stream.stats.stats import Stats
from denseav.stream.types import AudioBlock, Frame, Heatmap
from denseav.stream.web.messages import Scaled
from tests.support.fake_session import fake_manifest

PICTURE = np.full((240, 320, 3), 90, np.uint8)


class FakeScreen:
    """Keeps what it is shown, and presses the keys it is told to, one at a time."""

    def __init__(self) -> None:
        self.shown: list[Canvas] = []
        self.keys: list[str] = []
        self.closed = False

    def show(self, canvas: Canvas) -> str | None:
        self.shown.append(canvas.copy())
        return self.poll()

    def poll(self) -> str | None:
        return self.keys.pop(0) if self.keys else None

    def close(self) -> None:
        self.closed = True


class Rig:
    """A view in a folder of its own; `frames` shows pictures, 25 a second, with their sound."""

    def __init__(
        self,
        screen: FakeScreen | None,
        record: Path | None = None,
        strip: bool = False,
        page: "FakePage | None" = None,
        mosaic: Mosaic | None = None,
        inputs: Inputs = ONE_CAMERA,
    ) -> None:
        manifest = fake_manifest()
        self.said: list[str] = []
        self.screen = screen
        self.overlay = Overlay(manifest.heads, trained=True)
        hud = Hud("fake", "fp32", ["a source"])
        self.strip = Strip(manifest.heads, strip)
        self.view = View(
            self.overlay,
            hud,
            Stats(),
            say=self.said.append,
            strip=self.strip,
            screen=screen,  # type: ignore[arg-type]
            record=record,
            page=page,  # type: ignore[arg-type]
            mosaic=mosaic,
            inputs=inputs,
        )
        self.index = 0

    def frames(self, count: int, key: str | None = None) -> None:
        for _ in range(count):
            time_s = self.index / 25
            sound_SC = np.full((640, 1), 0.1, np.float32)
            self.view.audio(AudioBlock(sound_SC, 16_000, 640 * self.index, time_s))
            if key and self.screen is not None:
                self.screen.keys.append(key)
            self.view.show(heatmap(Frame(PICTURE, self.index, time_s)))
            self.index += 1


def heatmap(frame: Frame) -> Heatmap:
    heat_KHW = np.full((2, 2, 3), 0.9, np.float32)
    return Heatmap(frame, heat_KHW, (True, True), 0.0, 0.185, -20.0, frame.capture_s)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def pictures(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_headless_without_a_recording_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(None)
    monkeypatch.setattr(rig.overlay, "draw", None)
    rig.frames(3)
    rig.view.poll()
    rig.view.close()
    assert rig.said == []


def test_q_asks_to_quit_and_the_window_is_closed() -> None:
    rig = Rig(FakeScreen())
    rig.frames(1)
    assert not rig.view.quit_asked
    rig.frames(1, key="q")
    assert rig.view.quit_asked
    rig.view.close()
    assert rig.screen is not None
    assert rig.screen.closed


def test_a_recording_of_data_has_each_camera_and_a_film_the_first_ones_sound(
    tmp_path: Path,
) -> None:
    names = ("a", "b")
    inputs = Inputs(cameras=names, microphones=names)
    mosaic = Mosaic(names, 2 * [(64, 48)], lambda _: None)
    recorded: dict[str, Path] = {}
    for kind in ("mcap", "mp4"):
        rig = Rig(None, tmp_path / f"run.{kind}", mosaic=mosaic, inputs=inputs)
        for index in range(25):
            both = []
            for number in range(2):
                sound_SC = np.full((640, 1), 0.4 * (1 - number), np.float32)
                rig.view.audio(AudioBlock(sound_SC, 16_000, 640 * index, index / 25, number))
                both.append(heatmap(Frame(PICTURE, index, index / 25, number)))
            rig.view.show(*both)
        rig.view.close()
        recorded[kind] = tmp_path / f"run.{kind}"
    with recorded["mcap"].open("rb") as file:
        found = Counter(channel.topic for _, channel, _ in make_reader(file).iter_messages())
    for name in names:
        assert found[f"/{name}/camera"] == found[f"/{name}/heat/sound"] == 25
        assert found[f"/{name}/audio"] == 25
    with av.open(str(recorded["mp4"])) as container:
        parts = [frame.to_ndarray() for frame in container.decode(audio=0)]
    assert 0.3 < float(np.median(np.concatenate(parts, axis=1))) < 0.5, "not mixed, nor b's"


def test_keys_do_with_several_cameras_what_they_do_with_one(tmp_path: Path) -> None:
    mosaic = Mosaic(["a", "b"], [(320, 240), (320, 240)], lambda _: None)
    rig = Rig(FakeScreen(), mosaic=mosaic)
    assert rig.screen is not None

    def show(key: str | None, *cameras: int) -> None:
        assert rig.screen is not None
        rig.screen.keys += [key] if key else []
        frames = [Frame(PICTURE, rig.index, rig.index / 25, camera) for camera in cameras]
        rig.view.show(*map(heatmap, frames))
        rig.index += 1

    show("r", 0, 1)
    for index in range(5):
        show(None, index % 2)
    show("s", 1)
    show("r", 0)
    show(" ", 0)
    held = len(rig.screen.shown)
    show(None, 1)
    assert len(rig.screen.shown) == held
    rig.view.close()
    assert {canvas.shape for canvas in rig.screen.shown} == {(240, 640, 3)}
    [film], [picture] = tmp_path.glob("*.mp4"), tmp_path.glob("*.png")
    assert pictures(film) == 7
    kept = cv2.imread(str(picture))
    assert kept is not None
    assert kept.shape == (240, 640, 3)


def test_h_goes_through_the_heads_and_space_holds_the_picture() -> None:
    rig = Rig(FakeScreen())
    assert rig.screen is not None
    rig.frames(1, key="h")
    assert rig.overlay.shown == ("speech",)
    rig.frames(1, key=" ")
    rig.frames(3)
    assert len(rig.screen.shown) == 2
    rig.screen.keys.append(" ")
    rig.view.poll()
    rig.frames(2)
    assert len(rig.screen.shown) == 4


def test_s_keeps_the_picture_that_is_shown(tmp_path: Path) -> None:
    rig = Rig(FakeScreen())
    rig.frames(2, key="s")
    assert rig.screen is not None
    assert all(line.startswith("picture kept: ") for line in rig.said)
    kept = [tmp_path / line.removeprefix("picture kept: ") for line in rig.said]
    assert set(kept) == set(tmp_path.iterdir())
    for path, shown_HW3 in zip(kept, rig.screen.shown, strict=True):
        np.testing.assert_array_equal(cv2.imread(str(path)), shown_HW3)


def test_r_begins_and_ends_a_recording_as_often_as_wanted(tmp_path: Path) -> None:
    rig = Rig(FakeScreen())
    for count in (3, 4, 5):
        rig.frames(1, key="r")
        rig.frames(count - 1)
        rig.frames(1, key="r")
        rig.frames(1)
    rig.view.close()
    assert sorted(map(pictures, tmp_path.iterdir())) == [3, 4, 5]
    assert len(rig.said) == 6


def test_a_recording_that_was_asked_for_goes_on_while_the_picture_is_held(tmp_path: Path) -> None:
    rig = Rig(FakeScreen(), tmp_path / "run.mp4")
    rig.frames(1, key=" ")
    rig.frames(9)
    rig.view.close()
    assert pictures(tmp_path / "run.mp4") == 10
    assert rig.said == [f"recorded: {tmp_path / 'run.mp4'}"]


def test_the_sound_of_a_recording_begins_with_it(tmp_path: Path) -> None:
    rig = Rig(FakeScreen())
    rig.frames(100)
    rig.frames(1, key="r")
    rig.frames(25)
    rig.view.close()
    with av.open(str(next(tmp_path.iterdir()))) as container:
        seconds = sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
    assert seconds == pytest.approx(1.0, abs=0.1)


def test_a_key_that_cannot_be_obeyed_is_said_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(FakeScreen())
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    rig.frames(1, key="s")
    rig.frames(1, key="r")
    rig.frames(2)
    assert "start denseav-live in another folder" in rig.said[0]
    assert "cannot write the recording" in rig.said[-1]
    rig.view.close()


def test_a_recording_that_was_asked_for_and_cannot_be_made_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="choose a folder that exists"):
        Rig(FakeScreen(), tmp_path / "missing" / "run.mp4")
    assert list(tmp_path.iterdir()) == []


def test_t_shows_and_hides_the_strip_which_knows_what_came_before() -> None:
    rig = Rig(FakeScreen())
    assert rig.screen is not None
    rig.frames(20)
    rig.frames(1, key="t")
    rig.frames(1)
    assert [len(canvas) for canvas in rig.screen.shown[-2:]] == [240, 240 + 62]
    strip_HW3 = rig.screen.shown[-1][240:].astype(int)
    orange = np.abs(strip_HW3 - (0, 159, 230)).max(axis=2) < 12
    assert orange[:, -20:].sum() > 100  # the head was up while the strip was hidden
    rig.frames(1, key="t")
    rig.frames(1)
    assert len(rig.screen.shown[-1]) == 240


def test_v_goes_through_the_views_and_only_one_of_them_wants_features() -> None:
    rig = Rig(FakeScreen())
    assert rig.screen is not None
    seen = []
    for _ in range(4):
        seen.append(rig.view.wants_features)
        rig.frames(1, key="v")
    assert seen == [False, False, True, False]
    assert [canvas.shape[1] for canvas in rig.screen.shown] == [320, 644, 644, 320]


def test_a_recording_keeps_its_size_when_the_view_changes_and_nothing_is_squeezed(
    tmp_path: Path,
) -> None:
    rig = Rig(FakeScreen(), tmp_path / "run.mp4", strip=True)
    rig.frames(3, key="v")
    rig.frames(1)
    rig.view.close()
    with av.open(str(tmp_path / "run.mp4")) as container:
        images = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    assert {image.shape for image in images} == {(302, 320, 3)}
    wide = images[1].astype(int)
    bars = 302 - round(320 / 644 * (240 + 62))
    assert wide[: bars // 2 - 2].max() < 24
    assert wide[bars // 2 + 20, 100:140].min() > 60


def test_headless_nothing_is_kept_for_the_strip_and_no_features_are_asked_for() -> None:
    rig = Rig(None, strip=True)
    rig.overlay.cycle_layout()
    rig.overlay.cycle_layout()
    assert rig.overlay.wants_features
    assert not rig.view.wants_features
    rig.frames(3)
    assert not rig.strip.draw(320, 9, ())[:, 100:, 1].max() > 70


def test_the_sound_of_a_picture_that_is_held_for_minutes_is_recorded_whole(tmp_path: Path) -> None:
    rig = Rig(None, tmp_path / "run.mp4")
    rig.frames(1)
    for index in range(1, 2400):
        sound_SC = np.full((800, 1), 0.1, np.float32)
        rig.view.audio(AudioBlock(sound_SC, 16_000, 640 + 800 * (index - 1), 0.04 + index / 20))
        rig.view.poll()
    rig.view.show(heatmap(Frame(PICTURE, 1, 120.0)))
    rig.view.close()
    with av.open(str(tmp_path / "run.mp4")) as container:
        loud = [np.abs(frame.to_ndarray()).max() > 0.05 for frame in container.decode(audio=0)]
    assert np.mean(loud) > 0.98
    assert len(loud) * 1024 / 48_000 == pytest.approx(120, abs=0.5)


def test_every_sink_is_closed_whatever_another_one_did(tmp_path: Path) -> None:
    rig = Rig(FakeScreen(), tmp_path / "run.mp4")
    rig.frames(2)
    (tmp_path / "run.mp4").write_text("another's")
    with pytest.raises(OutputError, match=r"kept in .*run\.part\.mp4"):
        rig.view.close()
    assert rig.screen is not None
    assert rig.screen.closed
    assert pictures(tmp_path / "run.part.mp4") == 2


@pytest.mark.parametrize("step", ["frame", "audio"])
def test_a_recording_that_fails_as_nobody_foresaw_is_left_and_plays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    rig = Rig(FakeScreen(), tmp_path / "run.mp4")
    rig.frames(3)

    def fail(*_: object) -> None:
        raise MemoryError("no page left")

    monkeypatch.setattr(Recorder, step, fail)
    rig.frames(2)
    assert rig.screen is not None
    assert len(rig.screen.shown) == 5
    with pytest.raises(StreamError, match=r"the recording failed unexpectedly \(MemoryError: no"):
        rig.view.close()
    assert [line for line in rig.said if "unexpectedly" in line] == [
        "the recording failed unexpectedly (MemoryError: no page left); the run goes on without it"
    ]
    assert pictures(tmp_path / "run.mp4") == 3


def test_any_sink_that_fails_as_nobody_foresaw_is_left_alone_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = FakePage()
    rig = Rig(FakeScreen(), tmp_path / "run.mp4", page=page)
    rig.frames(1)
    for failing, method in ((page, "show"), (rig.screen, "poll")):
        monkeypatch.setattr(failing, method, lambda *_: 1 / 0)
    rig.frames(3)
    rig.view.poll()
    assert rig.screen is not None
    assert rig.screen.closed
    with pytest.raises(StreamError, match="the page failed unexpectedly"):
        rig.view.close()
    assert [line.partition(" failed")[0] for line in rig.said[:2]] == ["the page", "the window"]
    assert pictures(tmp_path / "run.mp4") == 4


class FakePage:
    """A page's server that brings one wish at a time."""

    wants_features = False

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.shown: list[Scaled] = []
        self.heard = 0

    def show(self, scaled: Scaled) -> None:
        self.shown.append(scaled)

    def poll(self, fault: str | None) -> None:
        pass

    def audio(self, block: AudioBlock) -> None:
        self.heard += 1

    def wishes(self) -> list[Mapping[str, Any]]:
        return [self.asked.pop(0)] if self.asked else []

    def close(self) -> None:
        pass


def test_a_page_gets_heat_undrawn_and_begins_and_ends_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = FakePage()
    rig = Rig(None, page=page)
    with monkeypatch.context() as patched:
        patched.setattr(rig.overlay, "draw", None)
        rig.frames(2)
    assert [each.sequence for each in page.shown] == [1, 2]
    assert page.shown[0].threshold_K.tolist() == rig.overlay.scale.thresholds.tolist()
    assert page.heard == 2
    for _ in range(2):
        page.asked.append({"do": "record"})
        rig.frames(5)
        assert rig.view.is_recording
        page.asked.append({"do": "record"})
        rig.frames(1)
        assert not rig.view.is_recording
    rig.view.close()
    assert len(list(tmp_path.glob("denseav-*.mp4"))) == 2
