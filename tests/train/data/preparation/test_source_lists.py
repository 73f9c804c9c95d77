"""Lists as people have them, and as somebody who means ill writes them."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from denseav.train.data.decode import (
    UnreadableError,
    media_reader,
    open_picture,
    read_picture,
    read_sound,
)
from denseav.train.data.preparation.source_lists import list_items
from denseav.train.errors import DataError
from denseav.train.eval.items import own_folder
from denseav.train.eval.public_sets import places
from denseav.train.eval.read import read_picture as read_item_picture

AUDIOSET = 'YTID,start_seconds,end_seconds,positive_labels\r\nabc,30,40,"/m/1"\r\n'
ITEMS = "image,audio,kind\r\na.png,a.wav,speech\r\n"
PLACES = '{"data": [{"wav": "wavs/a.wav", "image": "a.jpg"}]}'
BOM = b"\xef\xbb\xbf"


def listed(folder: Path, name: str, content: bytes) -> Path:
    path = folder / "set" / "metadata" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [AUDIOSET.encode(), BOM + AUDIOSET.encode(), AUDIOSET.encode("utf-16")],
    ids=["plain", "byte order mark", "UTF-16"],
)
def test_tables_as_spreadsheets_save_them(tmp_path: Path, content: bytes) -> None:
    assert [item.key for item in list_items(listed(tmp_path, "a.csv", content))] == ["abc_30_40"]


def test_a_json_list_with_a_byte_order_mark(tmp_path: Path) -> None:
    items = list_items(listed(tmp_path, "train.json", BOM + PLACES.encode()))
    assert [item.key for item in items] == ["wavs/a"]


def test_a_folder_is_listed_in_the_order_of_its_paths(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    for name in ("a/z.mp4", "a/b/c.mkv", "a-b/x.MP4", "a.mp4", "B/y", "b/.hidden", "b/n.TXT", "d."):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / "b/to_file").symlink_to(folder / "a.mp4")
    (folder / "b/to_folder").symlink_to(folder / "a")
    (folder / "b/to_nothing").symlink_to(folder / "none")
    items = list_items(folder)
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    tried = [path for path in found if path.name not in (".hidden", "n.TXT")]
    assert [item.sound for item in items] == tried
    assert list(items.keys()) == [path.relative_to(folder).as_posix() for path in tried]
    assert items.alone == {".hidden": 1, ".txt": 1}


def test_own_items_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_bytes(BOM + ITEMS.encode())
    assert own_folder(tmp_path)[0].items[0].key == "a.wav"


def test_a_name_that_is_not_utf8_finds_its_file(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    (tmp_path / name).write_bytes(b"")
    (tmp_path / "items.csv").write_bytes(ITEMS.encode().replace(b"a.wav", b"caf\xe9.wav"))
    assert own_folder(tmp_path)[0].items[0].audio.is_file()


def rows(**row: object) -> bytes:
    return json.dumps({"data": [{"wav": "a.wav", "image": "a.jpg"} | row]}).encode()


HOSTILE: dict[str, tuple[str, bytes]] = {
    "sounds above": ("train.json", rows(wav="../../../etc/passwd")),
    "sounds elsewhere": ("train.json", rows(wav="/etc/passwd")),
    "pictures above": ("train.json", rows(image="../../secret.jpg")),
    "a segment above": ("a.csv", AUDIOSET.replace("abc", "../../../abc").encode()),
    "nested without end": ("train.json", b'{"data": ' + b"[" * 100_000),
    "notes without end": (
        "train.json",
        rows().replace(b'"a.jpg"', b'"a.jpg", "note": ' + b"[" * 900 + b"]" * 900),
    ),
    "rows that are words": ("train.json", b'{"data": ["a.wav"]}'),
    "no data": ("train.json", b"{}"),
    "a row without a picture": ("train.json", b'{"data": [{"wav": "a.wav"}]}'),
    "bytes": ("train.json", b"\x00\xff"),
    "a cell without end": ("a.csv", AUDIOSET.replace("abc", "a" * 2**21).encode()),
    "seconds that are none": ("a.csv", AUDIOSET.replace("30", "soon").encode()),
    "a table without a column": ("a.csv", AUDIOSET.replace("YTID", "id").encode()),
}


@pytest.mark.parametrize(("name", "content"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_list_is_refused_in_a_line(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(DataError) as refused:
        list(list_items(listed(tmp_path, name, content)).keys())
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.wav", "deep/../../secret.wav"])
@pytest.mark.parametrize("column", ["image", "audio"])
def test_own_items_stay_in_their_folder(tmp_path: Path, column: str, name: str) -> None:
    cells = {"image": "a.png", "audio": "a.wav", "kind": "speech"} | {column: name}
    (tmp_path / "items.csv").write_text(f"{','.join(cells)}\n{','.join(cells.values())}\n")
    with pytest.raises(DataError, match=r"line 2: .* leads out of"):
        own_folder(tmp_path)


@pytest.mark.parametrize("boxes", ["nan 0 1 1", "0 0 inf 1", "0 0 1"])
def test_own_boxes_are_numbers(tmp_path: Path, boxes: str) -> None:
    (tmp_path / "items.csv").write_text(f"image,audio,kind,boxes\na.png,a.wav,sound,{boxes}\n")
    with pytest.raises(DataError, match="line 2"):
        own_folder(tmp_path)


def test_public_lists_stay_in_their_folder(tmp_path: Path) -> None:
    listed(tmp_path, "val.json", rows(wav="../../secret.wav"))
    with pytest.raises(DataError, match=r"val\.json"):
        places(tmp_path / "set")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def nothing(path: Path) -> None:
    pass


READERS: dict[str, Callable[[Path], object]] = {
    "picture": read_picture,
    "sound": lambda path: read_sound(media_reader(path)),
    "evaluated picture": lambda path: read_item_picture(path, (8, 8), stretch=True),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("make", [pipe, Path.mkdir, nothing])
def test_what_is_no_file_is_not_waited_for(
    tmp_path: Path, make: Callable[[Path], object], read: Callable[[Path], object]
) -> None:
    make(tmp_path / "odd.jpg")
    with pytest.raises((UnreadableError, DataError), match=r"odd\.jpg"):
        read(tmp_path / "odd.jpg")


@pytest.mark.parametrize("name", ["cat.jpg", "cat.png", "cat.eps"])
def test_postscript_starts_no_program(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / name).write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    )
    for read in (read_picture, READERS["evaluated picture"]):
        with pytest.raises((UnreadableError, DataError), match="cannot be read as a picture"):
            read(tmp_path / name)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("form", ["AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_a_picture_cut_anywhere_is_read_or_refused(tmp_path: Path, form: str) -> None:
    path = tmp_path / "whole"
    Image.linear_gradient("L").resize((24, 16)).convert("RGB").save(path, form)
    data = path.read_bytes()
    refused = 0
    for size in range(0, len(data), max(1, len(data) // 40)):
        path.write_bytes(data[:size])
        try:
            open_picture(path)
        except UnreadableError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("form", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_common_pictures_are_read_whatever_they_are_called(tmp_path: Path, form: str) -> None:
    Image.new("RGB", (9, 5), (200, 10, 10)).save(tmp_path / "picture.dat", form)
    assert open_picture(tmp_path / "picture.dat").size == (9, 5)
