"""The documents of the repository, and where they lie."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for folder in (".", "docs", "stream", "benchmarks", "export/demo", "tests/golden")
    for path in (ROOT / folder).glob("*.md")
)
