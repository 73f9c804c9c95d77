"""Each head's threshold and ceiling, from images with audio that belongs to others.

A folder of pairs enters, `NAME.png` or `NAME.jpg` beside `NAME.wav` (16 kHz, one channel); the
scale of every head leaves, as the exported model itself shows it.

What is before the first `-` in NAME says what is heard: `silence`, `noise`, `offscreen_sound`,
`offscreen_speech`; another name counts as off screen. In pairs called `sound`, `speech`, `tune` or
`both` the picture does show what is heard: they set no threshold, and the ceiling.

Axes: K heads, P places of tokens that count, T tokens, S samples, H W pixels.

Errors
------
BundleError          the folder cannot be used as it is (exit code 4)
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from denseav.export.outside_files import ffmpeg_name
from denseav.export.runtime.bundle import (
    SAMPLE_RATE_HZ,
    TOKEN_HOP_SAMPLES,
    TOKEN_SPAN_SAMPLES,
    BundleError,
    Head,
    Manifest,
    file_sha256,
)
from denseav.export.runtime.session import Session

SHARES = {"silence": 0.01, "noise": 0.03, "offscreen_sound": 0.1, "offscreen_speech": 0.1}
"""How much of the picture may light up, by all heads together, though nothing in it sounds."""
OTHER_SHARE = 0.1
SEEN = ("sound", "speech", "tune", "both")
PEAK_QUANTILE = 0.85
"""Of what a thing lights up with: a phrase names it in few of its tokens."""
QUIETER_DB = 20.0
"""A token so much quieter than its window's loudest is room noise, and says nothing of the rest."""

