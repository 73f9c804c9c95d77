"""Throws damaged messages at the decoders, looking for anything but the documented exception.

    python -m benchmarks.fuzz.feed [--seconds N] [--messages N] [--seed N]

Good messages are changed: bits flipped, bytes cut out or doubled, lengths and fields replaced by
extremes, headers swapped for hostile JSON. One process for each core. Prints a table, and on the
last line the figures as JSON; exits 1 when something else than FeedFormatError was raised, or a
decode took more memory than its message accounts for.
"""

import argparse
import json
import multiprocessing
import os
import random
import resource
import sys
import time
import tracemalloc
from typing import Any

import numpy as np

from denseav.export.runtime.bundle import Head
from denseav.stream.feed.client import PREFIX, FeedFormatError, decode, decode_status
from denseav.stream.feed.message import Envelope, Origin, heat_fields
from denseav.stream.types import Frame, Heatmap

_NUMBERS = (0, 1, 2, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
_VALUES = (None, True, [], {}, "", "x" * 200, "\x1b[2J", -1, 0, 1e308, 10**400, [[]] * 9, "\ud800")
_TEXTS = (
    b"[" * 8000,
    b'{"a":' * 1300,
    b"1" * 8000,
    b"\xff" * 64,
    b"{}",
    b"null",
    b'{"camera":NaN}',
)
_PEAK_BYTES_MAX = 1 << 20  # what decoding a message of at most some kB may take


def seeds() -> list[bytes]:
    """Return good messages of all kinds."""
    heads = tuple(Head(name=name, threshold=0.5, ceiling=1.0) for name in ("speech", "sound"))
    origin = Origin(camera_id="fuzz", heads=heads, model="0" * 64, backend="cpu", precision="fp32")
    frame = Frame(np.zeros((48, 64, 3), np.uint8), 0, 1.0)
    found = []
    for shape in ((2, 4, 6), (2, 28, 28)):
        heat_KHW = np.random.default_rng(0).random(shape, np.float32)
        heatmap = Heatmap(
            frame=frame,
            heat_KHW=heat_KHW,
            valid_K=(True, False),
            audio_start_s=0.5,
            audio_end_s=0.9,
            rms_dbfs=-20.0,
            ready_s=1.1,
        )
        fields, maps_KHW = heat_fields(origin, heatmap, {"model_busy": 1})
        found.append(Envelope("heat", "fuzz", bytes(16)).seal(fields, maps_KHW, b"\xff\xd8\xff"))
    status = {"state": "live", "health": "fair", "replay": False, "drops": {}}
    return [*found, Envelope("status", "fuzz", bytes(16)).seal(status, None)]


def flip(rng: random.Random, data: bytearray) -> bytes:
    """Flip some bits."""
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def splice(rng: random.Random, data: bytearray) -> bytes:
    """Cut a part out, off or free, or add it again."""
    first, second = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    part = bytes(data[first:second])
    return rng.choice(
        (bytes(data[:first]), bytes(data[:first] + data[second:]), bytes(data) + part, part)
    )


def resize(rng: random.Random, data: bytearray) -> bytes:
    """Put an extreme number where a length, a shape or a version is."""
    offset, size = rng.choice(
        ((36, 1), (37, 1), (38, 2), (40, 4), (44, 4), (48, 4), (52, 2), (54, 2), (56, 2))
    )
    data[offset : offset + size] = (rng.choice(_NUMBERS) % 256**size).to_bytes(size, "little")
    return bytes(data)


def reheader(rng: random.Random, data: bytearray) -> bytes:
    """Replace a field somewhere in the header, or all of it, with lengths put right."""
    fields = list(PREFIX.unpack_from(data))
    header = json.loads(data[fields[4] : fields[4] + fields[5]])
    body = bytes(data[fields[4] + fields[5] :])
    target = header
    while rng.random() < 0.6:
        inner = [value for value in target.values() if isinstance(value, dict)]
        inner += [
            each
            for value in target.values()
            if isinstance(value, list)
            for each in value
            if isinstance(each, dict)
        ]
        if not inner:
            break
        target = rng.choice(inner)
    if target:
        target[rng.choice(list(target))] = rng.choice(_VALUES)
    text = json.dumps(header).encode() if rng.random() < 0.9 else rng.choice(_TEXTS)
    fields[5] = len(text)
    return PREFIX.pack(*fields) + text + body


def noise(rng: random.Random, _data: bytearray) -> bytes:
    """Make bytes of no meaning."""
    return rng.randbytes(rng.randrange(400))


def decoded(data: bytes) -> bool:
    """Return whether the message was accepted by one of the decoders."""
    accepted = False
    for read in (decode, decode_status):
        try:
            read(data)
            accepted = True
        except FeedFormatError:
            pass
    return accepted


def work(job: tuple[int, float, int]) -> dict[str, Any]:
    """Fuzz until the time or the number is up; every thousandth message with its memory traced."""
    seed, seconds, limit = job
    rng, good = random.Random(seed), seeds()
    ways = (flip, splice, resize, reheader, noise)
    weights = (5, 2, 2, 3, 1)
    count = accepted = peak_bytes = 0
    end_s = time.monotonic() + seconds
    while count < limit and (count % 64 or time.monotonic() < end_s):
        way = rng.choices(ways, weights)[0]
        data = way(rng, bytearray(rng.choice(good)))
        try:
            if count % 1000:
                accepted += decoded(data)
            else:
                tracemalloc.start()
                accepted += decoded(data)
                peak_bytes = max(peak_bytes, tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()
        except Exception as error:  # noqa: BLE001
            return {"count": count, "failed": f"{error!r} by {way.__name__}: {data.hex()[:4000]}"}
        count += 1
    rss_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"count": count, "accepted": accepted, "peak_bytes": peak_bytes, "rss_mib": rss_mib}


def main() -> int:
    """Fuzz on every core and report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--messages", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cores = os.cpu_count() or 1
    begin_s = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        share = options.messages // cores
        found = pool.map(work, [(options.seed + i, options.seconds, share) for i in range(cores)])
    failures = [each["failed"] for each in found if "failed" in each]
    report = {
        "messages": sum(each["count"] for each in found),
        "accepted": sum(each.get("accepted", 0) for each in found),
        "seconds": round(time.monotonic() - begin_s, 1),
        "peak_bytes_of_one_decode": max(each.get("peak_bytes", 0) for each in found),
        "rss_mib": max(each.get("rss_mib", 0) for each in found),
        "other_exceptions": failures,
    }
    for name, value in report.items():
        print(f"{name:26}{value}")
    print(json.dumps(report))
    return 1 if failures or report["peak_bytes_of_one_decode"] > _PEAK_BYTES_MAX else 0


if __name__ == "__main__":
    sys.exit(main())
