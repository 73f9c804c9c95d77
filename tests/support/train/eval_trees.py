"""The public evaluation sets in their own layouts, three or four items each, made on the spot."""

import csv
import io
import json
import wave
from collections.abc import Iterable, Sequence
from pathlib import Path

import av
import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from denseav.train.data.shards import Clip, close_shards, write_shards

RATE_HZ = 16_000
PROMPTED = ("image_location", "ade_class_id", "speech_prompt_file", "timing", "vggsound_file")
OWN = ("image", "audio", "kind", "category", "mask", "boxes", "start_s", "end_s")


def sound(path: Path, hz: float, duration_s: float = 1.0, level: float = 0.3) -> None:
    """Write a tone as a mono WAV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time_S = np.arange(int(duration_s * RATE_HZ)) / RATE_HZ
    samples_S = (level * 32767 * np.sin(2 * np.pi * hz * time_S)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        file.writeframes(samples_S.tobytes())


def stereo_mp3(path: Path, left_hz: float, right_hz: float, rate_hz: int = 44_100) -> None:
    """Write one second with another tone on each side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time_S = np.arange(rate_hz) / rate_hz
    samples_2S = 0.3 * np.sin(2 * np.pi * np.array([[left_hz], [right_hz]]) * time_S)
    with av.open(str(path), "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=rate_hz, layout="stereo")
        frame = av.AudioFrame.from_ndarray(samples_2S.astype(np.float32), "fltp", "stereo")
        frame.rate = rate_hz
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def picture(path: Path, seed: int, size: tuple[int, int] = (48, 40)) -> None:
    """Write a picture of noise, width by height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(256, size=(*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def ade_label(path: Path, classes_hw: NDArray[np.int64]) -> None:
    """Write a label map as ADE20K does: class = red // 10 * 256 + green."""
    path.parent.mkdir(parents=True, exist_ok=True)
    red, green = classes_hw // 256 * 10, classes_hw % 256
    Image.fromarray(np.stack([red, green, 0 * red], axis=-1).astype(np.uint8)).save(path)


def table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def speech_prompted(root: Path) -> Path:
    """Four rows of two classes, 300 and 7, of which 7 is seen on the left; one row is class 0."""
    classes = (300, 7, 300, 7, 0)
    rows = []
    for index, number in enumerate(classes):
        name = f"validation/{index}.jpg"
        picture(root / "frames" / name, index)
        label = np.full((40, 48), 300)
        label[:, :24] = 7
        ade_label(root / "annotations" / f"validation/{index}_seg.png", label)
        sound(root / "audio" / f"say{index}.wav", 200 + 50 * index, 2.0)
        rows.append((name, number, f"old/place/say{index}.wav", "[0.5, 1.2]", ""))
    table(root / "prompted_segmentation.csv", PROMPTED, rows)
    return root


def sound_prompted(root: Path) -> Path:
    """Three rows of two classes; class ids with a decimal point, as pandas writes them."""
    rows = []
    for index, number in enumerate((7.0, 300.0, 7.0)):
        picture(root / "frames" / f"{index}.jpg", 10 + index)
        label = np.full((40, 48), 7)
        label[20:] = 300
        ade_label(root / "annotations" / f"{index}_seg.png", label)
        sound(root / "audio" / f"hear{index}.wav", 900 + 100 * index, 3.0)
        rows.append((f"{index}.jpg", number, "", "", f"x/hear{index}.wav"))
    table(root / "prompted_segmentation.csv", PROMPTED, rows)
    return root


def places(root: Path, count: int = 4) -> Path:
    """Spoken captions and, beside the folder, their pictures."""
    entries = []
    for index in range(count):
        entry = {"wav": f"wavs/{index}/c.wav", "image": f"a/abbey/{index}.jpg", "speaker": "x"}
        sound(root / entry["wav"], 150 + 40 * index, 1.5)
        picture(root.parent / "places_subset" / entry["image"], 20 + index)
        entries.append(entry)
    (root / "metadata").mkdir()
    (root / "metadata" / "val.json").write_text(json.dumps({"data": entries}))
    return root


def audioset(root: Path, count: int = 4) -> Path:
    """Clips with ten frames each; starts as floats, ends as whole numbers."""
    rows = []
    for index in range(count):
        name = f"clip{index}_{30.0 + index}_{40 + index}"
        stereo_mp3(root / "audio" / f"{name}.mp3", 500 + 200 * index, 100)
        for frame in range(10):
            picture(root / "frames" / f"{name}_{frame}.jpg", 100 + 10 * index + frame)
        rows.append((f"clip{index}", f"{30 + index}.000", 40 + index, '"/m/1,/m/2"'))
    columns = ("YTID", "start_seconds", "end_seconds", "positive_labels")
    table(root / "metadata" / "eval_segments_subset.csv", columns, rows)
    return root


def vggss(root: Path) -> Path:
    """Three pictures with boxes, in both places where frames are kept."""
    entries = []
    for index, category in enumerate(("dog", "drum", "dog")):
        name = f"abc_{index:06}"
        where = f"{name}/image_050.jpg" if index else f"{name}.jpg"
        picture(root / "frames" / where, 40 + index)
        sound(root / "audio" / f"{name}.wav", 300 + 300 * index)
        box = [0.1, 0.2 + 0.1 * index, 0.6, 0.9]
        entries.append({"file": name, "class": category, "bbox": [box]})
    (root / "vggss.json").write_text(json.dumps(entries))
    return root


def is3(root: Path, *, speech: bool) -> Path:
    """Two scenes of two objects each."""
    boxes, masks = [], []
    for seed, scene in enumerate(("dog_drum_1", "cat_bell_2")):
        for side, category in enumerate(scene.split("_")[:2]):
            name = f"{scene}_{category}"
            picture(root / "visual_frames" / f"{name}.jpg", seed, (56, 56))
            sound(root / "audio_wav" / f"{name}.wav", 400 + 100 * seed + 37 * side)
            where = np.zeros((56, 56), np.uint8)
            where[:, 28 * side : 28 * side + 28] = 255
            (root / "gt_masks").mkdir(exist_ok=True)
            Image.fromarray(where).save(root / "gt_masks" / f"{name}.jpg")
            entry = {"image": f"/old/{name}.jpg", "audio": f"/old/{name}.wav"}
            boxes.append({**entry, "gt_box": [112.0 * side, 0.0, 112.0 * side + 112, 224.0]})
            masks.append({**entry, "gt_box": f"/old/{name}.jpg"})
            if speech:
                spoken = category if side else name
                sound(root / "speech" / f"{spoken}.wav", 120 + 60 * side + 20 * seed, 0.7)
    (root / "synthetic3240_bbox.json").write_text(json.dumps(boxes))
    (root / "synthetic3240_seg.json").write_text(json.dumps(masks))
    return root


def clip(path: Path, seed: int, fps: int = 10) -> None:
    """Write two seconds of pictures and noise, which changes all the time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    with av.open(str(path), "w", format="mov") as container:
        video = container.add_stream("mpeg4", rate=fps, width=48, height=40)
        audio = container.add_stream("pcm_s16le", rate=RATE_HZ, layout="mono")
        for _ in range(2 * fps):
            pixels = random.integers(256, size=(40, 48, 3), dtype=np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels)))
        samples_1S = random.integers(-9000, 9000, size=(1, 2 * RATE_HZ), dtype=np.int16)
        heard = av.AudioFrame.from_ndarray(samples_1S, "s16", "mono")
        heard.rate = RATE_HZ
        for packet in (*video.encode(None), *audio.encode(heard), *audio.encode(None)):
            container.mux(packet)


def avatar(root: Path) -> Path:
    """Six frames of three clips: of each scenario, of several at once, and with no source seen."""
    left, right = [4.0, 5.0, 20.9, 5.0, 20.9, 33.0, 4.0, 33.0], [30.0, 8.0, 46.0, 20.0, 31.0, 38.0]

    def source(task: str, category: str, *outlines: Sequence[float]) -> dict[str, object]:
        where = {"bbox": [0, 0, 9, 9], "segmentation": outlines} if outlines else {}
        return {"task": task, "audio_visual_category": category, "instance_id": 1, **where}

    frames = {
        "a_00001/00003": [source("Single-Sound", "dog", left)],
        "a_00001/00015": [
            source("Mixed-Sound", "dog", left),
            source("Mixed-Sound", "drum", right, left),
        ],
        "b_00002/00004": [source("Multi-Entity", "drum", right)],
        "b_00002/00012": [source("Off-Screen", "dog")],
        "c_00003/00002": [source("Off-Screen", "cat")],
        "c_00003/00009": [source("Single-Sound", "cat", right), source("Off-Screen", "dog")],
    }
    for seed, (name, sources) in enumerate(frames.items()):
        picture(root / "metadata" / f"{name}.jpg", 70 + seed)
        said = {"original_width": 48, "original_height": 40, "annotations": sources}
        (root / "metadata" / f"{name}.json").write_text(json.dumps(said))
        clip(root / "video" / f"{name.split('/')[0]}.mp4", seed // 2)
    return root


def shards(folder: Path, kinds: Sequence[str]) -> Path:
    """Training shards, a clip for each kind named."""
    clips = []
    for index, kind in enumerate(kinds):
        frame, tone = folder.parent / "frame.jpg", folder.parent / "tone.wav"
        picture(frame, 80 + index)
        sound(tone, 200 + 100 * index)
        audio = io.BytesIO()
        soundfile.write(audio, soundfile.read(tone)[0], RATE_HZ, format="FLAC")
        clips.append(
            Clip(
                key=f"clip{index}", kind=kind, frames=(frame.read_bytes(),), audio=audio.getvalue()
            )
        )
    folder.mkdir()
    close_shards(folder, [write_shards(folder, clips)])
    return folder


def own(root: Path) -> Path:
    """Retrieval of speech, masks of a sound, and a box."""
    rows = []
    for index in range(3):
        picture(root / f"{index}.png", 60 + index)
        sound(root / f"{index}.wav", 250 + 100 * index)
        rows.append((f"{index}.png", f"{index}.wav", "speech", "", "", "", "", ""))
    white = np.zeros((40, 48), np.uint8)
    white[:, :24] = 255
    Image.fromarray(white).save(root / "mask.png")
    rows.append(("0.png", "1.wav", "sound", "bell", "mask.png", "", "0.1", "0.6"))
    rows.append(("1.png", "2.wav", "sound", "bell", "", "0 0 .5 1; .6 .6 .9 .9", "", ""))
    table(root / "items.csv", OWN, rows)
    return root
