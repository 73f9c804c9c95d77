"""What a model makes of items, piece by piece: a kept piece is not computed again.

Pieces lie in a folder as safetensors, so that an evaluation goes on where it was stopped, and
processes that share the folder, on as many devices or machines, each compute every so manieth.
Without a folder everything is computed here and nothing is kept. Two processes never compute the
same share.

Errors
------
DataError            the folder is of another evaluation, or cannot be written or read
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from denseav.models.checkpoints.atomic_files import replacing
from denseav.train.data.preparation.folder_lock import WHOLE, Share, claiming, locked
from denseav.train.errors import DataError

PIECE = 32
"""Items of a piece."""

T = TypeVar("T")
Arrays = dict[str, NDArray[Any]]
_ABOUT = "about.json"
_ODD = re.compile(r"[^\w+.-]+")


class Track(Protocol):
    """Shows how far a loop has come."""

    def __call__(self, sequence: Sequence[T], description: str) -> Iterable[T]:
        """Yield the sequence."""


class Pieces:
    """Where pieces are kept, and which of them this process computes.

    Parameters
    ----------
    folder : where they are kept; None to keep nothing.
    about : tells this evaluation from others, as JSON can hold it.
    share : which pieces are computed here; what others compute is left to them.
    track : shows how far it has come.

    Raises
    ------
    DataError
        When the folder holds another evaluation's pieces, cannot be written, or another process
        has this share of it.
    """

    def __init__(
        self, folder: Path | None, about: Mapping[str, Any], *, track: Track, share: Share = WHOLE
    ) -> None:
        self.track, self.share, self.left = track, share, 0
        self._folder, self._held = folder, ExitStack()
        if folder is not None:
            self._claim(folder, json.loads(json.dumps(about, default=str)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def of(self, what: str, count: int, compute: Callable[[range], Arrays]) -> Arrays | None:
        """Return what there is of so many items, piece after piece.

        Parameters
        ----------
        what : a name that nothing else of this evaluation has.
        compute : arrays, the first axis of each being the items of that range.

        Returns
        -------
        dict of arrays, or None
            All items'; None while another process's pieces are `left` to be computed.

        Raises
        ------
        DataError
            When a piece cannot be written or read.
        """
        found = []
        for number, start in enumerate(self.track(range(0, count, PIECE), what)):
            items = range(start, min(start + PIECE, count))
            piece = self._piece(f"{_ODD.sub('-', what)}-{number:05d}", number, items, compute)
            if piece is None:
                self.left += 1
            else:
                found.append(piece)
        if self.left or not self.share.whole:
            return None
        return {name: np.concatenate([piece[name] for piece in found]) for name in found[0]}

    def _piece(
        self, name: str, number: int, items: range, compute: Callable[[range], Arrays]
    ) -> Arrays | None:
        path = self._folder / f"{name}.safetensors" if self._folder else None
        if path is not None and path.exists():
            return _read(path) if self.share.whole else {}
        if number % self.share.of != self.share.number - 1:
            return None
        piece = compute(items)
        if path is not None:
            _write(path, save({key: np.ascontiguousarray(part) for key, part in piece.items()}))
        return piece if self.share.whole else {}

    def _claim(self, folder: Path, about: Any) -> None:
        path = folder / _ABOUT
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._held.enter_context(locked(folder, self.share))
            with claiming(folder):
                if not path.exists() and not any(folder.glob("*.safetensors")):
                    _write(path, json.dumps(about).encode())
            mine = path.exists() and json.loads(path.read_text()) == about
        except (OSError, ValueError) as error:
            raise DataError(f"{folder} cannot be used ({error}); choose another --work") from None
        if not mine:
            raise DataError(
                f"{folder} holds work on another model, other data or other options; choose "
                "another --work"
            )


def _read(path: Path) -> Arrays:
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); remove it, and it is made anew"
        ) from None


def _write(path: Path, data: bytes) -> None:
    try:
        with replacing(path) as partial:
            partial.write_bytes(data)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}); make room there") from None
