"""A training configuration is data: bounded, without references to itself, and it imports nothing.

YAML files enter jsonargparse through here; plain values leave. What the keys mean is `Settings`'.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import jsonargparse
import yaml

from denseav.export.outside_files import read_bounded

BYTES_MAX = 2**20
DEPTH_MAX = 32
_OURS = ["denseav.models", "denseav.train"]  # the records that settings are made of
_load = jsonargparse.get_loader("yaml")


def take_as_data() -> None:
    """Have jsonargparse import nothing that a value names, and refuse YAML that outgrows itself."""
    jsonargparse.set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=_OURS)
    jsonargparse.set_loader("yaml", load_bounded, exceptions=(yaml.YAMLError, ValueError))


def load_bounded(text: str) -> Any:
    """Return what YAML says.

    Raises
    ------
    yaml.YAMLError or ValueError
        When it is none, too long, nested too deeply, or has aliases: nine of them, each of nine,
        are a billion values.
    """
    if len(text) > BYTES_MAX:
        raise ValueError(f"it has more than {BYTES_MAX:,} characters")
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it refers to another place (*{event.anchor}); write values out")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH_MAX:
            raise ValueError(f"it is nested over {DEPTH_MAX} deep")
    return _load(text)


def check_values(kind: type, values: Any, where: str = "") -> None:
    """Look for `null`, and for a value in the place of a group: jsonargparse lets both pass.

    Parameters
    ----------
    kind : a dataclass.
    values : jsonargparse's of it.

    Raises
    ------
    ValueError
        With the key.
    """
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        name, value = f"{where}{field.name}", getattr(values, field.name, field.default)
        allowed = get_args(hints[field.name]) or (hints[field.name],)
        if value is None and type(None) not in allowed:
            raise ValueError(f"{name} cannot be null")
        groups: list[type] = [
            part for part in allowed if isinstance(part, type) and dataclasses.is_dataclass(part)
        ]
        within = getattr(value, "init_args", value)
        if isinstance(within, jsonargparse.Namespace):
            for group in groups:
                check_values(group, within, f"{name}.")
        elif groups and value is not None and not isinstance(value, tuple(groups)):
            raise ValueError(f"{name} is a group of keys, not {value!r:.80}")


def check_files(arguments: Sequence[str]) -> None:
    """Look at the files of `--config` before jsonargparse reads them whole.

    Raises
    ------
    ValueError
        When one is no regular file, or too long.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    early.add_argument("--config", type=Path, action="append", default=[])
    for path in early.parse_known_args(arguments)[0].config:
        try:
            read_bounded(path, BYTES_MAX)
        except FileNotFoundError:  # jsonargparse says so
            continue
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror})") from None
