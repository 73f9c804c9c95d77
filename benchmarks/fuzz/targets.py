"""What reads from outside, each with good inputs and the exceptions it documents."""

import io
import json
import subprocess
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from PIL import Image
from safetensors.torch import save

from denseav.export.runtime.bundle import BundleError, demo_folder, open_bundle
from denseav.export.runtime.proof import read_probes
from denseav.export.terminal_text import safe_text
from denseav.models import CheckpointError, ModelConfig, load
from denseav.models.checkpoints.released_checkpoint import adopt
from denseav.stream.errors import SourceError
from denseav.stream.feed.client import FeedFormatError, decode, decode_status
from denseav.stream.feed.recording import messages
from denseav.stream.media.errors import MediaError
from denseav.stream.media.reader import MediaReader
from denseav.train.cli.configuration import load_bounded
from denseav.train.cli.train import parse
from denseav.train.data.decode import UnreadableError, open_picture
from denseav.train.data.preparation.source_lists import list_items
from denseav.train.errors import DataError
from denseav.train.eval.items import own_folder
from denseav.train.eval.public_sets import is3, vggss
from tests.golden import released as golden
from tests.support.export.tiny_bundle import replace_file, tiny_graphs, write_tiny_bundle
from tests.support.feeds import make_recording, message
from tests.support.tiny_model import CONFIG, tiny

DEBUG = Path(__file__).parents[2] / "configs" / "train" / "debug.yaml"


@dataclass(frozen=True)
class Target:
    """A reader: how good inputs are made in a folder, what reads one, and what that may raise."""

    good: Callable[[Path], list[bytes]]
    read: Callable[[bytes, Path], object]
    documented: tuple[type[BaseException], ...]


