"""Checkpoints that mean ill or are damaged: a line each, at once, in little memory."""

import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from denseav.models import CheckpointError, load
from denseav.models.checkpoints.pickled_file import load_pickled
from tests.golden import released as golden
from tests.support.tiny_model import CONFIG


def config(**changes: Any) -> str:
    record = json.loads(CONFIG.to_json())
    for name, value in changes.items():
        part, _, field = name.rpartition("__")
        (record["model"][part] if part else record["model"])[field] = value
    return json.dumps(record)


def named(name: str, content: str | bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)
        return folder / name

    return make


def saved(record: object, **how: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        torch.save(record, folder / "made.ckpt", **how)
        return folder / "made.ckpt"

    return make


def pickled(data: bytes, entries: dict[str, bytes] | None = None, *, packed: int = 0) -> bytes:
    """Return an archive as torch writes it, with any pickle and any storages."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packed) as archive:
        for name, content in ({"data.pkl": data, "version": b"3\n"} | (entries or {})).items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def storage_of(claimed: int) -> bytes:
    """Return a pickle of one tensor whose storage claims so many floats."""
    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    )
    size = b"\x8a\x08" + struct.pack("<q", claimed)
    shape = b"(" + size + b"t"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + size + b"tQK\x00" + shape
    tensor += b"(K\x01t\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}(X\n\x00\x00\x00state_dict}X\x01\x00\x00\x00a" + tensor + b"su."


def sparse_file(folder: Path) -> Path:
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(config())
    with (folder / "model" / "model.safetensors").open("wb") as file:
        header = json.dumps({"a": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}})
        file.write(struct.pack("<Q", len(header)) + header.encode())
        file.truncate(2**40 + 8 + len(header))
    return folder / "model"


def with_weights(content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "config.json").write_text(config())
        (folder / "model.safetensors").write_bytes(content)
        return folder

    return make


def pipe(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        os.mkfifo(folder / name)
        return folder / name

    return make


def released(**changes: object) -> Callable[[Path], Path]:
    """A checkpoint in the authors' form, without weights, and with such hyper-parameters."""
    return saved({"state_dict": {}, "hyper_parameters": golden.hyperparameters() | changes})


ONE = torch.zeros(1)
DISKS = (
    b"PK\x06\x07"
    + struct.pack("<IQI", 0, 0, 9)
    + b"PK\x05\x06"
    + struct.pack("<HHHHIIH", 0, 0, 1, 1, 46, 0, 0)
)
BYTE_ARRAY = b"\x80\x02c__builtin__\nbytearray\nJ\x00\x00\x00\x7f\x85R."  # of 2 GB
HUGE = {"state_dict": {"a": ONE.expand(2**33)}, "hyper_parameters": {}}
HOSTILE: dict[str, Callable[[Path], Path]] = {
    "a text": named("a.ckpt", "(this is no checkpoint\n" * 9),
    "a page": named("a.ckpt", "<html>404</html>"),
    "nothing": named("a.ckpt", b""),
    "an archive of something else": named("a.ckpt", pickled(b"", {"x": b"y"})),
    "a pickle cut short": named("a.ckpt", pickled(pickle.dumps({"state_dict": {}})[:-3])),
    "a pickle of rubbish": named("a.ckpt", pickled(b"\x80\x02" + bytes(range(256)))),
    "a pickle that pops too much": named("a.ckpt", pickled(b"\x80\x0200000.")),
    "a pickle that remembers nothing": named("a.ckpt", pickled(b"\x80\x02h\x05.")),
    "an unending list": named("a.ckpt", pickled(b"\x80\x02" + b"]" * 2**24 + b".")),
    "a byte array": named(
        "a.ckpt", pickled(b"\x80\x02c__builtin__\nbytearray\nJ\x00\x00\x00\x7f\x85R.")
    ),
    "a name from the stack": named("a.ckpt", pickled(b"\x80\x04\x8c\x02os\x8c\x06system\x93.")),
    "an archive over several disks": named("a.ckpt", pickled(b"", {"x": bytes(64)})[:-22] + DISKS),
    "a bomb": named("a.ckpt", pickled(b"\x00" * 2**27, packed=zipfile.ZIP_DEFLATED)),
    "storages larger than the file": named(
        "a.ckpt", pickled(storage_of(2**33), {"data/0": b"1234"})
    ),
    "storages of a negative size": named("a.ckpt", pickled(storage_of(-1), {"data/0": b"1234"})),
    "storages that are not there": named("a.ckpt", pickled(storage_of(1))),
    "tensors larger than their storage": saved(HUGE),
    "a tensor on no device": saved({"state_dict": {"a": torch.empty(2**40, device="meta")}}),
    "keys that are numbers": saved({"state_dict": {1: ONE}, "hyper_parameters": {}}),
    "weights that are words": saved({"state_dict": {"a": "b"}, "hyper_parameters": {}}),
    "a list": saved([1, 2]),
    "a number": saved(7),
    "a billion heads": released(sim_agg_heads=10**9),
    "no heads": released(sim_agg_heads=0),
    "minus one head": released(sim_agg_heads=-1),
    "heads that are a tensor": released(sim_agg_heads=torch.zeros(2, 2)),
    "a flag that is a tensor": released(audio_lora=torch.zeros(2, 2)),
    "a word that is a list": released(sim_agg_type=["misa"]),
    "hyper-parameters by number": saved({"state_dict": {}, "hyper_parameters": {1: 2}}),
    "a million layers": named("a.json", config(audio__layers=10**6)),
    "a network of a petabyte": named("a.json", config(audio__hidden=65_536, audio__layers=256)),
    "a picture of a gigapixel": named("a.json", config(image__size=65_536, image__patch=1)),
    "a number beyond all": named("a.json", config(code_dim=10**30)),
    "a million heads": named("a.json", config(heads=[f"h{n}" for n in range(10**4)])),
    "a head of a megabyte": named("a.json", config(heads=["a" * 10**5])),
    "JSON without end": named("a.json", "[" * 10**6),
    "JSON nested in a field": named("a.json", config().replace('"tiny"', "[" * 900 + "]" * 900)),
    "JSON of ten megabytes": named("a.json", config() + " " * 10**7),
    "JSON that is no text": named("a.json", b"\xff\xfe\x00"),
    "fields without end": named("a.json", config(**{f"f{n}": 1 for n in range(10**4)})),
    "a checkpoint that is a pipe": pipe("a.ckpt"),
    "a configuration that is a pipe": pipe("a.json"),
    "a name too long": lambda folder: folder / ("a" * 300),
    "weights that are nothing": with_weights(b""),
    "weights that are rubbish": with_weights(b"\xff" * 100),
    "weights with an endless header": with_weights(struct.pack("<Q", 2**62) + b"{}"),
    "weights with a deep header": with_weights(struct.pack("<Q", 10**5) + b"[" * 10**5),
    "weights of a terabyte": sparse_file,
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_it_is_refused_in_a_line_and_takes_no_memory(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    source = make(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as refused:
            load(source)
        assert tracemalloc.get_traced_memory()[1] < 2**28
    finally:
        tracemalloc.stop()
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 3000


WHOLE = io.BytesIO()
torch.save({"state_dict": {"a": torch.arange(3.0)}, "hyper_parameters": {"n": [1, "x"]}}, WHOLE)
with zipfile.ZipFile(WHOLE) as _archive:
    PICKLE = next(_archive.read(n) for n in _archive.namelist() if n.endswith("data.pkl"))


def test_what_is_whole_comes_back(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(WHOLE.getvalue())
    record = load_pickled(tmp_path / "a.ckpt")
    assert record["hyper_parameters"] == {"n": [1, "x"]}
    assert record["state_dict"]["a"].tolist() == [0.0, 1.0, 2.0]


@given(st.integers(0, len(PICKLE) - 1), st.binary(max_size=4), st.integers(0, 4))
def test_a_fuzzed_pickle_is_read_or_refused(at: int, instead: bytes, gone: int) -> None:
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"fuzzed-{os.getpid()}.ckpt"
    damaged = PICKLE[:at] + instead + PICKLE[at + gone :]
    path.write_bytes(pickled(damaged, {"data/0": bytes(12), "byteorder": b"little"}))
    try:
        load_pickled(path)
    except (OSError, ValueError):
        pass
    finally:
        path.unlink()
