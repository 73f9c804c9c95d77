"""What heads are called: names by hand, or labelled clips, enter; a manifest that has them leaves.

Heads that training did not tell what they are for are `first` and `second` until they are named.
Clips are pairs as calibration has them, NAME.png beside NAME.wav, and what is before the first `-`
in NAME is what their head is to be called. The graphs know heads by their order alone.

C clips, K heads, T tokens.

Errors
------
BundleError          the names or clips do not fit the heads (exit code 4)
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denseav.export.builder.threshold_calibration import (
    SHARES,
    Pair,
    list_pairs,
    looks_of,
)
from denseav.export.runtime.bundle import BundleError, Manifest
from denseav.export.runtime.session import Session

LEAST_CLIPS = 3
"""Of each kind; by fewer, chance would name the heads."""
OPTION = "--name-heads"
Naming = Mapping[str, str] | tuple[Pair, ...]
"""Names by the names that heads had, or clips by which they are found."""


def find_clips(folder: Path) -> tuple[Pair, ...]:
    """List the clips of a folder that say what a head is to be called.

    Pairs for calibration, of silence, noise, sounds from off screen or both kinds at once, may be
    in it, and say nothing.

    Raises
    ------
    BundleError
        When it cannot be used, or there are fewer than three of a kind.
    """
    pairs = list_pairs(folder, OPTION)
    clips = tuple(pair for pair in pairs if pair.kind not in {*SHARES, "offscreen_tune", "both"})
    few = [kind for kind in _kinds(clips) if sum(c.kind == kind for c in clips) < LEAST_CLIPS]
    if few or not clips:
        raise BundleError(
            f"{OPTION} {folder}: it needs {LEAST_CLIPS} clips or more of each kind, such as "
            f"speech-1.png beside speech-1.wav; too few: {', '.join(few) or 'all'}"
        )
    return clips


def check_naming(naming: Naming, heads: Sequence[str]) -> None:
    """See that names, or clips of kinds, are for all heads there are.

    Raises
    ------
    BundleError
        When they are not.
    """
    if isinstance(naming, Mapping):
        if unknown := sorted(set(naming) - set(heads)):
            raise BundleError(
                f"{OPTION}: there is no head {unknown[0]}; there are {', '.join(heads)}"
            )
        if len({naming.get(head, head) for head in heads}) < len(heads):
            raise BundleError(f"{OPTION}: two heads would have the same name")
    elif len(_kinds(naming)) != len(heads):
        raise BundleError(
            f"{OPTION}: the clips are of {', '.join(_kinds(naming))}, and the model has "
            f"{len(heads)} heads; each kind names one"
        )


def with_names(manifest: Manifest, naming: Naming, session: Session) -> Manifest:
    """Return the manifest with its heads named, and a note of how.

    Raises
    ------
    BundleError
        When a clip cannot be decoded, or two kinds have the same head.
    """
    if isinstance(naming, Mapping):
        return _renamed(manifest, naming, {"by": "hand"})
    strength_CK = np.stack([_strength(session, manifest, clip) for clip in naming])
    names, note = _named_by(strength_CK, [clip.kind for clip in naming], manifest)
    return _renamed(manifest, names, note)


def _strength(session: Session, manifest: Manifest, clip: Pair) -> NDArray[np.float32]:
    peaks = [look.peak_KT for look in looks_of(session, manifest, clip)]
    if not peaks:
        raise BundleError(f"{OPTION}: {clip.sound} is silent; remove it and its picture")
    strength_K: NDArray[np.float32] = np.concatenate(peaks, axis=1).mean(axis=1)
    return strength_K


def _named_by(
    strength_CK: NDArray[np.float32], kinds: Sequence[str], manifest: Manifest
) -> tuple[dict[str, str], dict[str, Any]]:
    """Give each kind the head that leads in it, each head by its own measure."""
    heads, kind_C = [head.name for head in manifest.heads], np.array(kinds)
    deviation_K = strength_CK.std(axis=0)
    score_CK = (strength_CK - strength_CK.mean(axis=0)) / np.maximum(deviation_K, 1e-12)
    names: dict[str, str] = {}
    right: dict[str, int] = {}
    for kind in _kinds_of(kinds):
        own_C = kind_C == kind
        lead_K = score_CK[own_C].mean(axis=0) - score_CK[~own_C].mean(axis=0)
        head = heads[int(lead_K.argmax())]
        if head in names:
            raise BundleError(
                f"{OPTION}: {names[head]} and {kind} are both strongest in the head {head}; the "
                "heads are not apart, or the clips are of one kind: name them by hand"
            )
        names[head] = kind
        right[kind] = int((score_CK[own_C].argmax(axis=1) == lead_K.argmax()).sum())
    counts = {kind: int((kind_C == kind).sum()) for kind in right}
    return names, {"by": "clips", "clips": counts, "strongest_in_its_head": right}


def _renamed(manifest: Manifest, names: Mapping[str, str], note: dict[str, Any]) -> Manifest:
    def parity_of(figures: Mapping[str, Any]) -> dict[str, Any]:
        return {names.get(head, head): of_head for head, of_head in figures.items()}

    heads = tuple(
        dataclasses.replace(head, name=names.get(head.name, head.name)) for head in manifest.heads
    )
    were = {names.get(head.name, head.name): head.name for head in manifest.heads}
    return dataclasses.replace(
        manifest, heads=heads, parity=parity_of(manifest.parity), naming=note | {"were": were}
    )


def _kinds(clips: Sequence[Pair]) -> list[str]:
    return _kinds_of([clip.kind for clip in clips])


def _kinds_of(kinds: Sequence[str]) -> list[str]:
    return sorted(set(kinds))
