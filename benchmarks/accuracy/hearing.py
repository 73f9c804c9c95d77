r"""What the length of the window, the look-ahead and the normalisation cost in accuracy.

Clips of the synthetic world, made of parts that no training has seen, follow each other in one
stream with pauses of room noise between them, as they would reach a microphone. At every token in
which something is heard, the slice of that token is asked where it is: right when its peak lies
on the thing. `--lookahead` tokens have been heard after it, as with `denseav-live --lookahead`.
In speech, only the tokens of the name itself count.

Windows are normalised each by itself (`window`) or by what was lately loud (`recent`), as live.
A bundle's window is what it was exported with (`denseav-export --window`); give one of each length.

    python -m benchmarks.accuracy.hearing --model w2 w4 w10

`--revisit` and `--context` stream the sound of `--weights` through PyTorch instead of windows, each
with each: so many tokens are recomputed beside the new one, and so many seconds are remembered.
Sound is scaled as it enters, by the deviation that its window would be normalised by.

    python -m benchmarks.accuracy.hearing --model export/demo --weights demo \
        --revisit 0 1 3 --context 2 10

`lit` is how much of the thing is above the threshold while it is heard, `dark` how much of the
picture is not in the pauses. Figures are means over clips, in percent, with their standard error.

Axes: S samples, K heads, H W pixels, h w the feature grid.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.support.common import finish, say
from denseav.export.runtime.bundle import (
    SAMPLE_RATE_HZ,
    TOKEN_HOP_SAMPLES,
    TOKEN_SPAN_SAMPLES,
    Bundle,
    open_bundle,
)
from denseav.export.runtime.open_session import open_session
from denseav.export.runtime.session import Features, Session, normalized
from denseav.models import DenseAV, load
from denseav.models.audio_stream import AudioStream
from denseav.models.streaming_mask import StreamConfig
from denseav.stream.audio.level_normalizer import LevelNormalizer
from denseav.stream.inference.audio_pass import loudness_dbfs
from denseav.train.eval.world.evaluator import HEADS, points
from denseav.train.eval.world.split import Case, Split
from denseav.train.metrics.segmentation import to_pixels
from denseav.train.world.clips import LEVEL_DB, AudioEvent, Head, room

CLIP_SAMPLES = 2 * SAMPLE_RATE_HZ
PAUSE_S = (0.5, 6.0)
PAUSE_TOKENS = 3  # of each pause that are looked at
WORD_MARGIN_S = 0.2  # after the name, in which it still counts
NORMALISATIONS = ("window", "recent")

Wave = NDArray[np.float32]
Means = dict[tuple[str, ...], list[float]]


@dataclass(frozen=True, eq=False)
class Turn:
    """A clip in the stream: which tokens count, and which of the pause before it do."""

    head: Head
    case: Case
    tokens: range
    pause_tokens: Sequence[int]


@dataclass(frozen=True, eq=False)
class Stream:
    """All that is heard, from its beginning."""

    wave_S: Wave
    turns: Sequence[Turn]

    @property
    def tokens(self) -> int:
        """How many tokens it has."""
        return (len(self.wave_S) - TOKEN_SPAN_SAMPLES) // TOKEN_HOP_SAMPLES + 1


def main() -> int:
    """Parse, measure each bundle, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, nargs="+", required=True, help="bundles")
    parser.add_argument("--clips", type=int, default=48, help="of each head; default: 48")
    parser.add_argument("--seed", type=int, default=1, help="of the world; default: 1")
    parser.add_argument("--lookahead", type=int, nargs="+", default=[0, 1, 2], metavar="TOKENS")
    parser.add_argument("--weights", default="demo", help="what is streamed; default: demo")
    parser.add_argument("--revisit", type=int, nargs="+", default=[], metavar="TOKENS")
    parser.add_argument("--context", type=float, nargs="+", default=[10.0], metavar="SECONDS")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda", "trt"))
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for folder in options.model:
        bundle = open_bundle(folder)
        session = open_session(bundle, options.device, options.threads)
        image = bundle.manifest.image
        stream = make_stream(options.seed, (image.height, image.width), options.clips)
        ways = NORMALISATIONS if bundle.manifest.audio.takes_normalized else NORMALISATIONS[:1]
        for way in ways:
            say(f"{folder}, {way}: {len(stream.turns)} clips, {stream.tokens} tokens")
            found = measure(Hearer(bundle, session, stream, way), options.lookahead)
            rows.append(_row(folder, bundle, way, found))
            _say_pointing(rows[-1])
        for config in _stream_configs(options.revisit, options.context):
            say(f"{options.weights} streamed, {config}")
            hearer = StreamHearer(
                bundle=bundle,
                session=session,
                stream=stream,
                network=load(options.weights),
                config=config,
            )
            ahead = [ahead for ahead in options.lookahead if ahead <= config.revisit]
            rows.append(
                _row(
                    folder=folder,
                    bundle=bundle,
                    way="recent",
                    found=measure(hearer, ahead),
                    config=config,
                )
            )
            _say_pointing(rows[-1])
    record = {
        "benchmark": "hearing",
        "seed": options.seed,
        "clips_of_each_head": options.clips,
        "lookahead": options.lookahead,
        "rows": rows,
    }
    return finish([_table(rows, options.lookahead)], record, [])


