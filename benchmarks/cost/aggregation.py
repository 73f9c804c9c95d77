"""What chunked aggregation costs beside the plain one: time and memory, forward and backward.

Two heads, a grid of 28x28, 56 tokens, 192 channels of a head: DenseAV's. Each way runs in a
process of its own, so that its peak is its own. On a GPU the peak is that of its allocator, on a
processor what the process held at most beyond the features. The last line is JSON.

    python -m benchmarks.cost.aggregation [--batch 64 256] [--device cuda] [--threads 1]
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time

HEADS, CHANNELS, SIDE, TOKENS = 2, 192, 28, 56
PLAIN_LIMIT_BYTES = 12 * 2**30
"""A plain volume above this is not tried: it needs about six times as much."""


def volume_bytes(batch: int) -> int:
    """Return the size of the plain volume of all pairs, float32."""
    return 4 * batch * batch * HEADS * SIDE * SIDE * TOKENS


def main() -> None:
    """Measure each way in its own process, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", choices=("plain", "chunked", "fused"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.batch[0], options.device, options.threads)))
        return
    results = []
    print(f"{'batch':>6} {'way':>8} {'forward s':>10} {'backward s':>11} {'peak MB':>9}")
    for batch in options.batch:
        ways = ["chunked", "fused"] if options.device == "cuda" else ["chunked"]
        if volume_bytes(batch) * 6 < PLAIN_LIMIT_BYTES:
            ways.append("plain")
        for way in ways:
            result = in_own_process(way, batch, options)
            results.append(result)
            print(
                f"{batch:>6} {way:>8} {result['forward_s']:>10.2f} {result['backward_s']:>11.2f} "
                f"{result['peak_mb']:>9.0f}"
            )
    print(json.dumps({"machine": machine(options), "results": results}))


def in_own_process(way: str, batch: int, options: argparse.Namespace) -> dict[str, float]:
    """Run one measurement in a new process."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.cost.aggregation",
        "--one",
        way,
        "--batch",
        str(batch),
    ]
    command += ["--device", options.device, "--threads", str(options.threads)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return result


def measure(way: str, batch: int, device: str, threads: int) -> dict[str, float | str]:
    """Aggregate once, there and back."""
    import torch

    from denseav.models.config import Aggregation
    from denseav.models.similarity import aggregate, all_volumes
    from denseav.train.loss.chunked_similarity import dense_similarity, use_fused

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    image = torch.randn(batch, HEADS, CHANNELS, SIDE, SIDE, device=device, requires_grad=True)
    audio = torch.randn(batch, HEADS, CHANNELS, TOKENS, device=device, requires_grad=True)
    mask = torch.ones(batch, TOKENS, device=device)

    def run() -> tuple[float, float]:
        began = time.perf_counter()
        if way == "plain":
            sims = aggregate(all_volumes(image, audio), mask, Aggregation(), join_heads=True)
        else:
            use_fused(way == "fused")
            sims = dense_similarity(image, audio, mask)
        wait()
        middle = time.perf_counter()
        sims.square().mean().backward()
        wait()
        return middle - began, time.perf_counter() - middle

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    if device == "cuda":
        run()  # the first pass chooses kernels
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        forward_s, backward_s = run()
        peak = torch.cuda.max_memory_allocated() - before
    else:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        forward_s, backward_s = run()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return {
        "batch": batch,
        "way": way,
        "forward_s": forward_s,
        "backward_s": backward_s,
        "peak_mb": peak / 2**20,
    }


def machine(options: argparse.Namespace) -> str:
    """Name what was measured on."""
    if options.device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return f"{platform.processor() or platform.machine()}, {options.threads} threads"


if __name__ == "__main__":
    main()
