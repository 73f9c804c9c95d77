"""`denseav-live --check-device`: devices enter by name, each tried and proven; a table leaves.

Each is tried in a process of its own, so that a driver that crashes or hangs is a row of the table
and not the end of it.
"""

import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import distributions
from pathlib import Path

from rich.table import Table
from rich.text import Text

from denseav.export.runtime.bundle import Bundle, BundleError, open_bundle
from denseav.export.runtime.open_session import open_proven
from denseav.export.runtime.proof import prove
from denseav.export.terminal_text import safe_console, safe_text

ALL = (
    *("cpu", "cuda", "trt", "openvino:CPU", "openvino:CPU:bf16", "openvino:GPU", "openvino:NPU"),
    "webgpu",
)
LIMIT_S = 120.0
_WIDTH = 140
_TRY = """
import sys
from denseav.stream.cli.check_devices import try_device
try_device(*sys.argv[1:])
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One device: the least cosine of its heads and its passes' times, or why it does not work."""

    device: str
    backend: str = ""
    precision: str = ""
    cosine: float | None = None
    pass_ms: dict[str, float] = field(default_factory=dict)
    reason: str = ""


def check_devices(bundle: Bundle, asked: str, threads: int) -> None:
    """Print the table of one device, or of `all`.

    Raises
    ------
    BundleError
        When one device was named, and it does not work; after the table.
    """
    devices = ALL if asked == "all" else (asked,)
    rows = [_check(bundle.folder, device, threads) for device in devices]
    safe_console(width=_WIDTH).print(_table(rows, bundle))
    if asked != "all" and rows[0].reason:
        raise BundleError(rows[0].reason)


def try_device(folder: str, device: str, threads: str) -> None:
    """Print one device's row as JSON, in a process of its own."""
    bundle = open_bundle(Path(folder))
    try:
        session, proof = open_proven(bundle, device, int(threads))
        proof = proof or prove(session, bundle)
        row = Row(
            device=device,
            backend=session.backend,
            precision=session.precision,
            cosine=proof.least_cosine,
            pass_ms=proof.pass_ms,
        )
    except BundleError as error:
        row = Row(device=device, reason=str(error))
    print(json.dumps(asdict(row)))  # noqa: T201


def _check(folder: Path, device: str, threads: int) -> Row:
    command = [sys.executable, "-c", _TRY, str(folder), device, str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return Row(device=device, reason=f"no answer in {LIMIT_S:g} s; update its driver")
    try:
        return Row(**json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        said = done.stderr.strip().splitlines()
        last = said[-1] if said else "nothing was said"
        return Row(device=device, reason=f"it ended with code {done.returncode} ({last})")


def _machine() -> str:
    packages = ("denseav", "numpy", "onnxruntime-gpu", "onnxruntime", "openvino")
    found = {d.name: d.version for name in packages for d in distributions(name=name)}
    named = (f"{name} {version}" for name, version in found.items())
    return f"{', '.join(named)}, Python {platform.python_version()}, {platform.platform()}"


def _table(rows: Sequence[Row], bundle: Bundle) -> Table:
    table = Table(
        title=f"{bundle.manifest.model}, {bundle.manifest.precision}: what reproduces its heatmaps",
        title_justify="left",
        caption=_machine(),
        caption_justify="left",
    )
    for column in ("device", "works", "precision", "cosine"):
        table.add_column(column)
    for column in ("image ms", "audio ms", "heatmap ms"):
        table.add_column(column, justify="right")
    table.add_column("how to use it, or why not", overflow="fold")
    for row in rows:
        if row.reason:
            # Extras in brackets are no markup, and what a driver printed may be anything.
            table.add_row(row.device, "no", "", "", "", "", "", Text(safe_text(row.reason)))
            continue
        times = (f"{row.pass_ms[name]:.1f}" for name in ("image", "audio", "heatmap"))
        figures = (row.precision, f"{row.cosine:.6f}", *times)
        table.add_row(row.device, "yes", *figures, f"--device {row.device}")
    return table