def _placed(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _manifest(data: bytes, folder: Path) -> None:
    open_bundle(_placed(folder / "bundle", "manifest.json", data).parent)


def _good_manifest(folder: Path) -> list[bytes]:
    with_step = json.loads((demo_folder() / "manifest.json").read_text())
    plain = (write_tiny_bundle(folder / "bundle") / "manifest.json").read_bytes()
    return [plain, json.dumps(json.loads(plain) | {"audio_step": with_step["audio_step"]}).encode()]


def _good_graphs(folder: Path) -> list[bytes]:
    write_tiny_bundle(folder / "bundle")
    return [graph.SerializeToString() for graph in tiny_graphs().values()]


def _graph(data: bytes, folder: Path) -> None:
    replace_file(folder / "bundle", "image.onnx", data)
    open_bundle(folder / "bundle")


def _good_probes(folder: Path) -> list[bytes]:
    bundle = folder / "bundle"
    bundle.mkdir()
    for path in demo_folder().iterdir():
        (bundle / path.name).write_bytes(path.read_bytes())
    return [(bundle / "probes.npz").read_bytes()]


def _probes(data: bytes, folder: Path) -> None:
    replace_file(folder / "bundle", "probes.npz", data)
    read_probes(open_bundle(folder / "bundle"))


def _archive(pickled: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {
            "data.pkl": pickled,
            "byteorder": b"little",
            "data/0": bytes(64),
        }.items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def _saved(record: object) -> bytes:
    file = io.BytesIO()
    torch.save(record, file)
    return file.getvalue()


def _good_pickles(_: Path) -> list[bytes]:
    record = {"state_dict": {"a": torch.zeros(4, 4)}, "hyper_parameters": golden.hyperparameters()}
    with zipfile.ZipFile(io.BytesIO(_saved(record))) as archive:
        return [archive.read(name) for name in archive.namelist() if name.endswith(".pkl")]


def _good_archives(_: Path) -> list[bytes]:
    return [_saved({"state_dict": {"a": torch.zeros(4)}, "hyper_parameters": {"code_dim": 4}})]


def _good_model(folder: Path) -> list[bytes]:
    _placed(folder / "model", "config.json", CONFIG.to_json().encode())
    return [save({key: tensor.detach() for key, tensor in tiny().state_dict().items()})]


def _good_released(_: Path) -> list[bytes]:
    return [json.dumps(golden.hyperparameters()).encode()]


def _released(data: bytes, _: Path) -> None:
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        return
    adopt(given, {"a": torch.zeros(1)}, source="fuzz")


def _settings(data: bytes, folder: Path) -> None:
    path = _placed(folder, "run.yaml", data)
    parse(["--config", str(path), "--out", "run"])


def _good_settings(_: Path) -> list[bytes]:
    plain = yaml.safe_load(DEBUG.read_text())
    return [DEBUG.read_bytes(), json.dumps(plain).encode()]


def _good_pictures(_: Path) -> list[bytes]:
    found = []
    for form in ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP", "AVIF"):
        file = io.BytesIO()
        Image.linear_gradient("L").resize((24, 16)).convert("RGB").save(file, form)
        found.append(file.getvalue())
    return found


def _picture(data: bytes, folder: Path) -> None:
    open_picture(_placed(folder, "picture", data))


def _good_media(folder: Path) -> list[bytes]:
    forms = {
        "a.mp4": ("-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac"),
        "a.mkv": ("-c:v", "mpeg4", "-c:a", "flac"),
        "a.avi": ("-c:v", "mjpeg", "-c:a", "pcm_s16le"),
        "a.ts": ("-c:v", "mpeg2video", "-c:a", "mp2"),
        "a.webm": ("-c:v", "libvpx", "-c:a", "libopus"),
        "a.wav": ("-vn",),
    }
    inputs = ["-f", "lavfi", "-i", "testsrc=s=64x48:r=10:d=0.5", "-f", "lavfi", "-i", "sine=d=0.5"]
    for name, how in forms.items():
        command = ["ffmpeg", "-v", "error", "-y", *inputs, *how, str(folder / name)]
        subprocess.run(command, check=True)
    return [(folder / name).read_bytes() for name in forms]


def _media(data: bytes, folder: Path) -> None:
    reader = MediaReader(_placed(folder, "media", data), threads=1)
    reader.facts()
    for kind in (reader.pictures, reader.sound):
        try:
            for index, item in enumerate(kind()):
                if index > 500:
                    break
                del item
        except MediaError:
            pass


def _recording(data: bytes, folder: Path) -> None:
    for _, inner in messages(_placed(folder, "a.mcap", data)):
        decode(inner)


def _good_recording(folder: Path) -> list[bytes]:
    make_recording(folder / "good.mcap", 3)
    return [(folder / "good.mcap").read_bytes()]


def _feed(data: bytes, _: Path) -> None:
    try:
        decode(data)
    except FeedFormatError:
        decode_status(data)


def _text(data: bytes, _: Path) -> None:
    shown = safe_text(data.decode(errors="surrogateescape"))
    assert shown.isprintable() or " " in shown, shown
    assert "\n" not in shown


_VGGSS = b'[{"file": "a", "class": "dog", "bbox": [[0.1, 0.2, 0.3, 0.4]]}]'
_IS3 = (
    b'[{"image": "a/b.jpg", "audio": "c_d.wav", "gt_box": [1, 2, 3, 4]}, '
    b'{"image": "a", "audio": "b", "gt_box": "m.png"}]'
)
_PLACES = b'{"data": [{"wav": "wavs/a.wav", "image": "a.jpg", "speaker": "x", "n": 1}]}'
_AUDIOSET = b'YTID,start_seconds,end_seconds,positive_labels\r\nabc,30,40.5,"/m/1,/m/2"\r\n'
_ITEMS = b"image,audio,kind,boxes,start_s,end_s\na.png,a.wav,sound,0 0 1 1;0 0 .5 .5,0,1\n"

TARGETS: Mapping[str, Target] = {
    "manifest": Target(_good_manifest, _manifest, (BundleError,)),
    "graph": Target(_good_graphs, _graph, (BundleError,)),
    "probes": Target(_good_probes, _probes, (BundleError,)),
    "checkpoint-pickle": Target(
        _good_pickles,
        lambda data, folder: load(_placed(folder, "a.ckpt", _archive(data))),
        (CheckpointError,),
    ),
    "checkpoint-archive": Target(
        _good_archives,
        lambda data, folder: load(_placed(folder, "a.ckpt", data)),
        (CheckpointError,),
    ),
    "safetensors": Target(
        _good_model,
        lambda data, folder: load(_placed(folder / "model", "model.safetensors", data).parent),
        (CheckpointError,),
    ),
    "released": Target(_good_released, _released, (CheckpointError,)),
    "network": Target(
        lambda _: [CONFIG.to_json().encode(), ModelConfig(name="x").to_json().encode()],
        lambda data, _: ModelConfig.from_json(data.decode(errors="replace")),
        (CheckpointError,),
    ),
    "yaml": Target(
        _good_settings,
        lambda data, _: load_bounded(data.decode(errors="replace")),
        (yaml.YAMLError, ValueError),
    ),
    "settings": Target(_good_settings, _settings, (DataError,)),
    "list-json": Target(
        lambda _: [_PLACES],
        lambda data, folder: [*list_items(_placed(folder, "set/metadata/train.json", data)).keys()],
        (DataError,),
    ),
    "list-csv": Target(
        lambda _: [_AUDIOSET],
        lambda data, folder: [*list_items(_placed(folder, "set/metadata/a.csv", data)).keys()],
        (DataError,),
    ),
    "items": Target(
        lambda _: [_ITEMS],
        lambda data, folder: own_folder(_placed(folder, "items.csv", data).parent),
        (DataError,),
    ),
    "vggss": Target(
        lambda _: [_VGGSS],
        lambda data, folder: vggss(_placed(folder, "vggss.json", data).parent),
        (DataError,),
    ),
    "is3": Target(
        lambda _: [_IS3],
        lambda data, folder: is3(_placed(folder, "synthetic3240_bbox.json", data).parent),
        (DataError,),
    ),
    "picture": Target(_good_pictures, _picture, (UnreadableError,)),
    "media": Target(_good_media, _media, (MediaError,)),
    "feed": Target(lambda _: [message(), message(3, b"\xff\xd8\xff")], _feed, (FeedFormatError,)),
    "recording": Target(_good_recording, _recording, (SourceError, FeedFormatError)),
    "text": Target(lambda _: ["café \x1b[31m rtsp://u:p@h/x\n".encode()], _text, ()),
}
