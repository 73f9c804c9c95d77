"""The folders of the user who runs a command: a kind enters, a path leaves.

It knows nothing of what is kept there. No torch, and nothing of ours.
"""

from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path, user_config_path, user_data_path

NAME = "denseav"


def cache_folder() -> Path:
    """Return where what can be made again is kept."""
    return _folder(user_cache_path)


def config_folder() -> Path:
    """Return where what the user decided is kept."""
    return _folder(user_config_path)


def data_folder() -> Path:
    """Return where what was made for the user is kept."""
    return _folder(user_data_path)


def _folder(of: Callable[[str], Path]) -> Path:
    try:
        return of(NAME)
    except RuntimeError:  # a container's user may have neither a name nor a home
        return Path.cwd() / f".{NAME}"
