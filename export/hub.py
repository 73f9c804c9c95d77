"""Bundles that travel: a folder to a repository of a hub, and a repository's name to a folder.

By `huggingface_hub`, which is the extra `hub`. A repository holds a bundle, the network's weights
as safetensors, and a card; whatever comes from there is checked against the manifest's hashes when
it is opened. No torch here.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from denseav.export.runtime.bundle import MANIFEST, BundleError, Manifest, read_manifest

HUB = "hf:"
_NAME = re.compile(r"(?!.*(?:\.\.|--))[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_NEEDED = "a hub needs huggingface-hub; in a clone of denseav: pip install '.[hub]'"


def is_on_hub(model: str | Path) -> bool:
    """Say whether a model's name is one of a hub: `hf:owner/name`, `hf:owner/name@revision`."""
    return str(model).startswith(HUB)


def fetch_bundle(model: str | Path) -> Path:
    """Return the folder of a hub's bundle: from there, or as it was fetched before.

    Only what its manifest names is fetched. Without a network the one of before is returned, and
    with `HF_HUB_OFFLINE=1` always.

    Raises
    ------
    BundleError
        When there is no such bundle, or it cannot be had.
    """
    name = Path(model).as_posix().removeprefix(HUB)
    repository, _, revision = name.partition("@")
    if not _NAME.fullmatch(repository):
        raise BundleError(f"{model} is no hub id; it looks like hf:owner/name")
    with _one_line(f"the bundle {HUB}{name} cannot be fetched"):
        from huggingface_hub import hf_hub_download

        folder = Path(hf_hub_download(repository, MANIFEST, revision=revision or None)).parent
        for file in read_manifest(folder).files:  # of the commit that the manifest is of
            hf_hub_download(repository, file, revision=folder.name)
        return folder


def push_bundle(folder: Path, repository: str, card: str, weights: Mapping[str, Path]) -> str:
    """Put a bundle, its card and the network's own files into a repository, in one commit.

    A repository that is not there yet is made, and private.

    Parameters
    ----------
    weights : files by the names that they get.

    Returns
    -------
    address : of the commit.

    Raises
    ------
    BundleError
        When the hub does not take it; then nothing of it is there.
    """
    require_name(repository)
    names = [MANIFEST, *read_manifest(folder).files]
    files = {name: folder / name for name in names} | dict(weights)
    with _one_line(f"the bundle cannot be pushed to {repository}"):
        from huggingface_hub import CommitOperationAdd, HfApi

        hub = HfApi()
        hub.create_repo(repository, private=True, exist_ok=True)
        operations = [CommitOperationAdd(name, path) for name, path in files.items()]
        operations.append(CommitOperationAdd("README.md", card.encode()))
        commit = hub.create_commit(repository, operations, commit_message="A bundle of denseav")
        return str(commit.commit_url)


def require_name(repository: str) -> None:
    """Raise `BundleError` unless it is a repository's name, and what fetches and pushes is here."""
    if not _NAME.fullmatch(repository):
        raise BundleError(f"{repository!r} is no repository's name; it looks like owner/name")
    with _one_line("a hub"):
        import huggingface_hub  # noqa: F401


def named_heads(manifest: Manifest) -> str:
    """Return one line that says how the heads got their names at export, "" where they kept them.

    What a manifest from elsewhere says there is of no known form.
    """
    were, right = manifest.naming.get("were"), manifest.naming.get("strongest_in_its_head", {})
    counts = manifest.naming.get("clips", {})
    if not isinstance(were, Mapping) or not isinstance(right, Mapping):
        return ""
    parts = [
        f"{old} is {name}"
        + (f" ({right[name]} of {counts[name]} clips)" if name in right and name in counts else "")
        for name, old in were.items()
    ]
    how = "from labelled clips" if right else "by hand"
    return f"heads named {how}: {', '.join(parts)}"


def model_card(manifest: Manifest, repository: str) -> str:
    """Return what is known of a bundle, as Markdown with the hub's front matter."""
    heads = "\n".join(
        f"| {head.name} | {head.threshold:.3f} | {head.ceiling:.3f} |" for head in manifest.heads
    )
    parity = "\n".join(
        f"| {name} | {found['cosine']:.6f} | {found['max_abs']:.1e} |"
        for name, found in manifest.parity.items()
    )
    image, window_s = manifest.image, manifest.audio.window_samples / 16_000
    named = f"\n{line[0].upper()}{line[1:]}.\n" if (line := named_heads(manifest)) else ""
    trained = "" if manifest.trained else "\n**Untrained: its weights are random.**\n"
    return f"""---
library_name: denseav
tags: [audio-visual, sound-localization, onnx]
---

# {manifest.model}
{trained}
A bundle of denseav, after [DenseAV](https://arxiv.org/abs/2406.05629): on each video frame, where
the sound comes from and what the speech is about. Exported from `{manifest.source}`, in
{manifest.precision}.

    denseav-live --camera 0 --model hf:{repository}

It takes frames of {image.height}x{image.width} pixels and windows of {window_s:.2f} s of audio at
16 kHz, and gives maps of {image.grid_height}x{image.grid_width} cells for each head:

| head | shows from | in full at |
| --- | ---: | ---: |
{heads}
{named}
How far its heatmaps are from PyTorch's:

| head | cosine | largest difference |
| --- | ---: | ---: |
{parity}

`manifest.json` has every file's sha256, and `model.safetensors` the weights, which
`denseav-export hf:{repository}` exports again. Their licence and data are those of their source.
"""


def _failures() -> tuple[type[Exception], ...]:
    """Return what a hub, a network, a disk or rubbish in place of an answer raises."""
    from huggingface_hub.errors import HfHubHTTPError

    # The hub's library has its HTTP client's errors beside its own, and has changed the client.
    of_client = next(each for each in HfHubHTTPError.__mro__ if each.__name__ == "HTTPError")
    assert issubclass(of_client, Exception)
    return OSError, ValueError, LookupError, TypeError, RuntimeError, of_client


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Turn what can go wrong with a hub into one line for people."""
    try:
        yield
    except BundleError:
        raise
    except ModuleNotFoundError:
        raise BundleError(_NEEDED) from None
    except _failures() as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise BundleError(
            f"{what} ({reason:.200}); check its name, the network, and your login (hf auth login)"
        ) from None