@lru_cache(maxsize=2)
def make_stream(seed: int, size: tuple[int, int], clips: int) -> Stream:
    """Return clips of the two heads in turn, each after a pause; the same for every window."""
    split = Split(seed=seed, size=size, samples=CLIP_SAMPLES)
    random = np.random.default_rng([seed, clips])
    waves: list[Wave] = []
    turns: list[Turn] = []
    begin = 0
    for number in range(clips):
        for head in HEADS:
            pause = round(SAMPLE_RATE_HZ * random.uniform(*PAUSE_S))
            gain = np.float32(10 ** (random.uniform(*LEVEL_DB) / 20))
            case = split.case(head, number)
            waves += [gain * room(random, pause), case.clip.wave_S]
            quiet = _inside(begin, begin + pause)[-PAUSE_TOKENS:]
            begin += pause
            turns.append(Turn(head, case, _counting(case.clip.events[0], begin), quiet))
            begin += CLIP_SAMPLES
    rest = np.zeros(SAMPLE_RATE_HZ, np.float32)  # for the look-ahead of the last
    return Stream(np.concatenate([*waves, rest]), turns)


def _counting(event: AudioEvent, begin: int) -> range:
    """Return the tokens that lie within a thing's sound, or overlap its name; at least one."""
    spans = [(w.start_s, w.stop_s + WORD_MARGIN_S) for w in event.words if event.name in w.text]
    start_s, stop_s = spans[0] if spans else (event.start_s, event.stop_s)
    start, stop = (begin + round(SAMPLE_RATE_HZ * at_s) for at_s in (start_s, stop_s))
    tokens = _inside(start, stop)
    middle = ((start + stop) // 2) // TOKEN_HOP_SAMPLES
    return tokens or range(middle, middle + 1)


def _inside(start: int, stop: int) -> range:
    """Return the tokens that hear samples of [start, stop) alone."""
    first = -(-start // TOKEN_HOP_SAMPLES)
    return range(first, max(first, (stop - TOKEN_SPAN_SAMPLES) // TOKEN_HOP_SAMPLES + 1))


class Hearer:
    """A bundle that hears a stream window by window, as live."""

    def __init__(self, bundle: Bundle, session: Session, stream: Stream, way: str) -> None:
        self.manifest = bundle.manifest
        self.session = session
        self.stream = stream
        self.floor_dbfs = self.manifest.audio.energy_floor_dbfs
        self._zeros_S = np.zeros(self.manifest.audio.window_samples, np.float32)
        self._padded_S = np.concatenate((self._zeros_S, stream.wave_S))
        self._least = [0.0] * stream.tokens
        if way == "recent":
            loudness = LevelNormalizer(self.floor_dbfs)
            self._least = [
                loudness.least_deviation(self._window(token), _end(token))
                for token in range(stream.tokens)
            ]
        self._pass = lru_cache(maxsize=8)(self._hear)

    def heat(self, image: Features, token: int, lookahead: int) -> NDArray[np.float32]:
        """Return the slice [K, h, w] of a token, so many tokens later."""
        newest = self.manifest.audio.tokens - 1
        return self.session.heatmap(image, self._pass(token + lookahead), newest - lookahead)

    def loud(self, token: int) -> bool:
        """Return whether any head may be active at a token."""
        wave_S = self.stream.wave_S[_end(token) - TOKEN_SPAN_SAMPLES : _end(token)]
        return loudness_dbfs(wave_S) > self.floor_dbfs

    def _hear(self, token: int) -> Features:
        return self.session.encode_audio(self._window(token), self._least[token])

    def _window(self, token: int) -> Wave:
        window_S: Wave = self._padded_S[_end(token) : _end(token) + len(self._zeros_S)]
        return window_S


class StreamHearer(Hearer):
    """The same sound, heard once: each token enters a stream, scaled as its window would be."""

    def __init__(
        self,
        bundle: Bundle,
        session: Session,
        stream: Stream,
        network: DenseAV,
        config: StreamConfig,
    ) -> None:
        super().__init__(bundle, session, stream, "recent")
        network.audio_encoder.fold_weight_norm()
        encode = AudioStream(network, config)
        state = encode.start()
        self._features_KCR: list[NDArray[np.float32]] = []
        torch.set_num_threads(1)
        with torch.inference_mode():
            for token in range(stream.tokens):
                features_KCR, state = encode(torch.from_numpy(self._scaled(token)), state)
                self._features_KCR.append(features_KCR.numpy())

    def heat(self, image: Features, token: int, lookahead: int) -> NDArray[np.float32]:
        """Return the slice [K, h, w] of a token, so many tokens later."""
        heard_KC = self._features_KCR[token + lookahead][:, :, -1 - lookahead]
        heat_Khw = np.einsum("kc,kchw->khw", heard_KC, self.session.dense(image))
        return np.asarray(heat_Khw, np.float32)

    def _scaled(self, token: int) -> Wave:
        return normalized(self._window(token), self._least[token])[-TOKEN_SPAN_SAMPLES:]


def _stream_configs(revisits: Sequence[int], contexts_s: Sequence[float]) -> list[StreamConfig]:
    token_s = TOKEN_HOP_SAMPLES / SAMPLE_RATE_HZ
    return [
        StreamConfig(context_tokens=round(context_s / token_s), revisit=revisit)
        for revisit in revisits
        for context_s in contexts_s
    ]


def _end(token: int) -> int:
    return TOKEN_SPAN_SAMPLES + TOKEN_HOP_SAMPLES * token


def measure(hearer: Hearer, lookaheads: Sequence[int]) -> Means:
    """Return each clip's figures, in [0, 1], by what they are of."""
    found: Means = defaultdict(list)
    for turn in hearer.stream.turns:
        image = hearer.session.encode_image(turn.case.picture_HW3)
        truth_HW = turn.case.truth(turn.case.clip.events[0].name)
        found["chance", turn.head].append(float(truth_HW.mean()))
        by_lookahead = [[*_heats(hearer, image, turn, ahead)] for ahead in lookaheads]
        for ahead, heats in zip(lookaheads, by_lookahead, strict=True):
            right = [points(torch.from_numpy(heat_hw), truth_HW) for heat_hw in heats]
            found["pointing", turn.head, str(ahead)].append(float(np.mean(right)))
        own = _own(hearer, turn.head)
        threshold = hearer.manifest.heads[own].threshold
        pixels = [_pixels(heat_hw[None], truth_HW.shape)[0] for heat_hw in by_lookahead[0]]
        lit = [(heat_HW[truth_HW] > threshold).mean() for heat_HW in pixels]
        found["lit", turn.head].append(float(np.mean(lit)))
        found["dark",].extend(_dark(hearer, image, turn, truth_HW.shape))
    return found


def _heats(
    hearer: Hearer, image: Features, turn: Turn, lookahead: int
) -> Iterator[NDArray[np.float32]]:
    for token in turn.tokens:
        yield hearer.heat(image, token, lookahead)[_own(hearer, turn.head)]


def _dark(hearer: Hearer, image: Features, turn: Turn, size: tuple[int, ...]) -> Iterator[float]:
    threshold_K11 = np.array([h.threshold for h in hearer.manifest.heads])[:, None, None]
    for token in turn.pause_tokens:
        shown_HW = np.zeros(size, bool)
        if hearer.loud(token):
            shown_HW = (_pixels(hearer.heat(image, token, 0), size) > threshold_K11).any(axis=0)
        yield 1 - float(shown_HW.mean())


def _own(hearer: Hearer, head: Head) -> int:
    names = [each.name for each in hearer.manifest.heads]
    if head not in names:
        raise SystemExit(f"this benchmark needs heads called sound and speech, and not {names}")
    return names.index(head)


def _pixels(heat_xhw: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    return np.asarray(to_pixels(torch.from_numpy(heat_xhw), (size[0], size[1])).numpy())


def _row(
    folder: Path, bundle: Bundle, way: str, found: Means, config: StreamConfig | None = None
) -> dict[str, Any]:
    figures = {
        " ".join(key): {
            "percent": round(100 * float(np.mean(values)), 2),
            "error": round(100 * float(np.std(values) / np.sqrt(len(values))), 2),
            "of": len(values),
        }
        for key, values in found.items()
        if values
    }
    return {
        "bundle": str(folder),
        "model": bundle.manifest.model,
        "sha256": bundle.sha256,
        "window_s": round(bundle.manifest.audio.window_samples / SAMPLE_RATE_HZ, 2),
        "normalised_by": way,
        "streamed": None if config is None else vars(config),
        "figures": figures,
    }


def _say_pointing(row: dict[str, Any]) -> None:
    figures = {key: each["percent"] for key, each in row["figures"].items()}
    say("  ".join(f"{key} {percent}" for key, percent in figures.items()))


def _table(rows: Sequence[dict[str, Any]], lookaheads: Sequence[int]) -> Table:
    chances = [f"{rows[0]['figures'][f'chance {head}']['percent']:.0f}" for head in HEADS]
    table = Table(
        title="pointing of one token's slice, by the tokens heard after it; percent; chance is "
        + " and ".join(chances),
        padding=(0, 0),
    )
    keys = [(f"{h} +{ahead}", f"pointing {h} {ahead}") for h in HEADS for ahead in lookaheads]
    keys += [("lit sound", "lit sound"), ("lit speech", "lit speech"), ("dark", "dark")]
    for column in ("window", "by", *(label for label, _ in keys)):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        figures = [row["figures"].get(key) for _, key in keys]
        cells = [f"{f['percent']:.0f} ±{f['error']:.0f}" if f else "-" for f in figures]
        streamed = row["streamed"]
        heard = f"{row['window_s']:.0f} s"
        if streamed is not None:
            heard = f"{streamed['context_tokens']} tokens +{streamed['revisit']}"
        table.add_row(heard, row["normalised_by"], *cells)
    return table


if __name__ == "__main__":
    raise SystemExit(main())
