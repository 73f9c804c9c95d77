"""What is printed of text from outside."""

import io
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from denseav.export.terminal_text import safe_console, safe_text, without_secrets


@pytest.mark.parametrize(
    "text",
    [
        "camera rtsp://me:s3cret@cam/live cannot",
        "unrecognized arguments: rtsp://me:a s3cret@cam/live",
        "http://a:p@s3cret@cam/v?key=s3cret#s3cret (no)",
        "rtsp://me:s3cret@cam/1 and rtsp://me:s3cret@cam/2",
        "rtsp://cam/user=admin&password=s3cret&channel=1&stream=0.sdp is lost",
        "rtsp://cam:554/user=admin_password=s3cret_channel=1_stream=0.sdp",
        "rtsp://cam/live;password=s3cret",
        "http://cam/a/b;s3cret/c.jpg",
        "http://cam/cgi&s3cret",
        "camera=rtsp://cam/live/user=me&pwd=s3cret,rtsp://cam/2",
        "rtsp://cam:s3cret",
        "rtsp://cam:12s3cret/x",
        "cam/v: password=s3cret",
        "cam Token = s3cret",
        "rtsp:///s3cret@cam/live",
        "rtsps://cam:7441/AbCds3cretGhIjKl",
        "https://cam/live/0s3cret123456789abc/index",
        "lost rtsp://cam/a/abcdefghs3cret012, again",
    ],
)
def test_no_message_keeps_a_secret(text: str) -> None:
    shown = without_secrets(text)
    assert "s3cret" not in shown
    assert "cam" in shown
    assert without_secrets(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "publishing heatmaps at tcp://127.0.0.1:5557; see: denseav-live --help",
        "tcp://[::1]:5557 and tcp://*:5557 and tcp://127.0.0.1:*",
        "camera rtsp://10.0.0.7:554/Streaming/Channels/101 is back after 2.5 s",
        "camera http://cam/axis-cgi/mjpg/video.cgi, lost",
        "rerun+http://127.0.0.1:9876/proxy",
        "threads=1 device=cpu",
        "write tcp://ADDRESS:PORT with a port",
    ],
)
def test_a_message_without_secrets_stays(text: str) -> None:
    assert safe_text(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07 a\x9b2J", r"\x1b]0;owned\x07 a\x9b2J"),
        ("a\r\nb\tc", r"a\x0d\nb\x09c"),
        ("caf\udce9.mp4", r"caf\xe9.mp4"),
        ("\u202egpj.exe\u2028", r"\u202egpj.exe\u2028"),
        ("Größe 日本 👍", "Größe 日本 👍"),
        (ValueError("x\x00"), r"x\x00"),
    ],
)
def test_nothing_that_a_terminal_would_obey_is_left(text: object, shown: str) -> None:
    assert safe_text(text) == shown


@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_whatever_comes_is_one_printable_line(text: str) -> None:
    shown = safe_text(text)
    shown.encode()
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in shown)


def test_all_that_prints_does_so_by_this_console() -> None:
    root = Path(__file__).parents[2]
    files = [path for part in ("stream", "export", "train") for path in (root / part).rglob("*.py")]
    assert len(files) > 150
    for path in files:
        if path.name != "terminal_text.py":
            text = path.read_text()
            assert not re.search(r"\bConsole\(", text), path
            if re.search(r"from rich\.(live|progress) import", text):
                assert "console=" in text, path


def test_tables_and_lines_take_markup_for_text() -> None:
    out = io.StringIO()
    table = Table("[/b]", title="\x1b[2J")
    table.add_row("[red]:smile: http://me:s3cret@cam/x", end_section=True)
    printer = safe_console(file=out, width=80, force_terminal=False)
    printer.print(table)
    printer.print("denseav: [/nothing] [bold]x[/bold]\nnext", style="red")
    shown = out.getvalue()
    assert "[/b]" in shown
    assert "[red]:smile: http://cam/x" in shown
    assert "[/nothing] [bold]x[/bold]\nnext" in shown
    assert "\x1b" not in shown
    assert "s3cret" not in shown
