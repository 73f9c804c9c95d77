"""`denseav-feed` as people run it: a process, its one line, its exit code."""

import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import pytest
import zmq

from denseav.stream.cli.feed import main
from denseav.stream.feed.client import HeatmapSubscriber, StatusSubscriber, decode, decode_status
from denseav.stream.feed.conformance import Check, check_heat, check_pair, check_status
from denseav.stream.feed.message import Envelope
from denseav.stream.feed.publisher import CameraFeed, Publisher
from denseav.stream.feed.recording import check_whole, messages
from denseav.stream.feed.watch_table import Watch
from denseav.stream.stats.stats import Stats
from tests.support.feeds import (
    HEADS,
    ORIGIN,
    RUN,
    free_endpoint,
    heatmap,
    make_keys,
    make_recording,
    message,
    publish_until,
    publishing,
    status_of,
)
from tests.support.stalls import thrice, until

Begin = Callable[..., subprocess.Popen[str]]
FEED = [
    sys.executable,
    "-c",
    "import sys; from denseav.stream.cli.feed import main; sys.exit(main())",
]


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def feed(*arguments: object, **keywords: object) -> subprocess.CompletedProcess[str]:
    command = [*FEED, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, **keywords)  # type: ignore[call-overload, no-any-return]


def one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line of an error that ended a command with its exit code."""
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if "error: " in line]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


@contextmanager
def live(endpoint: str, keys: Path | None = None) -> Iterator[Publisher]:
    """A publisher to which heatmaps are given, 50 a second."""
    with publishing(endpoint, keys) as publisher:
        stop = threading.Event()

        def give() -> None:
            index = 0
            while not stop.wait(0.02):
                publisher.heatmap(heatmap(index))
                index += 1

        thread = threading.Thread(target=give)
        thread.start()
        yield publisher
        stop.set()
        thread.join()


def replaying(begin: Begin, file: Path, endpoint: str) -> subprocess.Popen[str]:
    """Begin a replay and return when it can be subscribed to."""
    process = begin([*FEED, "replay", str(file), endpoint], stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert "waiting for a subscriber" in process.stderr.readline()
    return process


@thrice  # who stalls misses messages
def test_record_keeps_the_very_bytes_and_replay_sends_them_again(
    tmp_path: Path, begin: Begin
) -> None:
    endpoint, again = free_endpoint(), free_endpoint()
    file, came = Path(mkdtemp(dir=tmp_path)) / "run.feed", []
    with live(endpoint), HeatmapSubscriber(endpoint, tap=lambda each: came.append(each.data)):
        done = feed("record", file, endpoint, "--seconds", 2)
        assert done.returncode == 0, done.stderr
        kept = [data for _, data in messages(file)]
        assert len(kept) > 5
        until(lambda: set(kept) <= set(came), timeout_s=5)
    sent: list[bytes] = []
    process = replaying(begin, file, again)
    with StatusSubscriber(status_of(again)) as status:
        assert next(status).state == "replay"
        with HeatmapSubscriber(again, tap=lambda each: sent.append(each.data)) as heat:
            assert process.wait(20) == 0
            until(lambda: len(sent) >= len(kept), timeout_s=5)
            assert sent == kept
            assert status._newest.replay
            assert status._newest.run == heat._newest.run


def test_a_replay_is_never_fresh_on_the_machine_it_was_recorded_on(
    tmp_path: Path, begin: Begin
) -> None:
    make_recording(tmp_path / "run.feed", 50)
    time.sleep(0.5)
    endpoint = free_endpoint()
    process = replaying(begin, tmp_path / "run.feed", endpoint)
    with HeatmapSubscriber(endpoint) as heat:
        assert heat.age_ms(next(heat)) > 500
    assert process.wait(20) == 0


def test_watch_shows_heads_and_health(begin: Begin) -> None:
    endpoint = free_endpoint()
    environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm", "FORCE_COLOR": "1"}
    with live(endpoint):
        command = [*FEED, "watch", endpoint]
        watching = begin(command, stdout=subprocess.PIPE, env=environment)
        due = [
            r"sound\s+│ yes\s+│ 0\.(750|812) │ 0\.250\s+│ 480 300\s+│ 320 120 533 360",
            r"live  health",
            r"cam0 640x480",
        ]
        for line in watching.stdout or ():
            plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line)
            due = [words for words in due if not re.search(words, plain)]
            if not due:
                break
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 0
    assert due == []


def test_watch_shows_whatever_a_head_is_called(begin: Begin) -> None:
    """Names come from outside: what would be markup to Rich is shown as it is."""
    names = ("[/b]", "[red]")
    heads = tuple(replace(head, name=name) for head, name in zip(HEADS, names, strict=True))
    endpoint = free_endpoint()
    environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm", "FORCE_COLOR": "1"}
    with closing(
        Publisher(
            endpoint, [CameraFeed(origin=replace(ORIGIN, heads=heads), snapshot=Stats().snapshot)]
        )
    ) as publisher:
        watching = begin([*FEED, "watch", endpoint], stdout=subprocess.PIPE, env=environment)
        shown: list[str] = []
        reading = threading.Thread(target=lambda: shown.extend(watching.stdout or ()))
        reading.start()
        publish_until(publisher, lambda: all(any(name in line for line in shown) for name in names))
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 0
        reading.join()


def test_the_table_asks_which_of_several_cameras_is_meant() -> None:
    watch = Watch()
    for name in ("cam2", "[b]cam"):
        watch.add(decode(message(envelope=Envelope("heat", name, RUN))))
    shown = str(watch.table(None, None))  # type: ignore[arg-type]
    assert shown == "several cameras: [b]cam, cam2; watch one with --camera NAME"


def test_record_keeps_the_one_camera_that_it_is_told(tmp_path: Path, begin: Begin) -> None:
    endpoint, file = free_endpoint(), tmp_path / "run.feed"
    with publishing(endpoint, cameras=("cam2", "cam")) as publisher:
        command = [*FEED, "record", str(file), endpoint, "--camera", "cam"]
        recording = begin(command, stderr=subprocess.PIPE)

        def has_some() -> bool:
            one = heatmap()
            publisher.heatmap(replace(one, frame=replace(one.frame, camera=1)))
            return file.exists() and file.stat().st_size > 20_000

        publish_until(publisher, has_some)
        recording.send_signal(signal.SIGTERM)
        assert recording.wait(20) == 0
    assert {decode(data).header["camera"] for _, data in messages(file)} == {"cam"}


def test_the_table_is_made_while_messages_come() -> None:
    """Messages and table have a thread each; a short switch makes a second of it a long time."""
    watch, one, stop = Watch(), decode(message()), threading.Event()

    def receive() -> None:
        while not stop.is_set():
            watch.add(one)

    endpoint, before_s = free_endpoint(), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    receiving = threading.Thread(target=receive)
    receiving.start()
    try:
        with publishing(endpoint), StatusSubscriber(status_of(endpoint)) as status:
            next(status)
            with HeatmapSubscriber(endpoint) as heat:
                heat._newest = one
                for _ in range(300):
                    watch.table(heat, status)
    finally:
        stop.set()
        receiving.join()
        sys.setswitchinterval(before_s)


@thrice
def test_check_passes_a_feed_that_is_as_documented() -> None:
    endpoint = free_endpoint()
    with live(endpoint):
        done = feed("check", endpoint, "--seconds", 1.5)
    assert done.returncode == 0, done.stderr
    assert "are as FEED.md says" in done.stderr


def test_check_tells_of_a_feed_that_is_not(begin: Begin) -> None:
    endpoint = free_endpoint()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(zmq.PUB) as heat, context.socket(zmq.PUB) as status:
        heat.bind(endpoint)
        status.bind(status_of(endpoint))
        checking = begin([*FEED, "check", endpoint], stderr=subprocess.PIPE)
        while checking.poll() is None:
            heat.send(b"heat/cam0" + bytes(200))
            time.sleep(0.02)
        _, said = checking.communicate()
    context.term()
    assert checking.returncode == 3
    assert "magic" in said


def test_check_compares_what_is_said_with_the_maps() -> None:
    good = decode(message())
    assert check_heat(good) == []
    x, y = good.header["heads"][1]["peak"]  # in the middle of its cell
    for change, complaint in [
        ({"peak": [x + 2, y + 1]}, "peak is not"),
        ({"box": [0.0, 0.0, 640.0, 480.0]}, "box is not"),
        ({"box": None}, "box is not"),
    ]:
        header = {**good.header, "heads": [dict(head) for head in good.header["heads"]]}
        header["heads"][1] |= change
        envelope = Envelope("heat", "cam0", RUN)
        wrong = decode(envelope.seal(header, good.maps_KHW))
        assert any(complaint in found for found in check_heat(wrong)), complaint


def test_check_tells_of_times_and_numbers_that_go_back() -> None:
    envelope = Envelope("heat", "cam0", RUN)
    first, second = (decode(message(index, envelope=envelope)) for index in range(2))
    assert check_pair(first, second) == []
    assert {found.split(" ")[0] for found in check_pair(second, first)} == {"sequence", "the"}
    check = Check()
    check.end(3.0)
    assert check.found == {"0 statuses in 3.0 s; 2 a second are due"}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"state": "asleep"}, "the state 'asleep'"),
        ({"health": "rosy"}, "the health 'rosy'"),
        ({"replay": True}, "contradict"),
    ],
)
def test_check_tells_of_a_status_that_is_not_as_documented(
    change: dict[str, object], complaint: str
) -> None:
    fields = {"state": "live", "health": "fair", "replay": False}
    envelope = Envelope("status", "cam0", RUN)
    assert check_status(decode_status(envelope.seal(fields, None))) == []
    (found,) = check_status(decode_status(envelope.seal(fields | change, None)))
    assert complaint in found


def test_keys_from_making_to_revoking(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = ("--folder", str(tmp_path / "keys"))
    assert main(["keys", "init", *folder]) == 0
    assert main(["keys", "add-client", "arm", *folder]) == 0
    capsys.readouterr()
    assert main(["keys", "list", *folder]) == 0
    assert re.fullmatch(r"arm\t\S{40}\n", capsys.readouterr().out)
    assert oct((tmp_path / "arm.client").stat().st_mode)[-3:] == "600"
    assert main(["keys", "revoke", "arm", *folder]) == 0
    assert main(["keys", "list", *folder]) == 0
    assert capsys.readouterr().out == ""
    assert main(["keys", "revoke", "arm", *folder]) == 5
    assert "no client is named arm" in capsys.readouterr().err


def test_a_client_with_its_key_file_reads_a_guarded_feed(tmp_path: Path) -> None:
    client = make_keys(tmp_path / "keys", "arm")["arm"]
    endpoint = free_endpoint()
    with live(endpoint, tmp_path / "keys"):
        check = ("check", endpoint, "--seconds", 1.2, "--keys", client)
        assert any(feed(*check).returncode == 0 for _ in range(3))  # statuses may come late
        assert "wants keys" in one_line(feed("record", tmp_path / "a", endpoint), 5)
    assert not (tmp_path / "a").exists()


def test_bad_input_is_one_line_and_a_documented_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_recording(tmp_path / "run.feed")
    taken = free_endpoint()
    cases: list[tuple[list[object], int, str]] = [
        (["watch", "tcp://no.such.invalid:5557"], 3, "cannot resolve the host"),
        (["check", free_endpoint()], 3, "no message yet"),
        (["watch", taken, "--keys", tmp_path / "none"], 5, "cannot use the key file"),
        (["replay", tmp_path / "none", taken], 3, "cannot read"),
        (["replay", tmp_path / "run.feed", "tcp://0.0.0.0:5557"], 5, "--insecure"),
        (["replay", tmp_path / "run.feed", "5557"], 2, "an address and a port"),
        (["record", tmp_path / "run.feed", taken, "--seconds", 1], 7, "exists already"),
        (["record", tmp_path / "no" / "folder", taken], 7, "cannot record"),
        (["keys", "list", "--folder", tmp_path / "none"], 5, "keys init"),
    ]
    for arguments, code, complaint in cases:
        done = main([str(argument) for argument in arguments])
        said = subprocess.CompletedProcess(arguments, done, stderr=capsys.readouterr().err)
        assert complaint in one_line(said, code), arguments


def test_a_replay_at_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    make_recording(tmp_path / "run.feed")
    endpoint = free_endpoint()
    with publishing(endpoint):
        assert "in use" in one_line(feed("replay", tmp_path / "run.feed", endpoint), 7)


def test_a_damaged_recording_is_one_line_before_anything_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "run.feed"
    kept = make_recording(path, 3)
    path.write_bytes(path.read_bytes().replace(kept[2][60:], bytes(len(kept[2]) - 60)))
    said = one_line(feed("replay", path, free_endpoint()), 3)
    assert "damaged" in said


def test_a_recorder_that_is_killed_leaves_what_came_until_then(
    tmp_path: Path, begin: Begin
) -> None:
    """At any moment: the file is whole up to the last message, and is replayed."""
    endpoint, again = free_endpoint(), free_endpoint()
    with live(endpoint):
        for index in range(4):
            file = tmp_path / f"run{index}.mcap"
            command = [*FEED, "record", str(file), endpoint]
            recording = begin(command, stderr=subprocess.DEVNULL)
            until(lambda: file.exists() and file.stat().st_size > 50_000)  # noqa: B023
            time.sleep(0.013 * index)
            recording.kill()
            recording.wait()
            contents = check_whole(file)
            assert not contents.finished
            assert contents.count > 5
    sent: list[bytes] = []
    process = begin([*FEED, "replay", str(file), again], stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert f"was not finished; its {contents.count} messages" in process.stderr.readline()
    with HeatmapSubscriber(again, tap=lambda each: sent.append(each.data)):
        assert process.wait(20) == 0
    assert sent == [data for _, data in messages(file)]


def test_a_full_disk_leaves_a_whole_recording(tmp_path: Path) -> None:
    """A real limit of the system, met in the middle of a message."""
    endpoint, file = free_endpoint(), tmp_path / "run.feed"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    with live(endpoint):
        said = one_line(feed("record", file, endpoint, preexec_fn=limit), 7)
    count = len(list(messages(file)))
    assert f"its first {count} messages are kept" in said
    assert count > 5
    assert list(tmp_path.iterdir()) == [file]


def test_a_disk_full_from_the_start_leaves_nothing(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4))

    said = one_line(feed("record", tmp_path / "run.feed", free_endpoint(), preexec_fn=limit), 7)
    assert "cannot record" in said
    assert list(tmp_path.iterdir()) == []


def test_a_recorder_whose_terminal_has_gone_records_on(tmp_path: Path, begin: Begin) -> None:
    endpoint, file = free_endpoint(), tmp_path / "run.mcap"
    reader, writer = os.pipe()
    with live(endpoint):
        command = [*FEED, "record", str(file), endpoint, "--seconds", "1"]
        recording = begin(command, stderr=writer)
        os.close(writer)
        os.close(reader)
        assert recording.wait(30) == 0
    assert check_whole(file).finished


def test_an_error_shows_no_escapes_and_no_password(tmp_path: Path) -> None:
    done = feed("check", "rtsp://me:s3cret@cam\x1b[2J")
    assert "\x1b" not in one_line(done, 2)
    assert "s3cret" not in done.stderr
    assert "\x1b" not in one_line(feed("replay", tmp_path / "\x1b[31mred", free_endpoint()), 3)


def test_a_recording_of_nothing_is_an_error_and_no_file(tmp_path: Path) -> None:
    done = feed("record", tmp_path / "run.feed", free_endpoint(), "--seconds", 0.3)
    assert "nothing came" in one_line(done, 3)
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_recording_is_whole(tmp_path: Path, begin: Begin) -> None:
    endpoint, file = free_endpoint(), tmp_path / "run.feed"
    with live(endpoint):
        recording = begin([*FEED, "record", str(file), endpoint], stderr=subprocess.DEVNULL)
        until(lambda: file.exists() and file.stat().st_size > 50_000)
        recording.send_signal(signal.SIGTERM)
        assert recording.wait(20) == 0
    assert check_whole(file).count > 5
    assert check_whole(file).finished


def test_the_exit_codes_are_in_the_help() -> None:
    assert "5 keys or authorisation" in feed("--help").stdout
