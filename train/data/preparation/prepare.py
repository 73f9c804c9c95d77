"""Shards are made once: items of a source enter, a folder of shards leaves.

Items are taken in parts; a part is done when its record stands in `parts/`, so that a run that
was stopped goes on with the parts that are left. A file that cannot be used is skipped, and listed
with its reason in `skipped.tsv`; one that had to be mended, in `mended.tsv`. A part that was begun
and not finished may hold a file that ends the process that reads it: it is read in a process of its
own, so that this file too can be skipped. Machines that share a folder each take every so manieth
part; what comes of it is the same.

Errors
------
DataError            the folder is of another source, in use or not to be written, or nothing was
                     usable
"""

import hashlib
import json
import multiprocessing
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from denseav.models.config import SAMPLE_RATE_HZ
from denseav.stream.media.reader import MediaReader
from denseav.train.data.decode import (
    LEAST_SAMPLES,
    UnreadableError,
    cut_video,
    flac,
    media_reader,
    read_picture,
    read_sound,
)
from denseav.train.data.preparation.folder_lock import (
    WHOLE,
    Share,
    claiming,
    is_lock,
    locked,
    remove_locks,
)
from denseav.train.data.preparation.source_lists import FRAMES, Item, ItemList, readable
from denseav.train.data.shards import Clip, close_shards, count_closed, write_json, write_shards
from denseav.train.data.workers import SHARED_MEMORY, shared_memory_bytes, worker_context
from denseav.train.errors import DataError

PART_ITEMS = 64
PIECE_S = 10.0

_PLAN = "prepare.json"
_PARTS = "parts"
_SKIPPED, _MENDED = "skipped", "mended"
_OTHERS = "{} holds something else, or other items' shards; choose another --out"
Notes = dict[str, list[tuple[str, str]]]
"""Keys of items that were skipped or mended, with what there is to say of them."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What came of it: how many clips, and how many files were skipped or mended, as listed.

    Where others have a share too, `parts_left` of theirs may be undone: then nothing is listed yet.
    """

    parts_left: int
    clips: int
    skipped: int
    skipped_list: Path
    mended: int
    mended_list: Path


def prepare(
    items: ItemList[Any],
    out: Path,
    *,
    jobs: int,
    advance: Callable[[int], None],
    share: Share = WHOLE,
) -> Prepared:
    """Make shards of items, or go on where this was stopped.

    Parameters
    ----------
    items : what there is, in an order that does not change.
    out : a new folder, or one that this began with the same items.
    jobs : processes that read and encode.
    advance : called with how many more items are done, those of an earlier run included.
    share : which of them; shards can be read once a run of the whole has found every share done.

    Raises
    ------
    DataError
        When the folder was begun with other items or holds other files, another process has it or
        this share of it, it cannot be written, or no item is usable.
    """
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        ours = _is_new(out) or (out / _PLAN).exists()
    if not ours:  # and nothing is left in it, no lock either
        raise DataError(_OTHERS.format(out))
    if count_closed(out):
        _claim(items, out)
        advance(items_of(items, share))
        return _summary(out)
    with locked(out, share):
        _claim(items, out)
        return _prepare(items, out, jobs, advance=advance, share=share)


def items_of(items: Sequence[Item], share: Share) -> int:
    """Return how many items a share has."""
    return sum(_part_items(items, number) for number in _parts_of(items, share))


