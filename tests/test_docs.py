"""The map, the folders and the documents' links, held against the tree."""

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.support.documents import DOCUMENTS, ROOT

CODE = ("models", "train", "export", "stream", "benchmarks")
FILES_OF_A_FOLDER = 15
LINK = re.compile(r"\]\(([^)\s]+)\)")
# `train/data/shards.py`, `configs/`, `.ci/run`: a path from the root of the repository.
FOLDERS = r"(?:\.ci|benchmarks|configs|docs|export|models|stream|tests|train)"
MENTIONED = re.compile(rf"(?<![\w/.-]){FOLDERS}/[\w./-]*")
QUOTED = re.compile(r"`[^`\n]+`|^```.*?^```", re.M | re.S)


def code_files() -> list[Path]:
    return [
        path.relative_to(ROOT)
        for folder in CODE
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py" and "__pycache__" not in path.parts
    ]


def section(title: str) -> str:
    """What the design says under one of its headings."""
    return (ROOT / "docs/design.md").read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]


def anchors(document: Path) -> set[str]:
    """The fragments that a document's headings can be linked by, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_map_has_every_file_of_the_tree_once_and_no_other() -> None:
    files = section("Every file")
    lines = Counter(re.findall(r"^- `([^`]+\.py)`: \S", files, re.M))
    assert lines.total() == len(re.findall("^- ", files, re.M))
    assert [name for name, times in lines.items() if times > 1] == []
    assert set(lines) == {str(path) for path in code_files()}


def test_the_ways_lead_through_files_of_the_map() -> None:
    steps = re.findall(r"`([\w/]+)`", section("The ways through it"))
    assert len(steps) > 20
    files = ["/" + str(path.with_suffix("")) for path in code_files()]
    found = {step: [file for file in files if file.endswith("/" + step)] for step in steps}
    assert {step: files for step, files in found.items() if len(files) != 1} == {}


def test_no_document_is_left_out() -> None:
    own = (path for path in ROOT.rglob("*.md") if not any(p[0] == "." for p in path.parts))
    left = {path.relative_to(ROOT) for path in own if "site-packages" not in path.parts}
    assert left - {path.relative_to(ROOT) for path in DOCUMENTS} == set()


def test_no_folder_of_code_has_more_files_than_one_can_see() -> None:
    files = (path for folder in (*CODE, "tests/support") for path in (ROOT / folder).rglob("*.py"))
    counts = Counter(path.parent.relative_to(ROOT) for path in files)
    assert {folder: n for folder, n in counts.items() if n > FILES_OF_A_FOLDER} == {}


def test_tests_lie_in_the_folders_of_what_they_test() -> None:
    folders = {path.parent.relative_to(ROOT / "tests") for path in ROOT.glob("tests/**/test_*.py")}
    assert len(folders) > 20
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_links_to_is_there(document: Path) -> None:
    for link in LINK.findall(document.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_files_that_a_document_names_are_there(document: Path) -> None:
    quoted = "\n".join(QUOTED.findall(document.read_text()))
    named = {match.rstrip(".") for match in MENTIONED.findall(quoted)}
    there = {name for name in named if (ROOT / name).exists() or (ROOT / f"{name}.py").exists()}
    assert named - there == set()


def test_each_threat_names_tests_that_there_are() -> None:
    rows = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if line[:2] == "| "]
    threats = [row.split("|")[4] for row in rows[2:]]
    assert len(threats) > 15
    for cell in threats:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", cell)
        assert named, cell
        for file, test in named:
            assert not test or f"\ndef {test}(" in (ROOT / file).read_text(), (file, test)
