"""A file of `torch.save` to plain values and tensors: nothing in it runs, nothing outgrows it.

A path enters, dictionaries, numbers, text and tensors leave. The tensors' data lie in the file,
mapped into memory; one may claim to be many copies of them, so its shape is to be checked before it
is copied. What a pickle may name is listed here, far less than what `weights_only` would allow: a
`bytearray` of any size, say.

Errors
------
OSError              the file cannot be read
ValueError           it is damaged, no such file, or wants more than it holds
CodeInFileError      it names something that would run; the message is its name
"""

import io
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from denseav.export.outside_files import require_file

_PICKLE = "data.pkl"
_PICKLE_BYTES_MAX = 2**23  # each byte can become a list of 64; that of a full-size run has 2**19
_OLD_PICKLES = 4  # a magic number, a version, the machine, and what was saved
_ENTRIES_MAX = 100_000
_PLAIN = {
    "_codecs.encode",
    "builtins.complex",
    "builtins.set",
    "collections.Counter",
    "collections.OrderedDict",
    "torch.Size",
    "torch.Tensor",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2",
    "torch.device",
    "torch.nn.parameter.Parameter",
}


class CodeInFileError(ValueError):
    """A pickle names what a checkpoint has no need of; the message is that name."""


def load_pickled(path: Path) -> Any:
    """Return what a file of `torch.save` holds; see the module.

    Raises
    ------
    OSError, ValueError or CodeInFileError
        When it cannot be read, is damaged, or names something that would run.
    """
    require_file(path)
    _check_names(io.BytesIO(_pickle(path)))
    try:
        record = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged pickle makes its reader raise anything
        raise ValueError(_first_line(error)) from None
    for tensor in _tensors(record):
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise ValueError("it holds a tensor that is none in memory")
    return record


def _pickle(path: Path) -> bytes:
    """Return the pickle of a file, once its parts are known to be no larger than the file."""
    try:
        if not zipfile.is_zipfile(path):
            raise _not_zipped(path)
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > _ENTRIES_MAX or any(entry.compress_type for entry in entries):
                raise ValueError("torch does not write such archives")
            if sum(entry.file_size for entry in entries) > path.stat().st_size:
                raise ValueError("its parts overlap")
            named = [entry for entry in entries if entry.filename.endswith(f"/{_PICKLE}")]
            if len(named) != 1 or named[0].file_size > _PICKLE_BYTES_MAX:
                raise ValueError(f"it has no {_PICKLE}, several, or a huge one")
            return archive.read(named[0])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ValueError(_first_line(error)) from None


def _not_zipped(path: Path) -> ValueError:
    """Return what to say of a file as torch wrote it once, or of anything else."""
    with path.open("rb") as file:
        head = io.BytesIO(file.read(_PICKLE_BYTES_MAX))
    for _ in range(_OLD_PICKLES):
        _check_names(head)
    return ValueError("it is no zip archive, as torch has written since 1.6")


def _check_names(pickled: io.BytesIO) -> None:
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name in ("GLOBAL", "INST", "STACK_GLOBAL"):
                name = str(argument).replace(" ", ".") if argument else "by a computed name"
                if not _is_plain(name):
                    raise CodeInFileError(name)
    except CodeInFileError:
        raise
    except Exception as error:  # noqa: BLE001 - what is no pickle is taken apart in any way
        raise ValueError(_first_line(error)) from None


def _is_plain(name: str) -> bool:
    module, _, last = name.rpartition(".")
    of_torch = module == "torch" and (
        last.endswith("Storage") or isinstance(getattr(torch, last, None), torch.dtype)
    )
    return of_torch or name in _PLAIN


def _tensors(record: Any) -> Iterator[Tensor]:
    """Yield every tensor, however deep; each container once, for a pickle can share or circle."""
    left, seen = [record], set()
    while left:
        value = left.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            left += [*value.keys(), *value.values()] if isinstance(value, dict) else value


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
