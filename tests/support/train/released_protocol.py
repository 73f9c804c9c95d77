"""The papers' evaluation, calculated once more and plainly: the oracle of `denseav-eval`.

Every figure comes straight from files, in NumPy with PyTorch for the network alone; nothing of
`denseav.train` is used. K heads, T tokens, N items, H W pixels, h w the feature grid.
"""

import csv
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from denseav.models import DenseAV

Array = NDArray[np.float64]
Bits = NDArray[np.bool_]

SAMPLES, RATE_HZ = 164_200, 16_000
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def wave(path: Path) -> Array:
    """Return the first channel at 16 kHz."""
    with av.open(str(path)) as file:
        rate_hz = file.streams.audio[0].rate
        planar = av.AudioResampler(format="fltp")
        blocks = [b.to_ndarray()[0] for f in file.decode(audio=0) for b in planar.resample(f)]
    samples = torch.from_numpy(np.concatenate(blocks))
    return np.float64(torchaudio.functional.resample(samples, rate_hz, RATE_HZ).numpy())


def window(wave_S: Array) -> tuple[Array, Bits]:
    """Return 10.2625 s, and where they are audible."""
    padded_S, audible_S = np.zeros(SAMPLES), np.zeros(SAMPLES, bool)
    padded_S[: len(wave_S)] = wave_S[:SAMPLES]
    audible_S[: len(wave_S)] = True
    return padded_S, audible_S


def audio_features(model: DenseAV, padded_S: Array) -> Array:
    """Return features [K, C, T] of a window of mean 0 and variance 1."""
    unit_S = (padded_S - padded_S.mean()) / np.sqrt(padded_S.var() + 1e-7)
    with torch.no_grad():
        return np.float64(model.encode_audio(torch.from_numpy(unit_S).float()[None])[0].numpy())


def image_features(model: DenseAV, picture: Image.Image) -> Array:
    """Return features [K, C, h, w] of a picture of the network's size."""
    unit_HW3 = (np.asarray(picture.convert("RGB")) / 255 - MEAN) / DEVIATION
    image_13HW = torch.from_numpy(unit_HW3).float().movedim(-1, 0)[None]
    with torch.no_grad():
        return np.float64(model.encode_image(image_13HW)[0].numpy())


def cropped(picture: Image.Image, side: int, how: Image.Resampling) -> Image.Image:
    """Scale the short side, then cut out the middle."""
    width, height = picture.size
    short = min(width, height)
    width, height = int(side * width / short), int(side * height / short)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return picture.resize((width, height), how).crop((left, top, left + side, top + side))


def token_mask(audible_S: Bits, tokens: int) -> Bits:
    """Return the audible tokens: linear between samples, tokens evenly over the window."""
    at = (np.arange(tokens) + 0.5) * len(audible_S) / tokens - 0.5
    return np.interp(at, np.arange(len(audible_S)), audible_S.astype(float)) > 0.01


def volume(image_KChw: Array, audio_KCT: Array) -> Array:
    """Return the inner products [K, T, h, w]."""
    return np.einsum("kchw,kct->kthw", image_KChw, audio_KCT)


def heads_similarity(volume_KThw: Array, mask_T: Bits) -> Array:
    """Return each head's similarity [K]: the mean over audible tokens of the maximum in space."""
    return volume_KThw.max(axis=(2, 3))[:, mask_T].mean(axis=1)


def average_precision(score: Array, truth: Bits) -> float:
    """Return the sum over thresholds of precision times the step in recall, ties at once."""
    order = np.argsort(-score, kind="stable")
    score, truth = score[order], truth[order]
    last = np.append(np.diff(score) != 0, True)
    hits = np.cumsum(truth)[last]
    found = np.arange(1, len(score) + 1)[last]
    recall = hits / truth.sum()
    return float(np.sum(np.diff(recall, prepend=0) * hits / found))


def enlarged(heat_hw: Array, side: int) -> Array:
    """Return a heatmap in pixels, bilinear between cell centres; ties are PyTorch's own."""
    heat_11hw = torch.from_numpy(heat_hw).float()[None, None]
    return np.float64(functional.interpolate(heat_11hw, (side, side), mode="bilinear")[0, 0])


