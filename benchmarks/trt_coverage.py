"""Which operators of the full-size graphs torch-tensorrt can convert: a dry run, no GPU needed.

    python benchmarks/trt_coverage.py [--model configs/models/denseav.json] [--precision fp16]

A table for people, then one line of JSON. It shows that every operator has a converter and how
many engines each graph becomes; not that an engine builds, nor that it is accurate.
Install first, in a clone of denseav: pip install '.[torch-tensorrt]'. Where TensorRT's libraries
cannot be had, its bindings (`tensorrt-cu13-bindings`) import against libraries that only export
the symbols they ask for.
"""

import argparse
import contextlib
import io
import json
import logging
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from denseav.export.builder.build import make_plan
from denseav.export.builder.graphs import Graph, make_graphs
from denseav.export.builder.half_precision import half, spell_out_attention
from denseav.export.builder.torch_trt_engine import SETTINGS, contiguous
from denseav.export.runtime.bundle import window_samples
from denseav.models import load

_COUNT = re.compile(r"consists of (\d+) Total Operators, of which (\d+) operators are supported")
_ENGINE = re.compile(r"TRT Engine #\d+")


def main() -> int:
    """Print the table; return 1 when an operator has no converter or a graph is cut in two."""
    options = _parser().parse_args()
    try:
        torch_tensorrt = _import_torch_tensorrt()
    except Exception as error:  # noqa: BLE001
        # torch-tensorrt raises plain Exception when it cannot load TensorRT.
        print(f"torch-tensorrt cannot be loaded ({error}); pip install '.[torch-tensorrt]'")
        return 4
    model = load(str(options.model))
    plan = make_plan(
        config=model.config,
        source=str(options.model),
        precision="fp32",
        frame_size=None,
        window_s=options.window,
    )
    model.prepare_export(*plan.frame_size)
    spell_out_attention(model)
    rows = []
    print(f"{'graph':<10}{'precision':<11}{'covered':>8}{'total':>7}{'engines':>9}{'s':>7}")
    for precision in options.precision or ("fp32", "fp16"):
        graphs = make_graphs(half(model) if precision == "fp16" else model)
        examples = graphs.examples(*plan.frame_size, window_samples(plan.tokens))
        for name, graph in graphs.named().items():
            row = {"graph": name, "precision": precision}
            row |= _cover(torch_tensorrt, graph, examples[name])
            rows.append(row)
            print(
                f"{name:<10}{precision:<11}{row['covered']:>8}{row['total']:>7}"
                f"{row['engines']:>9}{row['seconds']:>7.1f}",
                flush=True,
            )
    height, width = plan.frame_size
    versions = {"torch": torch.__version__, "torch_tensorrt": torch_tensorrt.__version__}
    setup = {"model": options.model.name, "frame": [height, width], "tokens": plan.tokens}
    print(json.dumps(versions | setup | {"rows": rows}))
    return int(any(row["covered"] < row["total"] or row["engines"] != 1 for row in rows))


def _parser() -> argparse.ArgumentParser:
    model = Path(__file__).parents[1] / "configs" / "models" / "denseav.json"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=model, help="default: %(default)s")
    parser.add_argument("--precision", action="append", choices=("fp32", "fp16"))
    parser.add_argument("--window", type=float, default=10.0, metavar="SECONDS")
    return parser


def _import_torch_tensorrt() -> Any:
    logging.disable(logging.WARNING)
    if not torch.cuda.is_available():
        # It asks for the GPU's facts while it is imported and when it begins; a dry run needs none.
        torch.cuda.current_device = lambda: 0
        torch.cuda.get_device_capability = lambda *_: (9, 0)
        torch.cuda.mem_get_info = lambda *_: (1 << 34, 1 << 34)
    import torch_tensorrt

    return torch_tensorrt


def _cover(torch_tensorrt: Any, graph: Graph, example: tuple[Tensor, ...]) -> dict[str, Any]:
    start_s = time.monotonic()
    example = contiguous(example)
    with torch.no_grad():
        program = torch.export.export(graph, example)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        report = Path(folder) / "report.txt"
        torch_tensorrt.dynamo.compile(program, arg_inputs=example, dryrun=str(report), **SETTINGS)
        said = report.read_text()
    counts = _COUNT.search(said)
    assert counts is not None, said
    return {
        "covered": int(counts[2]),
        "total": int(counts[1]),
        "engines": len(_ENGINE.findall(said)),
        "seconds": round(time.monotonic() - start_s, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
