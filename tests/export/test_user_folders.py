"""Folders of users, and of those who have neither a home nor a name."""

import pwd
from pathlib import Path

import pytest

from denseav.export import cli as export
from denseav.export.runtime.bundle import default_folder
from denseav.export.user_folders import cache_folder, config_folder, data_folder
from denseav.stream.cli import feed, live_options
from denseav.stream.feed import keys


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    def unknown(_: int) -> pwd.struct_passwd:
        raise KeyError("no such user")

    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "USER", "LOGNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".denseav"


def test_each_kind_has_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
    assert cache_folder() == tmp_path / "CACHE" / "denseav"
    assert config_folder() == tmp_path / "CONFIG" / "denseav"
    assert data_folder() == tmp_path / "DATA" / "denseav"


def test_without_a_home_they_lie_where_the_command_runs(homeless: Path) -> None:
    assert default_folder() == homeless / "bundle"
    assert keys.default_folder() == homeless / "feed-keys"


@pytest.mark.parametrize("main", [live_options.parse, feed.main, export.main])
def test_commands_start_without_a_home(
    homeless: Path, main: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(main)
    try:
        code = main(["--help"])
    except SystemExit as ended:
        code = ended.code
    assert not code
    assert "usage:" in capsys.readouterr().out
    assert not homeless.exists()
