from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from denseav.export.builder.atomic_folder import rewritten, written_beside


@pytest.mark.parametrize("whole", [written_beside, rewritten])
def test_an_interrupt_as_soon_as_the_folder_is_there_leaves_none(
    whole: Callable[[Path], AbstractContextManager[Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = Path.mkdir

    def interrupted(path: Path, *arguments: int, **options: bool) -> None:
        real(path, *arguments, **options)
        if path.name.startswith(".bundle-"):
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt), whole(tmp_path / "bundle"):
        pytest.fail("it was interrupted before")
    assert list(tmp_path.iterdir()) == []
