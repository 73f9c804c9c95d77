"""What the command line takes, and what it refuses in one line."""

from pathlib import Path

import pytest

from denseav.stream.cli.live_options import parse
from denseav.stream.errors import UsageError
from denseav.stream.options import LiveOptions, SourceOptions


def test_defaults_are_few_and_safe() -> None:
    options = parse(["--camera", "0"])
    assert options == LiveOptions(sources=SourceOptions(cameras=("0",)))
    assert (options.model.device, options.model.threads) == ("auto", None)
    assert not options.display.headless
    shown = options.display
    assert (shown.display, shown.view, shown.strip) == ("window", "overlay", True)
    assert options.seconds is shown.record is options.stats_json is None


def test_everything_of_a_camera_run_can_be_said() -> None:
    given = "--camera rtsp://host/cam --camera-size 1280X720 --camera-fps 29.97 --mic 3"
    given += " --model m --device cpu --threads 4 --headless --record r.mp4 --seconds 1.5"
    options = parse([*given.split(), "--stats-json", "-"])
    sources, model = options.sources, options.model
    assert (sources.camera_size, sources.camera_fps, sources.mic) == ((1280, 720), 29.97, "3")
    assert (model.model, options.display.record) == (Path("m"), Path("r.mp4"))
    assert (options.seconds, model.threads, options.stats_json) == (1.5, 4, "-")


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ("--demo --serve 8080", ("127.0.0.1", 8080)),
        ("--demo --serve 0.0.0.0:8443", ("0.0.0.0", 8443)),
        ("--demo --serve [::1]:8080", ("::1", 8080)),
        ("--camera browser --serve 8443", ("0.0.0.0", 8443)),
        ("--camera browser --serve localhost:8443", ("localhost", 8443)),
    ],
)
def test_a_page_is_this_machines_alone_unless_a_phone_is_to_come(
    given: str, where: tuple[str, int]
) -> None:
    assert parse(given.split()).page.serve == where


def test_listing_devices_needs_nothing_else() -> None:
    assert parse(["--list-devices"]).list_devices


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "name one thing to look at"),
        ("--headless", "name one thing to look at"),
        ("--camera 0 --demo", "name one thing to look at"),
        ("--camera 0 --source a.mp4", "name one thing to look at"),
        ("--source a.mp4 --demo", "name one thing to look at"),
        ("--demo --offline", "--offline goes with --source FILE only"),
        ("--camera 0 --offline", "--offline goes with --source FILE only"),
        ("--demo --mic default", "--mic goes with --camera only"),
        ("--source a.mp4 --camera-fps 30", "--camera-fps goes with --camera only"),
        ("--source a.mp4 --camera-size 640x480", "--camera-size goes with --camera only"),
        ("--camera 0 --camera-size 640", "'640' is not WIDTHxHEIGHT, as in 640x480"),
        ("--camera 0 --camera-size 0x480", "'0' is not a whole number above 0"),
        ("--camera 0 --camera-fps nan", "'nan' is not a number above 0"),
        ("--demo --seconds -3", "'-3' is not a number above 0"),
        ("--demo --seconds inf", "'inf' is not a number above 0"),
        ("--demo --threads 1.5", "'1.5' is not a whole number above 0"),
        ("--demo --device tpu", "'tpu' is none of auto, cpu, cuda, trt, webgpu, openvino"),
        ("--demo --view heads", "invalid choice: 'heads'"),
        ("--demo --display paper", "invalid choice: 'paper'"),
        ("--demo --recrod a.mp4", "unrecognized arguments: --recrod"),
        ("--demo --record", "expected one argument"),
        ("--demo --record rtsp://h/x", "'rtsp://h/x' is an address, and recordings are files"),
        ("--demo --serve :80", "has no host before its colon"),
        ("--demo --serve 127.0.0.1:0", "'0' is not a whole number above 0"),
        ("--demo --serve 70000", "'70000' is not a port from 1 to 65535"),
        ("--demo --serve-control", "--serve-control goes with --serve only"),
        ("--source a.mp4 --offline --serve 80", "--serve shows a live run; leave --offline out"),
        ("--camera browser", "add --serve 8443"),
        ("--camera browser --serve 80 --mic 3", "a browser brings its own microphone"),
        ("--camera browser --serve 80 --camera-fps 5", "--camera-fps does not go with --camera br"),
        ("--demo --sec 3", "unrecognized arguments: --sec"),
    ],
)
def test_senseless_asks_are_refused_in_one_line(given: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(given.split())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_help_names_keys_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "q quit, space pause, v view, h heads, t strip, r record, s snapshot" in shown
    for code in ("0 ended as asked", "2 usage", "3 a source", "4 the model", "7 an output"):
        assert code in shown


TWO = ("--camera", "0", "--camera", "1")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--mic", "camera"),
        ("--sync", "exact"),
        ("--record", "run.mcap"),
        ("--bench", "5"),
        ("--camera", "browser", "--serve", "8443", "--camera-size", "640x480"),
    ],
)
def test_what_goes_with_several_cameras(arguments: tuple[str, ...]) -> None:
    options = parse([*TWO, *arguments])
    assert options.sources.cameras[:2] == ("0", "1")
    if options.page.serve is not None:
        assert options.page.serve[0] == "0.0.0.0"


def test_several_cameras_and_their_names() -> None:
    options = parse([*TWO, "--publish", "tcp://127.0.0.1:5557", "--camera-id=a", "--camera-id=b"])
    assert options.sources.cameras == ("0", "1")
    assert options.feed.camera_ids == ("a", "b")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--publish=x", "--camera-id=a", "--camera-id=a"), "the same --camera-id"),
        (("--publish=x", "--camera-id=a"), "as many --camera-id as"),
        (("--camera", "browser"), "comes in by the page"),
        (("--calibrate-av",), "watches one camera"),
        (15 * ("--camera", "2"), "17 cameras"),
    ],
)
def test_what_does_not_go_with_several_cameras_is_refused(
    arguments: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        parse([*TWO, *arguments])
