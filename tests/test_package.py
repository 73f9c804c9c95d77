"""What is installed: everything in the tree, nothing heavy, and no torch where it runs live."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.live_command import environment

ROOT = Path(__file__).parents[1]
PACKAGES = ("models", "train", "export", "stream")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the tree, so that nothing built before is in it."""
    folder = tmp_path_factory.mktemp("wheel")
    for package in PACKAGES:
        unbuilt = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, folder / "tree" / package, ignore=unbuilt)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "tree")
    command = ["pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--quiet", "-w", folder]
    subprocess.run([sys.executable, "-m", *command], cwd=folder / "tree", check=True, timeout=120)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_every_file_of_the_tree(wheel: Path) -> None:
    expected = {
        f"denseav/{path.relative_to(ROOT)}".replace("stream/package/", "")
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == expected
    demo = ("export/demo/manifest.json", "export/demo/audio.onnx", "export/demo/model.safetensors")
    for needed in (*demo, "stream/demo/clip.mp4"):
        assert f"denseav/{needed}" in held


def test_the_wheel_is_small_and_names_its_commands(wheel: Path) -> None:
    assert wheel.stat().st_size < 24_000_000
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        commands = archive.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    assert "denseav-live = denseav.stream.cli.live:main" in commands
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.parametrize(
    ("system", "machine", "release", "runtime"),
    [
        ("linux", "x86_64", "6.8.0-45-generic", "onnxruntime-gpu"),
        ("win32", "AMD64", "11", "onnxruntime-gpu"),
        ("linux", "aarch64", "6.11.0-1014-nvidia", "onnxruntime-gpu"),
        ("linux", "aarch64", "5.15.148-tegra", "onnxruntime"),
        ("win32", "ARM64", "11", "onnxruntime"),
        ("darwin", "arm64", "24.1.0", "onnxruntime"),
        ("darwin", "x86_64", "22.6.0", "onnxruntime"),
    ],
)
def test_every_machine_gets_one_onnx_runtime_that_is_built_for_it(
    system: str, machine: str, release: str, runtime: str
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    here = {"sys_platform": system, "platform_machine": machine, "platform_release": release}
    needed = [
        requirement.name
        for requirement in map(Requirement, project["dependencies"])
        if requirement.marker is None or requirement.marker.evaluate(here)
    ]
    assert [name for name in needed if name.startswith("onnxruntime")] == [runtime]


LOADED = """
import sys
from denseav.stream.cli import live
light = [name for name in ("cv2", "onnxruntime", "av") if name in sys.modules]
from denseav.stream.app import build
from denseav.stream.cli import list_devices
heavy = ("torch", "transformers", "denseav.models", "aiohttp", "aiortc", "segno")
heavy = [name for name in heavy if name in sys.modules]
print(light, heavy)
"""


def test_what_runs_live_imports_no_torch_and_its_door_no_library(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "[] []\n"


NAMED = """
import sys, time
begun_s = time.perf_counter()
import denseav
took_s = time.perf_counter() - begun_s
heavy = [name for name in ("numpy", "cv2", "onnxruntime", "torch") if name in sys.modules]
named = [getattr(denseav, name).__name__ for name in denseav.__all__]
torch = [name for name in ("torch", "matplotlib", "denseav.models") if name in sys.modules]
print(took_s < 0.1, heavy, named == denseav.__all__, torch)
"""


def test_importing_the_package_costs_nothing_and_all_it_names_is_there(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NAMED],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "True [] True []\n"


def test_what_is_named_is_what_other_programs_are_given() -> None:
    import denseav
    from denseav.stream import python

    assert denseav.__all__ == python.__all__
    assert set(denseav.__all__) <= set(dir(denseav))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        denseav.nonsense  # noqa: B018


def test_nothing_is_noted_down_about_who_runs_it(tmp_path: Path) -> None:
    env = environment(tmp_path)
    told = ("CI", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY", "PYTEST_CURRENT_TEST")
    subprocess.run(
        [sys.executable, "-c", "import denseav.export.runtime.onnx_session"],
        env={name: value for name, value in env.items() if name not in told},
        timeout=60,
        check=True,
    )
    assert not Path(env["XDG_CACHE_HOME"]).exists()


def test_groups_of_tests_are_kept(request: pytest.FixtureRequest) -> None:
    """A file's tests and those in real time: pytest-xdist reads the group in a test's name."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        assert request.node.nodeid.endswith("@tests/test_package")