_PICTURES = (".png", ".jpg", ".jpeg")
_PLACES_MAX = 8192  # of one window that are kept, drawn evenly: a folder may be large


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A picture, its sound, and what the sound is."""

    kind: str
    picture: Path
    sound: Path

    @property
    def seen(self) -> bool:
        """Whether the picture shows what is heard."""
        return self.kind in SEEN


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """Similarities of the places that count [K, P], and the maximum of each token [K, T]."""

    heat_KP: NDArray[np.float32]
    peak_KT: NDArray[np.float32]


def find_pairs(folder: Path) -> tuple[Pair, ...]:
    """List a folder's pairs and see that a scale can be set by them.

    Raises
    ------
    BundleError
        As `list_pairs`, and when there is nothing negative in it.
    """
    pairs = list_pairs(folder, "--calibration")
    if all(pair.seen for pair in pairs):
        raise BundleError(
            f"{folder} holds no picture with sound that does not belong to it (NAME.png beside "
            "NAME.wav); add silence, noise and sounds from off screen"
        )
    return pairs


def list_pairs(folder: Path, option: str) -> tuple[Pair, ...]:
    """List a folder's pairs and see that their sound can be used.

    Raises
    ------
    BundleError
        When there is no folder, a picture lacks its sound or a sound its picture, or a sound is
        not 16 kHz mono.
    """
    if not folder.is_dir():
        raise BundleError(f"{option} {folder} is not a folder; make one of picture and sound")
    files = sorted(path for path in folder.iterdir() if path.is_file())
    pictures = {path.stem: path for path in files if path.suffix.lower() in _PICTURES}
    sounds = {path.stem: path for path in files if path.suffix.lower() == ".wav"}
    for name in sorted(pictures.keys() ^ sounds.keys()):
        lacks = "sound NAME.wav" if name in pictures else "picture NAME.png or NAME.jpg"
        raise BundleError(f"{folder}: {name} has no {lacks}; add it, or remove {name}")
    pairs = tuple(
        Pair(kind=name.partition("-")[0], picture=picture, sound=sounds[name])
        for name, picture in pictures.items()
    )
    for pair in pairs:
        with _opened(pair.sound):
            pass
    return pairs


def provenance(pairs: Sequence[Pair], probed: Sequence[Head]) -> dict[str, Any]:
    """Return what the manifest says of a calibration.

    Parameters
    ----------
    pairs : what it was done with; hashed by content and name.
    probed : the scale that would be without it, by which a model is known again.
    """
    files = sorted(file for pair in pairs for file in (pair.picture, pair.sound))
    lines = "".join(f"{file.name}:{file_sha256(file)}\n" for file in files)
    return {
        "negatives": sum(not pair.seen for pair in pairs),
        "positives": sum(pair.seen for pair in pairs),
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
        "rule": "of the places of tokens above the energy floor and at most "
        f"{QUIETER_DB:g} dB below their window's loudest, the share above the thresholds of all "
        f"heads together is at most: {_words(SHARES | {'other': OTHER_SHARE})}",
        "probed": [{"threshold": head.threshold, "ceiling": head.ceiling} for head in probed],
    }


def calibrate_on(session: Session, manifest: Manifest, pairs: Sequence[Pair]) -> tuple[Head, ...]:
    """Set each head's scale from what an exported model makes of pairs.

    Of every kind of negative, all places of all tokens that count are taken together; a head may
    be above its threshold in its part of the kind's share (`SHARES`, by the number of heads), so
    that all heads together keep it. The strictest kind decides. A token counts when it is louder
    than the energy floor, below which nothing is shown, and at most 20 dB quieter than the
    loudest of its window.

    The ceiling is the 85th percentile of the tokens' maxima where the picture shows what is heard
    (the negatives' own, where there are no such pairs), and at least one standard deviation of
    the negatives' heat above the threshold (the least there is, of heat that never varies).

    Raises
    ------
    BundleError
        When a file cannot be decoded, or no negative is louder than the energy floor.
    """
    by_kind: dict[str, list[Look]] = {}
    for pair in pairs:
        by_kind.setdefault(pair.kind, []).extend(looks_of(session, manifest, pair))
    negatives = {
        kind: np.concatenate([look.heat_KP for look in looks], axis=1)
        for kind, looks in by_kind.items()
        if kind not in SEEN and looks
    }
    if not negatives:
        floor_dbfs = manifest.audio.energy_floor_dbfs
        raise BundleError(
            f"--calibration: all its sounds are quieter than {floor_dbfs:g} dBFS, at which no "
            "head is active anyway; add noise and sounds from off screen"
        )
    parts = {kind: SHARES.get(kind, OTHER_SHARE) / len(manifest.heads) for kind in negatives}
    threshold_K = np.max(
        [np.quantile(heat_KP, 1 - parts[kind], axis=1) for kind, heat_KP in negatives.items()],
        axis=0,
    )
    told = [kind for kind, looks in by_kind.items() if kind in SEEN and looks] or [*negatives]
    peak_KT = np.concatenate([look.peak_KT for kind in told for look in by_kind[kind]], axis=1)
    spread_K = np.concatenate([*negatives.values()], axis=1).std(axis=1)
    spread_K = np.maximum(spread_K, np.spacing(np.abs(threshold_K)))
    ceiling_K = np.maximum(np.quantile(peak_KT, PEAK_QUANTILE, axis=1), threshold_K + spread_K)
    return tuple(
        Head(name=head.name, threshold=float(threshold), ceiling=float(ceiling))
        for head, threshold, ceiling in zip(manifest.heads, threshold_K, ceiling_K, strict=True)
    )


def looks_of(session: Session, manifest: Manifest, pair: Pair) -> Iterator[Look]:
    """Run a pair, and yield what is made of each window in which something counts.

    Raises
    ------
    BundleError
        When a file cannot be decoded.
    """
    seen, random = session.encode_image(_picture(pair.picture, manifest)), np.random.default_rng(0)
    for wave_S in _windows(_sound(pair.sound), manifest.audio.window_samples):
        tokens = _counting(wave_S, manifest)
        if not len(tokens):
            continue
        heard = session.encode_audio(wave_S)
        heat_KTP = np.stack(
            [session.heatmap(seen, heard, int(t)).reshape(len(manifest.heads), -1) for t in tokens],
            axis=1,
        )
        heat_KP = heat_KTP.reshape(len(manifest.heads), -1)
        if heat_KP.shape[1] > _PLACES_MAX:
            heat_KP = random.choice(heat_KP, _PLACES_MAX, replace=False, axis=1, shuffle=False)
        yield Look(heat_KP=heat_KP, peak_KT=heat_KTP.max(axis=2))


def _counting(wave_S: NDArray[np.float32], manifest: Manifest) -> NDArray[np.intp]:
    """Return the tokens of a window that are loud enough to say something."""
    starts = range(0, manifest.audio.tokens * TOKEN_HOP_SAMPLES, TOKEN_HOP_SAMPLES)
    power_T = [
        np.square(wave_S[start : start + TOKEN_SPAN_SAMPLES], dtype=np.float64).mean()
        for start in starts
    ]
    level_db_T = 10 * np.log10(np.maximum(power_T, 1e-12))
    quietest_db = max(manifest.audio.energy_floor_dbfs, level_db_T.max() - QUIETER_DB)
    return np.flatnonzero(level_db_T > quietest_db)


def _windows(wave_S: NDArray[np.float32], samples: int) -> Iterator[NDArray[np.float32]]:
    """Cut a sound into windows; zeros before its beginning, as a stream has them."""
    count = max(1, round(len(wave_S) / samples))
    wave_S = wave_S[-count * samples :]
    padded_S = np.pad(wave_S, (count * samples - len(wave_S), 0))
    yield from padded_S.reshape(count, samples)


def _picture(path: Path, manifest: Manifest) -> NDArray[np.uint8]:
    image_HW3 = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image_HW3 is None:
        raise BundleError(f"{path} cannot be decoded; write it again, or remove it and its sound")
    size = manifest.image
    smaller = image_HW3.shape[0] > size.height
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    resized = cv2.resize(image_HW3, (size.width, size.height), interpolation=how)
    return np.ascontiguousarray(resized[..., ::-1], dtype=np.uint8)


def _sound(path: Path) -> NDArray[np.float32]:
    """Decode all of a file, float32 in [-1, 1]."""
    convert = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
    with _opened(path) as container:
        try:
            frames = [*container.decode(audio=0), None]
            parts = [part for frame in frames for part in convert.resample(frame)]
        except av.FFmpegError as error:
            raise _undecodable(path, error) from None
    empty = [np.zeros(0, np.float32)]
    wave_S: NDArray[np.float32] = np.concatenate([*empty, *(p.to_ndarray()[0] for p in parts)])
    return wave_S


def _opened(path: Path) -> Any:
    """Open a sound that is 16 kHz mono; the caller closes it."""
    try:
        container = av.open(ffmpeg_name(path))
    except (av.FFmpegError, OSError) as error:
        raise _undecodable(path, error) from None
    streams = container.streams.audio
    form = (streams[0].rate, streams[0].channels) if streams else (0, 0)
    if form != (SAMPLE_RATE_HZ, 1):
        container.close()
        raise BundleError(
            f"{path} has {form[1]} channels at {form[0]} Hz; convert it to one at "
            f"{SAMPLE_RATE_HZ} Hz, as in: ffmpeg -i IN -ac 1 -ar {SAMPLE_RATE_HZ} OUT.wav"
        )
    return container


def _undecodable(path: Path, error: Exception) -> BundleError:
    return BundleError(
        f"{path} cannot be decoded ({error}); write it again, or remove it and its picture"
    )


def _words(shares: dict[str, float]) -> str:
    return ", ".join(f"{kind} {100 * share:g} %" for kind, share in shares.items())