def segmentation(
    heats_hw: Sequence[Array], truths: Sequence[Bits], classes: Sequence[str]
) -> Array:
    """Return mAP and mIoU in percent: heat scaled over the whole set, pixels of a class at once."""
    low, high = np.min(heats_hw), np.max(heats_hw)
    side = len(truths[0])
    maps = [enlarged((heat_hw - low) / (high - low), side) for heat_hw in heats_hw]
    scores = []
    for name in sorted(set(classes)):
        mine = [index for index, label in enumerate(classes) if label == name]
        heat = np.concatenate([maps[index].ravel() for index in mine])
        truth = np.concatenate([truths[index].ravel() for index in mine])
        overlaps = []
        for threshold in torch.linspace(heat.min(), heat.max(), 20).double().numpy():
            found = heat > threshold
            overlaps.append((found & truth).sum() / max((found | truth).sum(), 1))
        scores.append((average_precision(heat, truth), max(overlaps)))
    return 100 * np.mean(scores, axis=0)


def prompted(model: DenseAV, root: Path, kind: str) -> dict[str, Array]:
    """Return mAP and mIoU of a prompted part of ADE20K, by all heads and by each."""
    side, heats, truths, classes = model.config.image.size, [], [], []
    with (root / "prompted_segmentation.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if float(row["ade_class_id"])]
    for row in rows:
        number, where = int(float(row["ade_class_id"])), Path(row["image_location"])
        name = Path(row["speech_prompt_file" if kind == "speech" else "vggsound_file"]).name
        padded_S, audible_S = window(wave(root / "audio" / name))
        picture = Image.open(root / "frames" / where).convert("RGB")
        image = image_features(model, cropped(picture, side, Image.Resampling.BILINEAR))
        found_KThw = volume(image, audio_features(model, padded_S))
        tokens = found_KThw.shape[1]
        mask_T = token_mask(audible_S, tokens)
        found_KThw = found_KThw * mask_T[:, None, None]
        if kind == "speech":
            start_s, end_s = json.loads(row["timing"])
            first = int(np.floor(tokens * (start_s - 0.2) / (SAMPLES / RATE_HZ)))
            stop = int(np.ceil(tokens * (end_s + 0.2) / (SAMPLES / RATE_HZ)))
            mask_T = (np.arange(tokens) >= first) & (np.arange(tokens) < stop)
        maps = [found_KThw.max(axis=0), *found_KThw]
        heats.append([map_Thw[mask_T].mean(axis=0) for map_Thw in maps])
        label = Image.open(root / "annotations" / where.with_name(f"{where.stem}_seg.png"))
        red_green = np.asarray(cropped(label, side, Image.Resampling.NEAREST), int)
        truths.append(red_green[..., 0] // 10 * 256 + red_green[..., 1] == number)
        classes.append(str(number))
    names = ("total", *model.config.heads)
    columns = zip(names, zip(*heats, strict=True), strict=True)
    return {name: segmentation(heats_hw, truths, classes) for name, heats_hw in columns}


def similarities(model: DenseAV, pairs: Sequence[tuple[Path, Path]]) -> Array:
    """Return each head's similarity [A, V, K] of every audio with every picture."""
    side, images, audios, masks = model.config.image.size, [], [], []
    for image, audio in pairs:
        picture = Image.open(image).convert("RGB")
        images.append(image_features(model, cropped(picture, side, Image.Resampling.BILINEAR)))
        padded_S, audible_S = window(wave(audio))
        audios.append(audio_features(model, padded_S))
        masks.append(token_mask(audible_S, audios[-1].shape[-1]))
    return np.array(
        [
            [heads_similarity(volume(image, audio), mask_T) for image in images]
            for audio, mask_T in zip(audios, masks, strict=True)
        ]
    )


def recalls(sims_AVK: Array, k: int) -> tuple[float, float]:
    """Return in percent how often the own audio, and the own picture, is among the first k."""
    total_AV = sims_AVK.sum(axis=-1)
    own = np.arange(len(total_AV))
    image_to_audio = (np.argsort(-total_AV, axis=0)[:k] == own).any(axis=0)
    audio_to_image = (np.argsort(-total_AV, axis=1)[:, :k] == own[:, None]).any(axis=1)
    return 100 * float(image_to_audio.mean()), 100 * float(audio_to_image.mean())


def disentanglement(speech_NK: Array, sound_NK: Array) -> tuple[float, float]:
    """Return PredDis and ActDis in percent of two heads."""
    both = np.concatenate([speech_NK, sound_NK])
    both = (both - both.min(axis=0)) / np.maximum(np.ptp(both, axis=0), 1e-4)
    is_speech = np.arange(len(both)) < len(speech_NK)
    ap = [
        [average_precision(both[:, k], is_speech == kind) for kind in (True, False)] for k in (0, 1)
    ]
    quiet = [[1 - both[is_speech == kind, k].mean() for kind in (True, False)] for k in (0, 1)]
    return tuple(50 * max(t[0][0] + t[1][1], t[0][1] + t[1][0]) for t in (ap, quiet))  # type: ignore[return-value]


def vggss(model: DenseAV, root: Path) -> dict[str, tuple[float, float]]:
    """Return cIoU and AUC in percent of VGG-SS, by all heads and by each."""
    side, found = model.config.image.size, []
    for entry in json.loads((root / "vggss.json").read_text()):
        frame = root / "frames" / entry["file"] / "image_050.jpg"
        if not frame.exists():
            frame = root / "frames" / f"{entry['file']}.jpg"
        stretched = Image.open(frame).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
        padded_S, audible_S = window(wave(root / "audio" / f"{entry['file']}.wav"))
        audio = audio_features(model, padded_S)
        volume_KThw = volume(image_features(model, stretched), audio)
        mask_T = token_mask(audible_S, audio.shape[-1])
        truth = np.zeros((side, side), bool)
        for left, top, right, bottom in np.array(entry["bbox"]) * side:
            truth[int(top + 1e-9) : int(bottom + 1e-9), int(left + 1e-9) : int(right + 1e-9)] = True
        scores = []
        for map_Thw in (volume_KThw.max(axis=0), *volume_KThw):
            heat = cv2.resize(map_Thw[mask_T].mean(axis=0), (side, side))
            above = heat > np.sort(heat, axis=None)[heat.size // 2]
            scores.append((above & truth).sum() / (truth.sum() + (above & ~truth).sum()))
        found.append(scores)
    steps = np.arange(21) / 20
    table = {}
    for name, ciou_N in zip(("total", *model.config.heads), np.transpose(found), strict=True):
        shares = [(ciou_N >= step).mean() for step in steps]
        area = sum((a + b) / 40 for a, b in itertools.pairwise(shares))
        table[name] = (100 * float((ciou_N >= 0.5).mean()), 100 * float(area))
    return table


def avatar(model: DenseAV, root: Path, scenario: str) -> dict[str, dict[str, float]]:
    """Return the figures of one scenario of AVATAR: moments of ten frames a second."""
    side, heats, truths, dark = model.config.image.size, [], [], []
    for path in sorted((root / "metadata").rglob("*.json")):
        sources = json.loads(path.read_text())["annotations"]
        seen = [source for source in sources if source["task"] != "Off-Screen"]
        if seen and scenario not in {source["task"] for source in seen}:
            continue
        frame = Image.open(path.with_suffix(".jpg")).convert("RGB")
        padded_S, audible_S = window(wave(root / "video" / f"{path.parent.name}.mp4"))
        stretched = frame.resize((side, side), Image.Resampling.BILINEAR)
        found_KThw = volume(image_features(model, stretched), audio_features(model, padded_S))
        tokens, moment_s = found_KThw.shape[1], int(path.stem) / 10
        first, stop = ((moment_s + far_s) * tokens * RATE_HZ / SAMPLES for far_s in (-0.2, 0.2))
        mask_T = (np.arange(tokens) >= np.floor(first)) & (np.arange(tokens) < np.ceil(stop))
        found_KThw = found_KThw * token_mask(audible_S, tokens)[:, None, None]
        maps = (found_KThw.max(axis=0), *found_KThw)
        maps_hw = [enlarged(map_Thw[mask_T].mean(axis=0), side) for map_Thw in maps]
        if not seen:
            dark.append(maps_hw)
            continue
        heats.append(maps_hw)
        filled = np.zeros((frame.height, frame.width), np.uint8)
        for outline in (part for source in seen for part in source["segmentation"]):
            cv2.fillPoly(filled, [np.array(outline, int).reshape(-1, 2)], 255)
        small = Image.fromarray(filled).resize((side, side), Image.Resampling.NEAREST)
        truths.append(np.asarray(small) > 0)
    table = {}
    for index, name in enumerate(("total", *model.config.heads)):
        positive = [maps_hw[index] for maps_hw in heats]
        threshold = float(np.quantile([np.max(maps_hw[index]) for maps_hw in dark], 0.75))
        median = [heat > np.sort(heat, axis=None)[heat.size // 2] for heat in positive]
        above = [heat > threshold for heat in positive]
        areas = np.array([(maps_hw[index] > threshold).mean() for maps_hw in dark])
        area = sum(
            ((areas <= low).mean() + (areas <= high).mean()) / 40
            for low, high in itertools.pairwise(np.arange(21) / 20)
        )
        cious, cious_U = (
            [(f & t).sum() / (t.sum() + (f & ~t).sum()) for f, t in zip(cut, truths, strict=True)]
            for cut in (median, above)
        )
        table[name] = {
            "cIoU median": 100 * float(np.mean(np.array(cious) >= 0.5)),
            "cIoU_U": 100 * float(np.mean(cious_U)),
            "pIA off screen": 100 * float(areas.mean()),
            "AOC off screen": 100 * float(area),
            "threshold U": threshold,
        }
    return table


def extended_is3(model: DenseAV, root: Path, kind: str) -> dict[str, Array]:
    """Return mAP and mIoU of one half of Extended IS3, both halves heard equally loud."""
    side, heats, truths, classes = model.config.image.size, [], [], []
    entries = json.loads((root / "synthetic3240_seg.json").read_text())
    names = [Path(entry["audio"]).stem for entry in entries]

    def said(name: str, what: str) -> Path:
        if what == "sound":
            return root / "audio_wav" / f"{name}.wav"
        own = root / "speech" / f"{name}.wav"
        return own if own.exists() else root / "speech" / f"{name.rsplit('_', 1)[1]}.wav"

    for name in names:
        scene, category = name.rsplit("_", 1)
        other = next(n for n in names if n.rsplit("_", 1)[0] == scene and n != name)
        kinds = ("speech", "sound") if kind == "speech" else ("sound", "speech")
        own_S, other_S = wave(said(name, kinds[0])), wave(said(other, kinds[1]))
        (one_S, audible_S), (two_S, too_S) = window(own_S), window(other_S)
        loud, other_loud = (np.sqrt(np.mean(w[:SAMPLES] ** 2)) for w in (own_S, other_S))
        audio = audio_features(model, one_S + two_S * loud / other_loud)
        picture = Image.open(root / "visual_frames" / f"{name}.jpg").convert("RGB")
        stretched = picture.resize((side, side), Image.Resampling.BILINEAR)
        volume_KThw = volume(image_features(model, stretched), audio)
        mask_T = token_mask(audible_S | too_S, audio.shape[-1])
        maps = (volume_KThw.max(axis=0), *volume_KThw)
        heats.append([map_Thw[mask_T].mean(axis=0) for map_Thw in maps])
        white = np.asarray(Image.open(root / "gt_masks" / f"{name}.jpg").convert("L")) >= 128
        small = Image.fromarray(white).resize((side, side), Image.Resampling.NEAREST)
        truths.append(np.asarray(small))
        classes.append(category)
    columns = zip(("total", *model.config.heads), zip(*heats, strict=True), strict=True)
    return {name: segmentation(heats_hw, truths, classes) for name, heats_hw in columns}