def _parts_of(items: Sequence[Item], share: Share) -> range:
    """Return the numbers of the parts of a share."""
    return range(share.number - 1, -(-len(items) // PART_ITEMS), share.of)


def _part_items(items: Sequence[Item], number: int) -> int:
    return min(PART_ITEMS, len(items) - number * PART_ITEMS)


def _part(items: Sequence[Item], number: int) -> Sequence[Item]:
    return items[number * PART_ITEMS : (number + 1) * PART_ITEMS]


def _prepare(
    items: ItemList[Any], out: Path, jobs: int, *, advance: Callable[[int], None], share: Share
) -> Prepared:
    (out / _PARTS).mkdir(exist_ok=True)
    _run(items, out, jobs, advance=advance, share=share)
    if not share.whole:
        return _summary_of_share(items, out, share)
    indices, first_reason = _join(items, out)
    if not any(index["chunks"] for index in indices):
        raise DataError(f"nothing was usable; {out / _SKIPPED}.tsv has the reasons: {first_reason}")
    close_shards(out, indices)
    shutil.rmtree(out / _PARTS)
    remove_locks(out)
    return _summary(out)


def _join(items: ItemList[Any], out: Path) -> tuple[list[dict[str, Any]], str]:
    """List what was skipped and mended; return all shards, and the first reason to skip."""
    indices, first_reason = [], ""
    with (
        (out / f"{_SKIPPED}.tsv").open("w", encoding="utf-8") as skipped,
        (out / f"{_MENDED}.tsv").open("w", encoding="utf-8") as mended,
    ):
        for record in _records(out, _parts_of(items, WHOLE)):
            for file, name in ((skipped, _SKIPPED), (mended, _MENDED)):
                file.writelines(f"{key}\t{readable(what)}\n" for key, what in record[name])
            if record[_SKIPPED] and not first_reason:
                key, reason = record[_SKIPPED][0]
                first_reason = f"{key} {readable(reason)}"
            indices.append(record["index"])
    return indices, first_reason


def _summary_of_share(items: ItemList[Any], out: Path, share: Share) -> Prepared:
    clips = skipped = mended = 0
    for record in _records(out, _parts_of(items, share)):
        clips += sum(int(chunk["chunk_size"]) for chunk in record["index"]["chunks"])
        skipped += len(record[_SKIPPED])
        mended += len(record[_MENDED])
    return Prepared(
        parts_left=len(_parts_of(items, WHOLE)) - len(_done(out)),
        clips=clips,
        skipped=skipped,
        skipped_list=out / f"{_SKIPPED}.tsv",
        mended=mended,
        mended_list=out / f"{_MENDED}.tsv",
    )


def _records(out: Path, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
    for number in numbers:
        yield json.loads(_record_path(out, number).read_text())


def _done(out: Path) -> set[int]:
    """Return the numbers of all parts that have a record."""
    return {int(path.stem) for path in (out / _PARTS).glob("*.json")}


def _begun(out: Path) -> set[int]:
    """Return the numbers of all parts that were begun and have not ended."""
    return {int(path.name) for path in (out / _PARTS).iterdir() if path.name.isdecimal()}


def _summary(out: Path) -> Prepared:
    skipped_list, mended_list = out / f"{_SKIPPED}.tsv", out / f"{_MENDED}.tsv"
    return Prepared(
        parts_left=0,
        clips=count_closed(out),
        skipped=_lines(skipped_list),
        skipped_list=skipped_list,
        mended=_lines(mended_list),
        mended_list=mended_list,
    )


def _lines(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n") if path.exists() else 0


def _claim(items: ItemList[Any], out: Path) -> None:
    """Make sure that a folder is of these items, and write whose it is into a new one.

    A list of the same bytes needs no second look at its rows.
    """
    begun = _plan(out)
    digest = _digest_of_list(items)
    if begun is not None and digest and begun.get("list") == digest:
        return
    plan = {"items": len(items), "sha256": _digest_of_keys(items)}
    if begun is None:
        with _writing(out), claiming(out):
            if _is_new(out):
                write_json(out / _PLAN, plan | {"list": digest})
        begun = _plan(out)
    if begun is None or any(begun[name] != plan[name] for name in plan):
        raise DataError(_OTHERS.format(out))


def _plan(out: Path) -> dict[str, Any] | None:
    with _writing(out), suppress(FileNotFoundError):
        plan: dict[str, Any] = json.loads((out / _PLAN).read_text())
        return plan
    return None


def _is_new(out: Path) -> bool:
    """Tell whether a folder holds nothing but what runs that begin put there."""
    return all(is_lock(path) or path.name == f".{_PLAN}.partial" for path in out.iterdir())


def _digest_of_keys(items: ItemList[Any]) -> str:
    digest, first = hashlib.sha256(), items[0]
    before, after = f"{first.kind} ", _heard(first)
    for at, key in enumerate(items.keys()):
        line = f"{before}{key}{after}"
        digest.update((f"\n{line}" if at else line).encode())
    return digest.hexdigest()


def _digest_of_list(items: ItemList[Any]) -> str:
    said = f"{items.digest} {items[0].kind}{_heard(items[0])}"
    return hashlib.sha256(said.encode()).hexdigest() if items.digest else ""


def _heard(item: Item) -> str:
    channel = {None: "", "left": " of the first channel"}.get(item.channel, f" {item.channel}")
    return channel + ("" if item.audio_track is None else f" of track {item.audio_track}")


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot write to {out} ({error.strerror}); choose another --out") from None


def _run(
    items: ItemList[Any], out: Path, jobs: int, *, advance: Callable[[int], None], share: Share
) -> None:
    """Make all parts that have no record, again and again while processes die over new ones."""
    left, before = set(_parts_of(items, share)), None
    while True:
        if done := left & _done(out):
            advance(sum(_part_items(items, number) for number in done))
            left -= done
        if not left:
            return
        begun = left & _begun(out)
        if begun == before:
            raise DataError(
                "processes that read files die again and again, likely for want of memory; run the "
                "same command again, with fewer --jobs: what is done is kept"
            )
        before = begun
        with suppress(BrokenProcessPool):
            _run_once(items, left, out, jobs=jobs, advance=advance)


def _run_once(
    items: ItemList[Any], left: set[int], out: Path, *, jobs: int, advance: Callable[[int], None]
) -> None:
    """Make parts, and take those that are done out of what is left."""
    if not shared_memory_bytes():
        raise DataError(
            f"{SHARED_MEMORY} cannot be written, and processes that read files need it; mount it "
            "(docker run --shm-size), or prepare elsewhere"
        )
    context = worker_context(__name__)
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_ignore_interrupt)
    waiting, numbers = iter(sorted(left)), dict[Future[None], int]()
    try:
        while True:
            for number in islice(waiting, 2 * jobs - len(numbers)):  # one more for each process
                numbers[pool.submit(make_part, number, _part(items, number), out)] = number
            if not numbers:
                return
            for done in wait(numbers, return_when=FIRST_COMPLETED).done:
                done.result()
                left.remove(number := numbers.pop(done))
                advance(_part_items(items, number))
    except OSError as error:
        raise DataError(
            f"cannot write to {out} ({error.strerror}); make room and run the same command "
            "again: what is done is kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _record_path(out: Path, number: int) -> Path:
    return out / _PARTS / f"{number:06d}.json"


def make_part(number: int, items: Sequence[Item], out: Path) -> None:
    """Write the shards of one part, then the record that says it is done; in a worker.

    Raises
    ------
    OSError
        When something cannot be written.
    """
    work = out / _PARTS / f"{number:06d}"
    clips = _clips_apart if work.exists() else _clips
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    notes: Notes = {_SKIPPED: [], _MENDED: []}
    index = write_shards(work, clips(items, notes))
    for place, chunk in enumerate(index["chunks"]):
        name = f"shard-{number:06d}-{place}.bin"
        (work / chunk["filename"]).replace(out / name)
        chunk["filename"] = name
    work.rmdir()
    write_json(_record_path(out, number), {"index": index, **notes})


def _clips(items: Sequence[Item], notes: Notes) -> Iterator[Clip]:
    for item in items:
        reader = media_reader(item.sound, item.channel, item.audio_track)
        try:
            yield from _of_pictures(item, reader) if item.pictures else _of_video(item, reader)
        except UnreadableError as reason:
            notes[_SKIPPED].append((item.key, str(reason)))
        if reader.mended:
            notes[_MENDED].append((item.key, "; ".join(reader.mended)))


def _clips_apart(items: Sequence[Item], notes: Notes) -> Iterator[Clip]:
    """Read in a process of its own, and go on in another after an item that ends it."""
    if sys.platform == "linux":
        # A worker has one thread, so that it may fork: a hundred times as fast as a fork server.
        context = multiprocessing.get_context("fork")
    else:
        context = multiprocessing.get_context("spawn")
    left = list(items)
    while left:
        receiver, sender = context.Pipe(duplex=False)
        reader = context.Process(target=_send_clips, args=(left, receiver, sender))
        reader.start()
        sender.close()
        try:
            while left:
                sent = receiver.recv()
                if isinstance(sent, Clip):
                    yield sent
                else:
                    for name, lines in sent.items():
                        notes[name] += lines
                    del left[0]
        except (EOFError, OSError):
            reader.join()
            reason = f"the process that read it died (exit code {reader.exitcode})"
            notes[_SKIPPED].append(
                (left.pop(0).key, f"{reason}, by a decoder's fault or for want of memory")
            )
        finally:
            reader.kill()
            reader.join()


def _send_clips(items: Sequence[Item], receiver: Connection, sender: Connection) -> None:
    """Send the clips of each item, and then what there is to say of it."""
    receiver.close()  # only the worker's is left, so that sending fails when the worker is gone
    with suppress(BrokenPipeError):
        for item in items:
            notes: Notes = {_SKIPPED: [], _MENDED: []}
            for clip in _clips([item], notes):
                sender.send(clip)
            sender.send(notes)


def _of_pictures(item: Item, reader: MediaReader) -> list[Clip]:
    there = [path for path in item.pictures if path.exists()]
    if not there:
        raise UnreadableError(f"{item.pictures[0]} is missing")
    wave_S = read_sound(reader)
    if len(wave_S) < LEAST_SAMPLES:
        raise UnreadableError(
            f"{item.sound} has only {len(wave_S) / SAMPLE_RATE_HZ:.2f} s of sound"
        )
    frames = tuple(read_picture(path) for path in there)
    return [Clip(key=item.key, kind=item.kind, frames=frames, audio=flac(wave_S), notes=item.notes)]


def _of_video(item: Item, reader: MediaReader) -> Iterator[Clip]:
    found = False
    for index, (frames, wave_S) in enumerate(cut_video(reader, PIECE_S, FRAMES)):
        if len(wave_S) >= LEAST_SAMPLES:
            found = True
            key = f"{item.key}@{index * PIECE_S:g}"
            notes = item.notes | {"start_s": index * PIECE_S}
            yield Clip(
                key=key, kind=item.kind, frames=tuple(frames), audio=flac(wave_S), notes=notes
            )
    if not found:
        raise UnreadableError(f"{item.sound} has less than 0.41 s of picture and sound together")
